"""The ground under a surface: progressive morphological filter on coarse cells, then a smooth join."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cityweave.dsm.holes import spread_smoothly

COARSE_M = 2.0


def ground_heights(dsm_m: np.ndarray, gsd_m: float, window_m: float, slope: float, step_m: float) -> np.ndarray:
    """DTM of the DSM's shape, float32, nowhere above the DSM; NaN only if all of the DSM is.

    Openings with ever larger windows take off what stands: a cell that an opening lowers by more than the ground may
    rise within that window (`slope`, plus `step_m`) is no ground. `window_m` must exceed the widest building.
    """
    if not np.isfinite(dsm_m).any():
        return np.full(dsm_m.shape, np.nan, np.float32)
    k = max(1, round(COARSE_M / gsd_m))
    lowest = _low_of_blocks(dsm_m, k)
    known = np.isfinite(lowest)
    low = spread_smoothly(np.where(known, lowest, 0), known)
    low = _without_pits(low, step_m)
    bare = _is_ground(low, k * gsd_m, window_m, slope, step_m)
    ground = spread_smoothly(low, bare)
    # The ground between its known cells runs smoothly; only there, so that terraces keep their edge.
    soft = ndimage.gaussian_filter(ground, 2.0, mode="nearest")
    ground = np.where(bare, ground, soft).astype(np.float32)
    fine = ndimage.zoom(np.pad(ground, 1, mode="edge"), k, order=1, grid_mode=True, mode="nearest")
    fine = fine[k : k + dsm_m.shape[0], k : k + dsm_m.shape[1]]
    return np.fmin(fine, dsm_m).astype(np.float32)


def _low_of_blocks(dsm: np.ndarray, k: int) -> np.ndarray:
    rows, cols = -(-dsm.shape[0] // k), -(-dsm.shape[1] // k)
    padded = np.full((rows * k, cols * k), np.inf, np.float32)
    padded[: dsm.shape[0], : dsm.shape[1]] = np.where(np.isfinite(dsm), dsm, np.inf)
    # The second lowest of the block's quarter: one mismatch downwards shall not dig a hole.
    blocks = np.sort(padded.reshape(rows, k, cols, k).swapaxes(1, 2).reshape(rows, cols, k * k), axis=2)
    low = blocks[:, :, (k * k) // 4]
    low = np.where(np.isfinite(low), low, blocks[:, :, 0])
    return np.where(np.isfinite(low), low, np.nan)


def _without_pits(low: np.ndarray, step_m: float) -> np.ndarray:
    """Cells far below everything around them are mismatches; raise them to their neighbours' median."""
    middle = ndimage.median_filter(low, 5, mode="nearest")
    return np.where(low < middle - 3 * step_m, middle, low)


def _is_ground(low: np.ndarray, cell_m: float, window_m: float, slope: float, step_m: float) -> np.ndarray:
    bare = np.ones(low.shape, bool)
    surface, radius, before = low, 1, 0
    while before * 2 * cell_m < window_m:
        side = 2 * radius + 1
        # What lies outside the raster has no say: a block cut by the border must not go on for ever.
        opened = ndimage.minimum_filter(surface, side, mode="constant", cval=np.inf)
        opened = ndimage.maximum_filter(opened, side, mode="constant", cval=-np.inf)
        bare &= surface - opened <= step_m + slope * (radius - before) * cell_m
        surface = opened
        before, radius = radius, radius * 2 if radius < 4 else radius + 4
    return bare
