"""The cost volume in object space: every (cell, height) is looked up in every view that may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from cityweave.cores import shares, side_by_side
from cityweave.dsm.views import CENSUS_BITS, CensusStack
from cityweave.grid import CellGrid

COST_PER_BIT = 4  # costs are uint8: the mean number of unlike bits, times this
BATCH = 256  # entries whose words are compared at once; all of it stays in the nearest cache
NO_PAIR = 255


@intrinsic
def _popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """Set bits of a uint64, one machine instruction."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


popcount: Any = _popcount  # for use in compiled functions only


@njit(cache=True)
def popcount_of(word):  # type: ignore[no-untyped-def]
    return popcount(word)


@dataclass(frozen=True)
class HeightRanges:
    """Which heights every cell of a grid tries: `low[i] + k`, k < start[i+1] - start[i], times `step_m`."""

    grid: CellGrid  # tile-local metres
    step_m: float
    low: np.ndarray  # int32 (cells,)
    start: np.ndarray  # int64 (cells + 1,)

    @staticmethod
    def between(grid: CellGrid, step_m: float, bottom_m: np.ndarray, top_m: np.ndarray) -> HeightRanges:
        """All multiples of the step from at or below `bottom_m` to at or above `top_m`; none where they are NaN."""
        known = np.isfinite(bottom_m) & np.isfinite(top_m)
        low = np.floor(np.where(known, bottom_m, 0) / step_m).astype(np.int32).ravel()
        high = np.ceil(np.where(known, top_m, 0) / step_m).astype(np.int32).ravel()
        count = np.where(known.ravel(), np.maximum(high - low + 1, 1), 0)
        start = np.zeros(grid.rows * grid.cols + 1, np.int64)
        np.cumsum(count, out=start[1:])
        return HeightRanges(grid, step_m, low, start)


def sweep_costs(
    stack: CensusStack,
    ranges: HeightRanges,
    share: float,
    horizon_m: np.ndarray | None = None,
    unseen_bits: np.ndarray | None = None,
) -> np.ndarray:
    """uint8 cost of every (cell, height) of `ranges`.

    Among the views that may see the point, the best `share` of all pairs counts: occluded views and moving things spoil
    some pairs, never all. With `horizon_m` (views, cells), a view takes part only above its horizon. A height that
    fewer than two views see costs `unseen_bits` (cells,), by default what unrelated pixels differ by.
    """
    grid = ranges.grid
    if unseen_bits is None:
        unseen_bits = np.full(len(ranges.low), CENSUS_BITS / 2)
    unseen = np.round(unseen_bits * COST_PER_BIT).astype(np.uint8)
    if horizon_m is None:
        horizon_m = np.empty((0, 0), np.float32)
    out = np.empty(ranges.start[-1], np.uint8)

    def fill(cells: tuple[int, int]) -> None:
        _costs(
            stack.words, stack.offsets, stack.widths, stack.heights, stack.coefficients, stack.centres, stack.scales,
            grid.x_centres, grid.y_centres, ranges.low, ranges.start, ranges.step_m, share, horizon_m,
            unseen, *cells, out,
        )  # fmt: skip

    side_by_side(fill, shares(len(ranges.low)))
    return out


@njit(cache=True, nogil=True)
def _along_height(coefficients, centres, scales, x, y, z, step, u, v):  # type: ignore[no-untyped-def]
    """Per view u and v at height z, their first and their second difference along the steps (forward differences)."""
    for i in range(len(coefficients)):
        a = (x - centres[i, 0]) / scales[i, 0]
        b = (y - centres[i, 1]) / scales[i, 1]
        c = (z - centres[i, 2]) / scales[i, 2]
        d = step / scales[i, 2]
        for axis in range(2):
            p = coefficients[i, axis]
            constant = p[0] + p[1] * a + p[2] * b + p[4] * a * b + p[7] * a * a + p[8] * b * b
            linear = p[3] + p[5] * a + p[6] * b
            square = p[9]
            out = u if axis == 0 else v
            out[i, 0] = constant + (linear + square * c) * c
            out[i, 1] = (linear + square * (2 * c + d)) * d
            out[i, 2] = 2 * square * d * d


