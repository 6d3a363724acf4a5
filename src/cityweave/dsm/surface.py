"""From winning heights to a surface: components, medians, smoothing."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.cores import shares, side_by_side
from cityweave.patches import patches_between_jumps

STRIP = 256  # cells worked on at once; what is held of them stays in the nearest cache


def drop_small_components(surface_m: np.ndarray, jump_m: float, min_cells: int) -> np.ndarray:
    """A copy in which patches of under `min_cells` cells, cut off by jumps above `jump_m`, are NaN."""
    labels = patches_between_jumps(surface_m, jump_m)
    sizes = np.bincount(labels.ravel(), minlength=labels.size + 1)
    return np.where(sizes[labels] >= min_cells, surface_m, np.nan).astype(np.float32)


def without_islands(mask: np.ndarray, min_cells: int) -> np.ndarray:
    """A copy without 4-connected patches of under `min_cells` cells: stray matches in strips that a view can't see."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: np.ndarray = sizes[labels] >= min_cells
    return kept


def median_around(layer: np.ndarray, size: int) -> np.ndarray:
    """Median of every cell's square neighbourhood; beyond the border the layer goes on as it ends. No NaN."""
    out = np.empty_like(layer)
    padded = np.pad(layer, size // 2, mode="edge")
    side_by_side(lambda rows: _medians(padded, size, *rows, out), shares(len(layer)))
    return out


@njit(cache=True, nogil=True)
def _medians(padded, size, first, end, out):  # type: ignore[no-untyped-def]
    held = np.empty((size * size // 2 + 2, STRIP), padded.dtype)
    for r in range(first, end):
        for left in range(0, out.shape[1], STRIP):
            width = min(STRIP, out.shape[1] - left)
            _strip_medians(padded[r : r + size, left : left + width + size - 1], held, out[r, left : left + width])


@njit(cache=True, nogil=True)
def _strip_medians(rows, held, out):  # type: ignore[no-untyped-def]
    """Of whole windows, a strip of cells at once: of half the values and two the least and the largest can't be the
    median, so they give way to the next one, until three are left."""
    size, width, count = len(rows), len(out), len(held)
    for k in range(size * size):
        slot = min(k, len(held) - 1)
        if k >= len(held):
            for other in range(1, count):
                _order(held[0, :width], held[other, :width])
            for other in range(1, count - 1):
                _order(held[other, :width], held[count - 1, :width])
            slot, count = 0, count - 1
        held[slot, :width] = rows[k // size, k % size : k % size + width]
    for other in range(1, count):
        _order(held[0, :width], held[other, :width])
    _order(held[1, :width], held[2, :width])
    out[:] = held[1, :width]


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
    out = np.empty(surface_m.shape, np.float32)
    padded = np.pad(surface_m.astype(np.float32), radius, constant_values=np.nan)
    side_by_side(lambda rows: _smooth(padded, 2 * radius + 1, np.float32(band_m), *rows, out), shares(len(out)))
    return out


@njit(cache=True, nogil=True)
def _smooth(padded, size, band, first, end, out):  # type: ignore[no-untyped-def]
    """Rows from `first` to before `end`: median, then mean of the cells within `band` of it, over a square window.

    NaN cells stay NaN and don't count.
    """
    held = np.empty((size * size // 2 + 2, STRIP), np.float32)
    middle, total, count = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    for r in range(first, end):
        for left in range(0, out.shape[1], STRIP):
            width = min(STRIP, out.shape[1] - left)
            rows = padded[r : r + size, left : left + width + size - 1]
            _strip_medians(rows, held, middle[:width])
            total[:] = 0
            for k in range(size * size):
                _add(rows[k // size, k % size : k % size + width], total[:width])
            for c in range(width):
                if np.isnan(rows[size // 2, c + size // 2]):
                    middle[c] = np.nan
                elif np.isnan(total[c]):  # the window isn't whole
                    middle[c] = _median_of_known(rows[:, c : c + size])
            total[:], count[:] = 0, 0
            for k in range(size * size):
                window = rows[k // size, k % size : k % size + width]
                _add_near(window, middle[:width], band, total[:width], count[:width])
            for c in range(width):
                out[r, left + c] = total[c] / count[c] if count[c] > 0 else np.nan


@njit(cache=True, nogil=True)
def _add(values, total):  # type: ignore[no-untyped-def]
    for c in range(len(total)):
        total[c] += values[c]


@njit(cache=True, nogil=True)
def _add_near(values, middle, band, total, count):  # type: ignore[no-untyped-def]
    for c in range(len(total)):
        near = abs(values[c] - middle[c]) <= band
        total[c] += values[c] if near else np.float32(0)
        count[c] += np.float32(1) if near else np.float32(0)


@njit(cache=True, nogil=True)
def _median_of_known(window):  # type: ignore[no-untyped-def]
    values, n = np.empty(window.size, window.dtype), 0
    for value in window.flat:
        if not np.isnan(value):
            values[n] = value
            n += 1
    for value in values[:n]:
        below, upto = np.int32(0), np.int32(0)
        for other in values[:n]:
            below += np.int32(other < value)
            upto += np.int32(other <= value)
        if below <= n // 2 < upto:
            return value
    return np.float32(np.nan)
