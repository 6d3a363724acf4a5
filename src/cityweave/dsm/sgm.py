"""Semi-global matching over a cost volume whose cells each have their own range of heights.

The volume is stored as rows of a sparse matrix: cell i (row-major) holds heights `low[i] .. low[i] + n_i - 1` (absolute
indices) at `start[i] : start[i + 1]`. Integer arithmetic throughout: the result is the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cityweave.cores import in_use, shares, side_by_side

PATHS = 8
OWN_SHARE = 0.15  # of what a step costs, the least that counts as the cell's own
_FAR = 30000
_NONE = 65535


def aggregate(
    cost: np.ndarray,
    start: np.ndarray,
    low: np.ndarray,
    rows: int,
    cols: int,
    p1: int,
    p2_by_contrast: np.ndarray,
    guide: np.ndarray,
) -> np.ndarray:
    """Sum of 8 path costs, uint16, laid out as `cost` (uint8).

    `p2_by_contrast[k]` (int16) is what a jump costs between cells whose `guide` (uint8) differs by k: jumps belong
    where the picture has edges. A height outside a neighbour's range costs as much.
    """
    # Down and up share nothing but the sum: on two cores each has its own.
    totals = [np.zeros(len(cost), np.uint16) for _ in range(min(in_use(), 2))]

    def one_way(sweep: int) -> None:
        _four_paths(cost, start, low, rows, cols, p1, p2_by_contrast, guide, sweep, totals[sweep % len(totals)])

    side_by_side(one_way, (0, 1))
    for other in totals[1:]:
        totals[0] += other
    return totals[0]


@njit(cache=True, nogil=True)
def _four_paths(cost, start, low, rows, cols, p1, p2_by_contrast, guide, sweep, total):  # type: ignore[no-untyped-def]
    """Adds the paths that come from the left and from above (sweep 0), or from the right and from below (1).

    The inner loops run over slices, each in a function of its own: only so do they become vector instructions.
    """
    longest_row = np.int64(0)
    longest_cell = np.int64(0)
    for r in range(rows):
        longest_row = max(longest_row, start[(r + 1) * cols] - start[r * cols])
    for cell in range(rows * cols):
        longest_cell = max(longest_cell, start[cell + 1] - start[cell])
    paths = np.zeros((2, 4, longest_row), np.int16)
    lowest = np.zeros((2, 4, cols), np.int16)
    window = np.empty(longest_cell + 2, np.int16)
    step = 1 - 2 * sweep
    for r_index in range(rows):
        r = r_index if sweep == 0 else rows - 1 - r_index
        here = r_index & 1
        for c_index in range(cols):
            c = c_index if sweep == 0 else cols - 1 - c_index
            cell = r * cols + c
            first, n = start[cell], start[cell + 1] - start[cell]
            out = first - start[r * cols]
            own, sums = cost[first : first + n], total[first : first + n]
            for direction in range(4):
                # 0: beside; 1, 2, 3: the row before, at c - step, c, c + step
                if direction == 0:
                    nr, nc, buffer = r, c - step, here
                else:
                    nr, nc, buffer = r - step, c + (direction - 2) * step, 1 - here
                path = paths[here, direction, out : out + n]
                neighbour, m = nr * cols + nc, np.int64(0)
                if nr >= 0 and nr < rows and nc >= 0 and nc < cols:
                    m = start[neighbour + 1] - start[neighbour]
                if m == 0:
                    lowest[here, direction, c] = _begin(own, path, sums)
                    continue
                source = start[neighbour] - start[nr * cols]
                before = paths[buffer, direction, source : source + m]
                _align(before, np.int64(low[cell]) - np.int64(low[neighbour]), window[: n + 2])
                floor = lowest[buffer, direction, nc]
                jump = np.int16(floor + p2_by_contrast[abs(np.int64(guide[cell]) - np.int64(guide[neighbour]))])
                lowest[here, direction, c] = _extend(
                    own, window[:n], window[1 : n + 1], window[2 : n + 2], jump, np.int16(p1), floor, path, sums
                )


@njit(cache=True, nogil=True)
def _begin(own, path, sums):  # type: ignore[no-untyped-def]
    """Start a path at a cell; returns its lowest value, as `_extend` does."""
    lowest = np.int16(_FAR)
    for d in range(len(own)):
        value = np.int16(own[d])
        path[d] = value
        sums[d] += np.uint16(value)
        lowest = min(lowest, value)
    return lowest


@njit(cache=True, nogil=True)
def _align(before, shift, window):  # type: ignore[no-untyped-def]
    """Fills `window`, which reaches one step beyond a cell's heights at either end, with the neighbour's values there.

    Height d of the cell is height d + `shift` of the neighbour.
    """
    n = len(window)
    begin = min(max(0, 1 - shift), n)
    end = max(begin, min(n, len(before) - shift + 1))
    window[:begin] = _FAR
    window[end:] = _FAR
    inside, values = window[begin:end], before[begin - 1 + shift : end - 1 + shift]
    for d in range(len(inside)):
        inside[d] = values[d]


@njit(cache=True, nogil=True)
def _extend(own, below, same, above, jump, p1, floor, path, sums):  # type: ignore[no-untyped-def]
    """Carry a path one cell further."""
    lowest = np.int16(_FAR)
    for d in range(len(own)):
        value = np.int16(min(min(same[d], jump), np.int16(min(below[d], above[d]) + p1)))
        value = np.int16(value - floor + np.int16(own[d]))
        path[d] = value
        sums[d] += np.uint16(value)
        lowest = min(lowest, value)
    return lowest


def winners(total: np.ndarray, start: np.ndarray, low: np.ndarray, p1: int) -> tuple[np.ndarray, np.ndarray]:
    """Per cell the height index of the least total, with its sub-step (float32, NaN for an empty range), and its
    margin: by how much the best height farther than two steps away is worse (0 where there is none).

    The sub-step is where two lines of one slope, down through either neighbour, meet. Every path adds `p1` to a step
    away from the cells before, wherever between two steps the surface is: with that left in, heights stick to steps.
    """
    cells = len(start) - 1
    index = np.full(cells, np.nan, np.float32)
    margin = np.zeros(cells, np.float32)
    side_by_side(lambda part: _winners(total, start, low, PATHS * p1, *part, index, margin), shares(cells))
    return index, margin


@njit(cache=True, nogil=True)
def _winners(total, start, low, brakes, first_cell, end_cell, index, margin):  # type: ignore[no-untyped-def]
    for cell in range(first_cell, end_cell):
        first, end = start[cell], start[cell + 1]
        if end == first:
            continue
        best = first + _first_least(total[first:end])
        second = min(_least(total[first : max(best - 2, first)]), _least(total[min(best + 3, end) : end]))
        offset = 0.0
        if best > first and best < end - 1:
            left = np.float64(np.int64(total[best - 1]) - np.int64(total[best]))
            right = np.float64(np.int64(total[best + 1]) - np.int64(total[best]))
            left, right = max(left - brakes, OWN_SHARE * left), max(right - brakes, OWN_SHARE * right)
            if left + right > 0:
                offset = (left - right) / (2 * max(left, right))
        index[cell] = low[cell] + (best - first) + offset
        if second < _NONE:
            margin[cell] = np.int64(second) - np.int64(total[best])


@njit(cache=True, nogil=True)
def _least(values):  # type: ignore[no-untyped-def]
    least = np.uint16(_NONE)
    for k in range(len(values)):
        least = min(least, values[k])
    return least


@njit(cache=True, nogil=True)
def _first_least(values):  # type: ignore[no-untyped-def]
    least = _least(values)
    for k in range(len(values)):
        if values[k] == least:
            return k
    return 0
