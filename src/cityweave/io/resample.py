"""Rasters from one grid of cells to another, and bands to a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from cityweave.errors import DataError
from cityweave.grid import CellGrid

_MIRRORED_TIMES = 6  # doubles what is known each time, where that is a rectangle


def picture_of(bands: np.ndarray, where: str) -> np.ndarray:
    """Three bands of whatever came: the first three, or one three times."""
    if bands.shape[0] == 1:
        return np.repeat(bands, 3, axis=0)
    if bands.shape[0] < 3:
        raise DataError(f"{where} has {bands.shape[0]} bands; accepted: 1 (grey), or 3 and more (red, green, blue)")
    return bands[:3]


def area_mean(values: np.ndarray, own: CellGrid, grid: CellGrid) -> np.ndarray:
    """[band, y, x] on `own` to `grid`, weighted by the ground that cells share; beyond `own` counts as zero."""
    rows = _overlap(own.row0, own.rows, own.gsd_m, grid.row0, grid.rows, grid.gsd_m)[::-1, ::-1]
    cols = _overlap(own.col0, own.cols, own.gsd_m, grid.col0, grid.cols, grid.gsd_m)
    return np.stack([rows @ band @ cols.T for band in values])


def known_mean(values: np.ndarray, known: np.ndarray, own: CellGrid, grid: CellGrid) -> tuple[np.ndarray, np.ndarray]:
    """[band, y, x] to the mean of what is known in each cell of `grid`, and the share of the cell [y, x] that is."""
    share = area_mean(known[None].astype(np.float32), own, grid)[0]
    total = area_mean(np.where(known, values, 0).astype(np.float32), own, grid)
    return total / np.maximum(share, 1e-6), share


def continued(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[band, y, x]: what isn't known is what the nearest known cell mirrors, again and again, or that cell's colour.

    A network that looks at a whole window takes it for more of the same; one colour would be a clue never met before.
    """
    if known.all() or not known.any():
        return picture
    from scipy import ndimage

    picture, (height, width) = picture.copy(), known.shape
    for _ in range(_MIRRORED_TIMES):
        row, col = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        rows, cols = 2 * row - np.arange(height)[:, None], 2 * col - np.arange(width)
        there = ~known & (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        there[there] = known[rows[there], cols[there]]
        picture[:, there] = picture[:, rows[there], cols[there]]
        known = known | there
        if known.all():
            return picture
    row, col = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return picture[:, row, col]


def _overlap(start: int, count: int, cell: float, new_start: int, new_count: int, new_cell: float) -> Any:
    """[new, old], sparse: share of each new cell that an old one covers."""
    from scipy.sparse import csr_array

    low = (np.arange(new_start, new_start + new_count) * new_cell)[:, None]
    old = (np.arange(start, start + count) * cell)[None]
    shared = np.minimum(low + new_cell, old + cell) - np.maximum(low, old)
    return csr_array(np.maximum(shared, 0.0) / new_cell)
