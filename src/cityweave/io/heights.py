"""A height source of the configuration, raster or LiDAR, on cells and in the city's vertical reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from cityweave.config import CityConfig, RasterSource
from cityweave.grid import CellGrid
from cityweave.io.pointcloud import cloud_crs, ground_heights, is_point_cloud, surface_heights
from cityweave.io.raster import raster_crs, vertical_shift, warp_heights
from cityweave.plan import vertical_grid

if TYPE_CHECKING:
    import pyproj


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


def stated_vertical(source: RasterSource) -> int | Literal["ellipsoid"] | None:
    """What a file's own CRS, or the one declared for it, says its heights count from: an EPSG code where it says."""
    crs = cloud_crs(source.path) if is_point_cloud(source.path) else raster_crs(source.path)
    if crs is None and source.crs is not None:
        from pyproj import CRS

        crs = CRS.from_user_input(source.crs)
    return None if crs is None else _vertical_of(crs)


def _vertical_of(crs: pyproj.CRS) -> int | Literal["ellipsoid"] | None:
    if crs.is_compound:
        return crs.sub_crs_list[1].to_epsg()
    return "ellipsoid" if len(crs.axis_info) == 3 else None
