"""Who sees what: horizons of the current surface, and how far the views that see a point agree about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.cores import shares, side_by_side
from cityweave.dsm.sweep import _along_height, popcount
from cityweave.dsm.views import CENSUS_BITS, CensusStack
from cityweave.grid import CellGrid

BLOCK = 8


def horizons(surface_m: np.ndarray, bottom_m: np.ndarray, gsd_m: float, leans: np.ndarray) -> np.ndarray:
    """(views, cells) float32: above which height a cell is seen by each view, past the surface around it.

    `leans` (views, 2): metres east and north that a view's ray moves per metre up. Heights are exact down to
    `bottom_m`, below which nobody asks. NaN in the surface hides nothing.
    """
    surface = np.where(np.isfinite(surface_m), surface_m, -np.inf).astype(np.float32)
    rows, cols = surface.shape
    tall = np.pad(surface, [(0, -rows % BLOCK), (0, -cols % BLOCK)], constant_values=-np.inf)
    tall = tall.reshape(tall.shape[0] // BLOCK, BLOCK, -1, BLOCK).max(axis=(1, 3))
    tall = ndimage.maximum_filter(tall, 3, mode="constant", cval=-np.inf)
    bottom = np.where(np.isfinite(bottom_m), bottom_m, np.inf).astype(np.float32)
    of_views = side_by_side(lambda lean: _horizon(surface, tall, bottom, gsd_m, lean[0], lean[1]), list(leans))
    return np.stack(of_views).reshape(len(leans), -1)


@njit(cache=True, nogil=True)
def _horizon(surface, tall, bottom, gsd, east, north):  # type: ignore[no-untyped-def]
    rows, cols = surface.shape
    out = bottom.copy()
    longest = max(abs(east), abs(north))
    if longest < 1e-6:
        return out
    rise = np.float32(gsd / longest)  # metres up for one cell along the longer axis
    dc, dr = np.float32(east / longest), np.float32(-north / longest)
    top = surface.max()
    for r in range(rows):
        for c in range(cols):
            best = out[r, c]
            step = 1
            while True:
                y, x = np.float32(r + 0.5) + dr * step, np.float32(c + 0.5) + dc * step
                if y < 0 or x < 0 or y >= rows or x >= cols or top - rise * step <= best:
                    break
                if tall[np.int64(y) // BLOCK, np.int64(x) // BLOCK] - rise * step <= best:
                    step += BLOCK
                    continue
                for _ in range(BLOCK):
                    y, x = np.float32(r + 0.5) + dr * step, np.float32(c + 0.5) + dc * step
                    if y < 0 or x < 0 or y >= rows or x >= cols:
                        break
                    best = max(best, surface[np.int64(y), np.int64(x)] - rise * step)
                    step += 1
            out[r, c] = best
    return out


@dataclass(frozen=True)
class Agreement:
    """Per cell at a surface."""

    shown: np.ndarray  # uint8, views in whose picture it lies, hidden or not
    seen: np.ndarray  # uint8, views that see it
    agree: np.ndarray  # uint8, views that agree about it
    unlike_bits: np.ndarray  # float32, mean over the pairs that see it, or what unrelated pixels differ by


def agreement(
    stack: CensusStack, grid: CellGrid, surface_m: np.ndarray, horizon_m: np.ndarray, agree_bits: float
) -> Agreement:
    """The view that most others match is the reference; whoever differs from it by at most `agree_bits` agrees."""
    surface = surface_m.astype(np.float32).ravel()
    shown, seen, agree = (np.zeros(surface.size, np.uint8) for _ in range(3))
    unlike = np.full(surface.size, CENSUS_BITS / 2, np.float32)

    def count(cells: tuple[int, int]) -> None:
        _agreement(
            stack.words, stack.offsets, stack.widths, stack.heights, stack.coefficients, stack.centres, stack.scales,
            grid.x_centres, grid.y_centres, surface, horizon_m, agree_bits, *cells,
            shown, seen, agree, unlike,
        )  # fmt: skip

    side_by_side(count, shares(surface.size))
    return Agreement(*(layer.reshape(grid.shape) for layer in (shown, seen, agree, unlike)))


@njit(cache=True, nogil=True)
def _agreement(  # type: ignore[no-untyped-def]
    words, offsets, widths, heights, coefficients, centres, scales, xs, ys, surface, horizon, agree_bits, first, end,
    shown, seen, agree, unlike,
):  # fmt: skip
    views = len(offsets)
    cols = len(xs)
    u = np.empty((views, 3))
    v = np.empty((views, 3))
    word = np.empty(views, np.uint64)
    for cell in range(first, end):
        z = np.float64(surface[cell])
        if not np.isfinite(z):
            continue
        _along_height(coefficients, centres, scales, xs[cell % cols], ys[cell // cols], z, 1.0, u, v)
        count = 0
        for i in range(views):
            if u[i, 0] >= 0 and v[i, 0] >= 0 and u[i, 0] < widths[i] and v[i, 0] < heights[i]:
                w = words[offsets[i] + np.int64(v[i, 0]) * widths[i] + np.int64(u[i, 0])]
                if w >> np.uint64(63) == 0:
                    shown[cell] += 1
                    if z >= horizon[i, cell]:
                        word[count] = w
                        count += 1
        seen[cell] = count
        most, total = 0, np.int64(0)
        for i in range(count):
            inside = 0
            for j in range(count):
                if j != i:
                    bits = popcount(word[i] ^ word[j])
                    total += np.int64(bits)
                    if bits <= agree_bits:
                        inside += 1
            most = max(most, inside)
        if count > 1:
            unlike[cell] = np.float32(total) / np.float32(count * (count - 1))
        if most > 0:
            agree[cell] = most + 1
