"""Rasters from one grid of cells to another, and bands to a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from cityweave.errors import DataError
from cityweave.grid import CellGrid


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


def _overlap(start: int, count: int, cell: float, new_start: int, new_count: int, new_cell: float) -> Any:
    """[new, old], sparse: share of each new cell that an old one covers."""
    from scipy.sparse import csr_array

    low = (np.arange(new_start, new_start + new_count) * new_cell)[:, None]
    old = (np.arange(start, start + count) * cell)[None]
    shared = np.minimum(low + new_cell, old + cell) - np.maximum(low, old)
    return csr_array(np.maximum(shared, 0.0) / new_cell)
