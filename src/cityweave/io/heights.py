"""A height source of the configuration, raster or LiDAR, on cells and in the city's vertical reference."""

from __future__ import annotations

import numpy as np

from cityweave.config import CityConfig, RasterSource
from cityweave.grid import CellGrid
from cityweave.io.pointcloud import ground_heights, is_point_cloud, surface_heights
from cityweave.io.raster import vertical_shift, warp_heights
from cityweave.plan import vertical_grid


def read_heights(source: RasterSource, grid: CellGrid, city: CityConfig, *, ground: bool) -> np.ndarray:
    """(y, x) float32, NaN = nodata. `ground` picks what a point cloud gives: its terrain, else its surface."""
    if is_point_cloud(source.path):
        read = ground_heights if ground else surface_heights
        heights = read(source.path, grid, city.crs, declared_crs=source.crs)
    else:
        heights = warp_heights(source.path, grid, city.crs, declared_crs=source.crs)
    own = city.vertical if source.vertical is None else source.vertical
    if own == city.vertical or not np.isfinite(heights).any():
        return heights
    return heights + vertical_shift(grid, city.crs, vertical_grid(own), vertical_grid(city.vertical))