@njit(cache=True, nogil=True)
def _costs(  # type: ignore[no-untyped-def]
    words, offsets, widths, heights, coefficients, centres, scales, xs, ys, low, start, step, share, horizon,
    unseen, first, end, out,
):  # fmt: skip
    """Costs of the cells from `first` to before `end`.

    Words are collected for a batch of (cell, height) entries; what is done with them then runs in wide registers.
    """
    views, cols = len(offsets), len(xs)
    u, v = np.empty((views, 3)), np.empty((views, 3))
    seen = np.empty((views, BATCH), np.uint64)
    kept = np.zeros(views + 1, np.int64)  # how many pairs count, by the number of views
    for count in range(2, views + 1):
        kept[count] = np.int64(np.ceil(count * (count - 1) // 2 * share))
    best = np.empty((max(1, kept[views]), BATCH), np.uint8)
    else_cost = np.empty(BATCH, np.uint8)
    filled, done = 0, start[first]
    for cell in range(first, end):
        entry = start[cell]
        z = low[cell] * step
        # Once a cell, whatever batches it falls into: places are added up, and what they round to depends on the start.
        _along_height(coefficients, centres, scales, xs[cell % cols], ys[cell // cols], z, step, u, v)
        while entry < start[cell + 1]:
            if filled == BATCH:
                _batch_costs(seen, filled, best, kept, else_cost, out[done : done + filled])
                done += filled
                filled = 0
            n = min(start[cell + 1] - entry, BATCH - filled)
            else_cost[filled : filled + n] = unseen[cell]
            for i in range(views):
                above = np.float32(-np.inf) if len(horizon) == 0 else horizon[i, cell]
                _gather(
                    words, offsets[i], widths[i], heights[i], u[i], v[i], z, step, above, seen[i, filled : filled + n]
                )
            z += n * step
            filled += n
            entry += n
    _batch_costs(seen, filled, best, kept, else_cost, out[done : done + filled])


@njit(cache=True, nogil=True)
def _gather(words, offset, width, height, u, v, z, step, above, out):  # type: ignore[no-untyped-def]
    """The words that one view has for a cell at rising heights; `u` and `v` are left at the next height."""
    u0, u1, u2 = u[0], u[1], u[2]
    v0, v1, v2 = v[0], v[1], v[2]
    for k in range(len(out)):
        word = np.uint64(1 << 63)
        if z >= above and u0 >= 0 and v0 >= 0 and u0 < width and v0 < height:
            word = words[offset + np.int64(v0) * width + np.int64(u0)]
        out[k] = word
        u0 += u1
        u1 += u2
        v0 += v1
        v1 += v2
        z += step
    u[0], u[1] = u0, u1
    v[0], v[1] = v0, v1


@njit(cache=True, nogil=True)
def _batch_costs(seen, n, best, kept, else_cost, out):  # type: ignore[no-untyped-def]
    """Mean unlike bits of the best pairs of every entry: each pair is pushed through a sorted list of the best."""
    if len(seen) == 2:  # the only pair, whatever share of all counts
        one, other = seen[0], seen[1]
        for e in range(n):
            out[e] = np.uint8(popcount(one[e] ^ other[e])) * np.uint8(COST_PER_BIT)
        for e in range(n):
            if (one[e] | other[e]) >> np.uint64(63):
                out[e] = else_cost[e]
        return
    best[:] = NO_PAIR
    pair = np.empty(BATCH, np.uint8)
    count = np.zeros(BATCH, np.uint8)
    total = np.zeros(BATCH, np.int32)
    for i in range(len(seen)):
        for e in range(n):
            count[e] += np.uint8(1) - np.uint8(seen[i, e] >> np.uint64(63))
        for j in range(i):
            for e in range(n):
                unusable = np.uint8((seen[i, e] | seen[j, e]) >> np.uint64(63))
                pair[e] = np.uint8(popcount(seen[i, e] ^ seen[j, e])) | np.uint8(unusable * np.uint8(NO_PAIR))
            for k in range(len(best)):
                for e in range(n):
                    a, b = best[k, e], pair[e]
                    best[k, e] = a if a < b else b
                    pair[e] = b if a < b else a
    for k in range(len(best)):
        for e in range(n):
            if k < kept[count[e]]:
                total[e] += best[k, e]
    for e in range(n):
        keep = kept[count[e]]
        out[e] = else_cost[e] if keep == 0 else (total[e] * COST_PER_BIT + keep // 2) // keep
