"""Semi-global matching over a cost volume whose cells each have their own range of heights.

The volume is stored as rows of a sparse matrix: cell i (row-major) holds heights `low[i] .. low[i] + n_i - 1` (absolute
indices) at `start[i] : start[i + 1]`. Integer arithmetic throughout: the result is the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cityweave.cores import in_use, shares, side_by_side
from cityweave.dsm.lanes import FAR, LANES, add_lanes, carry_lanes, take_lanes

PATHS = 8
OWN_SHARE = 0.15  # of what a step costs, the least that counts as the cell's own
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
    cost = np.append(cost, np.zeros(LANES, np.uint8))  # whole lanes are read and written
    totals = [np.zeros(len(cost), np.uint16) for _ in range(min(in_use(), 2))]

    def one_way(sweep: int) -> None:
        _four_paths(cost, start, low, rows, cols, p1, p2_by_contrast, guide, sweep, totals[sweep % len(totals)])

    side_by_side(one_way, (0, 1))
    for other in totals[1:]:
        totals[0] += other
    return totals[0][:-LANES]


@njit(cache=True, nogil=True)
def _four_paths(cost, start, low, rows, cols, p1, p2_by_contrast, guide, sweep, total):  # type: ignore[no-untyped-def]
    """Adds the paths that come from the left and from above (sweep 0), or from the right and from below (1).

    What a path has at a cell lies in a buffer of the row, whole lanes of it, and LANES times FAR lie between two
    cells: a neighbour whose heights begin a little higher or lower is read in place.
    """
    most, widest = np.int64(0), np.int64(0)
    for r in range(rows):
        width = np.int64(LANES)
        for cell in range(r * cols, (r + 1) * cols):
            wide = _whole_lanes(start[cell + 1] - start[cell])
            width, most = width + wide + LANES, max(most, wide)
        widest = max(widest, width)
    paths = np.full((2, 4, widest), FAR, np.int16)
    places = np.zeros((2, cols), np.int64)
    lowest = np.zeros((2, 4, cols), np.int16)
    own, sums, nothing = np.empty(most, np.int16), np.empty(most, np.int16), np.zeros(most + 2, np.int16)
    window = np.empty(most + 2, np.int16)
    step = 1 - 2 * sweep
    for r_index in range(rows):
        r = r_index if sweep == 0 else rows - 1 - r_index
        here = r_index & 1
        place = np.int64(LANES)
        for c_index in range(cols):  # in the order of the walk: both gaps round what is read have been written by then
            c = c_index if sweep == 0 else cols - 1 - c_index
            places[here, c] = place
            place += _whole_lanes(start[r * cols + c + 1] - start[r * cols + c]) + LANES
        for c_index in range(cols):
            c = c_index if sweep == 0 else cols - 1 - c_index
            cell, place = r * cols + c, places[here, c]
            first, n = start[cell], start[cell + 1] - start[cell]
            wide = _whole_lanes(n)
            for d in range(0, wide, LANES):
                take_lanes(cost, first + d, own, d, n - d)
                sums[d : d + LANES] = 0
            for direction in range(4):
                # 0: beside; 1, 2, 3: the row before, at c - step, c, c + step
                if direction == 0:
                    nr, nc, buffer = r, c - step, here
                else:
                    nr, nc, buffer = r - step, c + (direction - 2) * step, 1 - here
                path = paths[here, direction]
                before, at, floor, jump, brake = nothing, np.int64(1), np.int16(0), np.int16(0), np.int16(0)
                neighbour, m = nr * cols + nc, np.int64(0)
                if nr >= 0 and nr < rows and nc >= 0 and nc < cols:
                    m = start[neighbour + 1] - start[neighbour]
                if m > 0:
                    shift = np.int64(low[cell]) - np.int64(low[neighbour])
                    before, at = paths[buffer, direction], places[buffer, nc] + shift
                    if shift <= -LANES or shift + wide >= _whole_lanes(m) + LANES:
                        _align(before[at - shift : at - shift + m], shift, window[: wide + 2])
                        before, at = window, np.int64(1)
                    floor, brake = lowest[buffer, direction, nc], np.int16(p1)
                    contrast = abs(np.int64(guide[cell]) - np.int64(guide[neighbour]))
                    jump = np.int16(floor + p2_by_contrast[contrast])
                if n == 0:
                    path[place : place + LANES] = FAR
                least = np.int16(FAR)
                for d in range(0, wide, LANES):
                    least = min(least, carry_lanes(before, at + d, own, path, place + d, sums, d, jump, brake, floor))
                lowest[here, direction, c] = least
            for d in range(0, wide, LANES):
                add_lanes(total, first + d, sums, d, n - d)


@njit(cache=True, nogil=True)
def _whole_lanes(n):  # type: ignore[no-untyped-def]
    return (n + LANES - 1) // LANES * LANES


@njit(cache=True, nogil=True)
def _align(before, shift, window):  # type: ignore[no-untyped-def]
    """Fills `window`, which reaches one step beyond a cell's heights at either end, with the neighbour's values there.

    Height d of the cell is height d + `shift` of the neighbour.
    """
    n = len(window)
    begin = min(max(0, 1 - shift), n)
    end = max(begin, min(n, len(before) - shift + 1))
    window[:begin] = FAR
    window[end:] = FAR
    window[begin:end] = before[begin - 1 + shift : end - 1 + shift]


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
