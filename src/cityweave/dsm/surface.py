"""From winning heights to a surface without gaps: components, filters, filling."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.cores import shares, side_by_side


def drop_small_components(surface_m: np.ndarray, jump_m: float, min_cells: int) -> np.ndarray:
    """A copy in which patches of under `min_cells` cells, cut off by jumps above `jump_m`, are NaN."""
    labels = _components(surface_m.astype(np.float32), np.float32(jump_m))
    sizes = np.bincount(labels.ravel(), minlength=labels.size + 1)
    return np.where(sizes[labels] >= min_cells, surface_m, np.nan).astype(np.float32)


def without_islands(mask: np.ndarray, min_cells: int) -> np.ndarray:
    """A copy without 4-connected patches of under `min_cells` cells: stray matches in strips that a view can't see."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: np.ndarray = sizes[labels] >= min_cells
    return kept


@njit(cache=True)
def _components(surface, jump):  # type: ignore[no-untyped-def]
    """4-connected labels where neighbours differ by at most `jump`; NaN cells are patches of one cell."""
    rows, cols = surface.shape
    parent = np.arange(rows * cols, dtype=np.int32)
    for r in range(rows):
        for c in range(cols):
            here = r * cols + c
            if c > 0 and abs(surface[r, c] - surface[r, c - 1]) <= jump:
                a, b = _root(parent, here), _root(parent, here - 1)
                parent[max(a, b)] = min(a, b)
            if r > 0 and abs(surface[r, c] - surface[r - 1, c]) <= jump:
                a, b = _root(parent, here), _root(parent, here - cols)
                parent[max(a, b)] = min(a, b)
    out = np.empty((rows, cols), np.int32)
    for r in range(rows):
        for c in range(cols):
            out[r, c] = _root(parent, r * cols + c)
    return out


@njit(cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _smooth(surface, radius, band, first, end, out):  # type: ignore[no-untyped-def]
    """Rows from `first` to before `end`: median, then mean of the cells within `band` of it, over a square window.

    NaN cells stay NaN and don't count.
    """
    rows, cols = surface.shape
    values = np.empty((2 * radius + 1) ** 2, np.float32)
    for r in range(first, end):
        for c in range(cols):
            if np.isnan(surface[r, c]):
                continue
            n = 0
            for y in range(max(0, r - radius), min(rows, r + radius + 1)):
                for x in range(max(0, c - radius), min(cols, c + radius + 1)):
                    value = surface[y, x]
                    if not np.isnan(value):
                        k = n
                        while k > 0 and values[k - 1] > value:
                            values[k] = values[k - 1]
                            k -= 1
                        values[k] = value
                        n += 1
            middle = values[n // 2]
            total, count = np.float32(0), 0
            for k in range(n):
                if abs(values[k] - middle) <= band:
                    total += values[k]
                    count += 1
            out[r, c] = total / count


def smooth(surface_m: np.ndarray, radius: int, band_m: float) -> np.ndarray:
    """Edge-preserving: jumps stay where the majority of the window has them, noise below `band_m` is averaged."""
    if radius == 0:
        return surface_m.astype(np.float32)
    surface = surface_m.astype(np.float32)
    out = np.full(surface.shape, np.nan, np.float32)
    side_by_side(lambda rows: _smooth(surface, radius, np.float32(band_m), *rows, out), shares(len(surface)))
    return out


def fill_holes(surface_m: np.ndarray, small_cells: int, step_m: float) -> np.ndarray:
    """A copy without NaN (unless nothing is known). Small holes take the median around them.

    Large holes continue their LOWER rim: what no two views see is ground beside a wall, not roof. Rim cells feed it
    that are at most `step_m` above the low rim (the 20th percentile).
    """
    hole = ~np.isfinite(surface_m)
    if not hole.any() or hole.all():
        return surface_m.astype(np.float32)
    labels, _ = ndimage.label(hole, np.ones((3, 3), bool))
    known = np.where(hole, np.nan, surface_m).astype(np.float32)
    feeds = np.zeros_like(hole)
    patch = np.full(known.shape, np.nan, np.float32)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        rows, cols = (slice(max(s.start - 2, 0), s.stop + 2) for s in window)
        inside = labels[rows, cols] == number
        rim = ndimage.binary_dilation(inside, np.ones((3, 3), bool), iterations=2) & ~hole[rows, cols]
        heights = known[rows, cols][rim]
        if heights.size == 0:
            continue
        if inside.sum() <= small_cells:
            patch[rows, cols][inside] = np.median(heights)
        else:
            feeds[rows, cols] |= rim & (known[rows, cols] <= np.percentile(heights, 20) + step_m)
    if not feeds.any():
        return np.where(hole, patch, surface_m).astype(np.float32)
    spread = spread_smoothly(known, feeds)
    return np.where(hole, np.where(np.isfinite(patch), patch, spread), surface_m).astype(np.float32)


def spread_smoothly(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pull-push: averages of known cells at ever coarser scale, handed down bilinearly to the cells that lack one."""
    weight = known.astype(np.float32)
    value = np.where(known, values, 0).astype(np.float32)
    if known.all() or min(values.shape) == 0 or value.shape == (1, 1):
        return value
    rows, cols = value.shape
    pad = [(0, rows % 2), (0, cols % 2)]
    w = np.pad(weight, pad).reshape((rows + 1) // 2, 2, (cols + 1) // 2, 2)
    v = np.pad(value * weight, pad).reshape(w.shape)
    total = w.sum(axis=(1, 3))
    mean = v.sum(axis=(1, 3)) / np.maximum(total, 1)
    coarse = spread_smoothly(mean, total > 0)
    fine = ndimage.zoom(np.pad(coarse, 1, mode="edge"), 2, order=1, grid_mode=True, mode="nearest")
    return np.where(known, value, fine[2 : 2 + rows, 2 : 2 + cols]).astype(np.float32)
