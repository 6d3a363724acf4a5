"""Heights where none were measured, from what lies around."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import ndimage


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
    boxes = [(rows.start, rows.stop, cols.start, cols.stop) for rows, cols in ndimage.find_objects(labels)]
    _rims(labels, known, np.array(boxes), small_cells, np.float32(step_m), feeds, patch)
    if not feeds.any():
        return np.where(hole, patch, surface_m).astype(np.float32)
    spread = spread_smoothly(known, feeds)
    return np.where(hole, np.where(np.isfinite(patch), patch, spread), surface_m).astype(np.float32)


@njit(cache=True, nogil=True)
def _rims(labels, known, boxes, small_cells, step, feeds, patch):  # type: ignore[no-untyped-def]
    """Fills `patch` in small holes with the median of what lies within two cells, and marks in `feeds` the low part of
    the same rim of large ones."""
    rows, cols = labels.shape
    at = np.empty(labels.size, np.int64)
    heights = np.empty(labels.size, np.float32)
    for index in range(len(boxes)):
        number = index + 1
        top, bottom, left, right = boxes[index]
        inside, n = 0, 0
        for r in range(max(top - 2, 0), min(bottom + 2, rows)):
            for c in range(max(left - 2, 0), min(right + 2, cols)):
                if labels[r, c] == number:
                    inside += 1
                elif labels[r, c] == 0 and _beside(labels, number, r, c):
                    at[n], heights[n] = r * cols + c, known[r, c]
                    n += 1
        if n == 0:
            continue
        if inside <= small_cells:
            middle = _quantile(np.sort(heights[:n]), 0.5)
            for r in range(top, bottom):
                for c in range(left, right):
                    if labels[r, c] == number:
                        patch[r, c] = middle
        else:
            limit = _quantile(np.sort(heights[:n]), 0.2) + step
            for k in range(n):
                if heights[k] <= limit:
                    feeds[at[k] // cols, at[k] % cols] = True


@njit(cache=True, nogil=True)
def _quantile(in_order, share):  # type: ignore[no-untyped-def]
    place = share * (len(in_order) - 1)
    k = np.int64(place)
    above = in_order[min(k + 1, len(in_order) - 1)]
    return in_order[k] + np.float32(place - k) * (above - in_order[k])


@njit(cache=True, nogil=True)
def _beside(labels, number, r, c):  # type: ignore[no-untyped-def]
    for y in range(max(r - 2, 0), min(r + 3, labels.shape[0])):
        for x in range(max(c - 2, 0), min(c + 3, labels.shape[1])):
            if labels[y, x] == number:
                return True
    return False


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
