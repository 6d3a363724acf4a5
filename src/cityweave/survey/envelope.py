"""Between which heights anything may stand, on fixed windows of the CRS, so that the tile grid plays no part in it.

With a terrain raster: from `MARGIN_M` below the lowest terrain of a window to the city's tallest building above its
highest. Without: from what the views themselves show at low resolution (`coarse`). Never beyond the city's own range.
The windows reach as far beyond the city as tiles and their halos do; one that no two views show has no range.
"""

from __future__ import annotations

import math

import numpy as np

from cityweave.config import CityConfig
from cityweave.grid import CellGrid, Tile, tiles_covering

WINDOW_M = 256
SAMPLE_M = 8.0
MARGIN_M = 5.0  # coarse terrain cuts ditches and quays

Corner = tuple[float, float]


def windows(city: CityConfig, reach_m: float) -> list[Tile]:
    return tiles_covering(city.box.grow(reach_m), WINDOW_M)


def corner(window: Tile) -> Corner:
    return float(window.core.xmin), float(window.core.ymin)


def terrain_grid(city: CityConfig, reach_m: float) -> CellGrid:
    """Coarse cells that hold all windows of the city."""
    all_windows = windows(city, reach_m)
    first, last = all_windows[0].core, all_windows[-1].core
    step = int(WINDOW_M / SAMPLE_M)
    col0, row0 = int(first.xmin / SAMPLE_M), int(first.ymin / SAMPLE_M)
    cols, rows = (int((last.xmax - first.xmin) / WINDOW_M) * step, int((last.ymax - first.ymin) / WINDOW_M) * step)
    return CellGrid(col0, row0, cols, rows, SAMPLE_M)


def height_range(city: CityConfig, terrain: np.ndarray) -> tuple[float, float] | None:
    """Whole metres for a piece of terrain, in the city's vertical reference; None where no terrain is known."""
    known = terrain[np.isfinite(terrain)]
    if known.size == 0:
        return None
    low = max(math.floor(float(known.min()) - MARGIN_M), city.heights_m[0])
    high = min(math.ceil(float(known.max()) + city.max_building_m), city.heights_m[1])
    return (low, high) if low < high else city.heights_m


def terrain_ranges(
    city: CityConfig, all_windows: list[Tile], grid: CellGrid, terrain: np.ndarray
) -> dict[Corner, tuple[float, float]]:
    """Of the windows whose terrain is known."""
    out = {}
    for window in all_windows:
        rows, cols = grid.window_of(CellGrid.covering(window.core, grid.gsd_m))
        heights = height_range(city, terrain[rows, cols])
        if heights is not None:
            out[corner(window)] = heights
    return out
