"""The cost volume in object space: every (cell, height) is looked up in every view that may see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from cityweave.dsm.views import CENSUS_BITS, CensusStack
from cityweave.grid import CellGrid

COST_PER_BIT = 4  # costs are uint8: the mean number of unlike bits, times this
NEUTRAL_COST = CENSUS_BITS * COST_PER_BIT // 2  # what unrelated pixels cost


@intrinsic
def popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """Set bits of a uint64, one machine instruction."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


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
    stack: CensusStack, ranges: HeightRanges, share: float, horizon_m: np.ndarray | None = None
) -> np.ndarray:
    """uint8 cost of every (cell, height) of `ranges`.

    Among the views that may see the point, the best `share` of all pairs counts: occluded views and moving things spoil
    some pairs, never all. With `horizon_m` (views, cells), a view takes part only above its horizon.
    """
    grid = ranges.grid
    if horizon_m is None:
        horizon_m = np.empty((0, 0), np.float32)
    return _costs(
        stack.words, stack.offsets, stack.widths, stack.heights, stack.coefficients, stack.centres, stack.scales,
        grid.x_centres, grid.y_centres, ranges.low, ranges.start, ranges.step_m, share, horizon_m,
    )  # fmt: skip


@njit(cache=True)
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


@njit(cache=True)
def _costs(words, offsets, widths, heights, coefficients, centres, scales, xs, ys, low, start, step, share, horizon):  # type: ignore[no-untyped-def]
    views = len(offsets)
    cols = len(xs)
    out = np.empty(start[-1], np.uint8)
    u = np.empty((views, 3))
    v = np.empty((views, 3))
    seen = np.empty(views, np.uint64)
    tally = np.zeros(64, np.int16)
    aware = len(horizon) > 0
    for cell in range(len(low)):
        first, end = start[cell], start[cell + 1]
        if first == end:
            continue
        z = low[cell] * step
        _along_height(coefficients, centres, scales, xs[cell % cols], ys[cell // cols], z, step, u, v)
        for entry in range(first, end):
            count = 0
            for i in range(views):
                ui, vi = u[i, 0], v[i, 0]
                u[i, 0] = ui + u[i, 1]
                u[i, 1] += u[i, 2]
                v[i, 0] = vi + v[i, 1]
                v[i, 1] += v[i, 2]
                if aware and z < horizon[i, cell]:
                    continue
                if ui >= 0 and vi >= 0 and ui < widths[i] and vi < heights[i]:
                    word = words[offsets[i] + np.int64(vi) * widths[i] + np.int64(ui)]
                    if word >> np.uint64(63) == 0:
                        seen[count] = word
                        count += 1
            out[entry] = _pair_cost(seen, count, tally, share)
            z += step
    return out


@njit(cache=True)
def _pair_cost(seen, count, tally, share):  # type: ignore[no-untyped-def]
    """Mean unlike bits of the best `share` of all pairs; a tally by bits replaces sorting."""
    if count < 2:
        return np.uint8(NEUTRAL_COST)
    tally[:] = 0
    for i in range(1, count):
        for j in range(i):
            tally[popcount(seen[i] ^ seen[j])] += np.int16(1)
    pairs = count * (count - 1) // 2
    keep = max(1, np.int64(np.ceil(pairs * share)))
    left, total, bits = keep, 0, 0
    while left > 0:
        taken = min(left, np.int64(tally[bits]))
        total += taken * bits
        left -= taken
        bits += 1
    return np.uint8((total * COST_PER_BIT + keep // 2) // keep)
