"""From winning heights to a surface: components, medians, smoothing."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.cores import shares, side_by_side

STRIP = 256  # cells worked on at once; what is held of them stays in the nearest cache


def drop_small_components(surface_m: np.ndarray, jump_m: float, min_cells: int) -> np.ndarray:
    """A copy in which patches of under `min_cells` cells, cut off by jumps above `jump_m`, are NaN."""
    labels = patches_between_jumps(surface_m, jump_m)
    sizes = np.bincount(labels.ravel(), minlength=labels.size + 1)
    return np.where(sizes[labels] >= min_cells, surface_m, np.nan).astype(np.float32)


def patches_between_jumps(surface_m: np.ndarray, jump_m: float) -> np.ndarray:
    """(rows, cols) int32 numbers, not dense, of the patches that jumps above `jump_m` cut off; NaN is a patch alone."""
    return _components(surface_m.astype(np.float32), np.float32(jump_m))  # type: ignore[no-any-return]


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

    NaN cells stay NaN and don't count. The window's values are kept in order while it moves along a row.
    """
    rows, cols = surface.shape
    values = np.empty((2 * radius + 1) ** 2, surface.dtype)
    for r in range(first, end):
        window = surface[max(0, r - radius) : min(rows, r + radius + 1)]
        n = 0
        for c in range(min(radius, cols)):
            n = _put(values, n, window[:, c])
        for c in range(cols):
            if c + radius < cols:
                n = _put(values, n, window[:, c + radius])
            if c > radius:
                n = _take(values, n, window[:, c - radius - 1])
            if np.isnan(surface[r, c]):
                continue
            middle = values[n // 2]
            total, count = np.float32(0), 0
            for value in values[:n]:
                if abs(value - middle) <= band:
                    total += value
                    count += 1
            out[r, c] = total / count


@njit(cache=True, nogil=True)
def _put(values, n, more):  # type: ignore[no-untyped-def]
    """Add to the first `n` values, which are in order; returns how many there are then."""
    for value in more:
        if not np.isnan(value):
            k = n
            while k > 0 and values[k - 1] > value:
                values[k] = values[k - 1]
                k -= 1
            values[k] = value
            n += 1
    return n


@njit(cache=True, nogil=True)
def _take(values, n, gone):  # type: ignore[no-untyped-def]
    for value in gone:
        if not np.isnan(value):
            k = 0
            while values[k] != value:
                k += 1
            n -= 1
            while k < n:
                values[k] = values[k + 1]
                k += 1
    return n


def median_around(layer: np.ndarray, size: int) -> np.ndarray:
    """Median of every cell's square neighbourhood; beyond the border the layer goes on as it ends. No NaN."""
    out = np.empty_like(layer)
    padded = np.pad(layer, size // 2, mode="edge")
    side_by_side(lambda rows: _medians(padded, size, *rows, out), shares(len(layer)))
    return out


@njit(cache=True, nogil=True)
def _medians(padded, size, first, end, out):  # type: ignore[no-untyped-def]
    """Whole strips of cells at once: of half the values and two the least and the largest can't be the median, so they
    give way to the next one, until three are left."""
    values, cols = size * size, out.shape[1]
    held = np.empty((values // 2 + 2, STRIP), padded.dtype)
    for r in range(first, end):
        for left in range(0, cols, STRIP):
            width = min(STRIP, cols - left)
            count = len(held)
            for k in range(values):
                slot = min(k, len(held) - 1)
                if k >= len(held):
                    for other in range(1, count):
                        _order(held[0, :width], held[other, :width])
                    for other in range(1, count - 1):
                        _order(held[other, :width], held[count - 1, :width])
                    slot, count = 0, count - 1
                shift = left + k % size
                held[slot, :width] = padded[r + k // size, shift : shift + width]
            for other in range(1, count):
                _order(held[0, :width], held[other, :width])
            _order(held[1, :width], held[2, :width])
            out[r, left : left + width] = held[1, :width]


@njit(cache=True, nogil=True)
def _order(low, high):  # type: ignore[no-untyped-def]
    for c in range(len(low)):
        a, b = low[c], high[c]
        low[c] = a if a < b else b
        high[c] = b if a < b else a


def smooth(surface_m: np.ndarray, radius: int, band_m: float) -> np.ndarray:
    """Edge-preserving: jumps stay where the majority of the window has them, noise below `band_m` is averaged."""
    if radius == 0:
        return surface_m.astype(np.float32)
    surface = surface_m.astype(np.float32)
    out = np.full(surface.shape, np.nan, np.float32)
    side_by_side(lambda rows: _smooth(surface, radius, np.float32(band_m), *rows, out), shares(len(surface)))
    return out
