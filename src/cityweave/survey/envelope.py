"""Between which heights anything may stand, on fixed windows of the CRS, so that the tile grid plays no part in it.

From `MARGIN_M` below the lowest terrain of a window to the city's tallest building above its highest, never beyond the
city's own range. Without a terrain raster the city's range holds everywhere. The windows reach `REACH_M` beyond the
city, for tiles and halos that stick out.
"""

from __future__ import annotations

import math

import numpy as np

from cityweave.config import CityConfig
from cityweave.grid import CellGrid, Tile, tiles_covering

WINDOW_M = 256
REACH_M = 1024.0
SAMPLE_M = 8.0
MARGIN_M = 5.0  # coarse terrain cuts ditches and quays


def windows(city: CityConfig) -> list[Tile]:
    return tiles_covering(city.box.grow(REACH_M), WINDOW_M)


def terrain_grid(city: CityConfig) -> CellGrid:
    """Coarse cells that hold all windows of the city."""
    all_windows = windows(city)
    first, last = all_windows[0].core, all_windows[-1].core
    step = int(WINDOW_M / SAMPLE_M)
    col0, row0 = int(first.xmin / SAMPLE_M), int(first.ymin / SAMPLE_M)
    cols, rows = (int((last.xmax - first.xmin) / WINDOW_M) * step, int((last.ymax - first.ymin) / WINDOW_M) * step)
    return CellGrid(col0, row0, cols, rows, SAMPLE_M)


def height_range(city: CityConfig, terrain: np.ndarray) -> tuple[float, float]:
    """Whole metres for a piece of terrain, in the city's vertical reference."""
    known = terrain[np.isfinite(terrain)]
    if known.size == 0:
        return city.heights_m
    low = max(math.floor(float(known.min()) - MARGIN_M), city.heights_m[0])
    high = min(math.ceil(float(known.max()) + city.max_building_m), city.heights_m[1])
    return (low, high) if low < high else city.heights_m


def envelopes(city: CityConfig, grid: CellGrid, terrain: np.ndarray) -> list[list[float]]:
    """[west, south, lowest, highest] of each window, row by row from the south-west."""
    out = []
    for window in windows(city):
        rows, cols = grid.window_of(CellGrid.covering(window.core, grid.gsd_m))
        low, high = height_range(city, terrain[rows, cols])
        out.append([window.core.xmin, window.core.ymin, float(low), float(high)])
    return out
