"""LiDAR as heights on the city's cells: the highest return for the surface, the ground class for the terrain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.errors import DataError, MissingCapability
from cityweave.grid import Box, CellGrid

if TYPE_CHECKING:
    import laspy
    import pyproj

SUFFIXES = (".laz", ".las")
GROUND, NOISE = 2, (7, 18)  # classes of the LAS specification
CHUNK_POINTS = 1_000_000
GROUND_REACH_M = 25.0  # ground points this far outside a grid still carry its terrain


def is_point_cloud(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class CloudInfo:
    outline: list[tuple[float, float]]  # corners of its box, in the city's CRS
    heights_m: tuple[float, float]
    points: int


def describe_cloud(path: Path, crs: str, declared_crs: str | None = None) -> CloudInfo:
    """Header facts, after reading the first points to see that the file is whole enough to be decoded."""
    with _open(path) as reader:
        header = reader.header
        _first_points(reader, path)
        low, high = header.mins, header.maxs
        corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
        transform = _to_city(_horizontal_wkt(header, declared_crs), crs, path)
        if transform is not None:
            corners = [transform.transform(x, y, errcheck=True) for x, y in corners]
        return CloudInfo(
            outline=[(float(x), float(y)) for x, y in corners],
            heights_m=(float(low[2]), float(high[2])),
            points=int(header.point_count),
        )


def cloud_crs(path: Path) -> pyproj.CRS | None:
    """The file's CRS with its vertical part."""
    with _open(path) as reader:
        return reader.header.parse_crs()


def _first_points(reader: laspy.LasReader, path: Path) -> None:
    try:
        next(iter(reader.chunk_iterator(1000)), None)
    except Exception as error:  # lazrs raises its own kinds, some of them plain RuntimeError
        raise DataError(f"{path} can't be decoded ({error}); a whole .laz or .las file is accepted") from error


def surface_heights(path: Path, grid: CellGrid, crs: str, *, declared_crs: str | None = None) -> np.ndarray:
    """(y, x) float32: the highest return in each cell, noise left out; NaN where none fell."""
    top = np.full(grid.rows * grid.cols, -np.inf)
    for cell, z, _ in _points_on(path, grid, crs, declared_crs):
        np.maximum.at(top, cell, z)
    return np.where(np.isfinite(top), top, np.nan).reshape(grid.shape).astype(np.float32)


def ground_heights(path: Path, grid: CellGrid, crs: str, *, declared_crs: str | None = None) -> np.ndarray:
    """(y, x) float32: mean of the ground returns in each cell, linear between cells without any (under buildings).

    NaN outside the hull of the ground that lies within `GROUND_REACH_M` of the grid.
    """
    wide = CellGrid.covering(grid.box.grow(GROUND_REACH_M), grid.gsd_m)
    total, count = np.zeros(wide.rows * wide.cols), np.zeros(wide.rows * wide.cols)
    for cell, z, kind in _points_on(path, wide, crs, declared_crs):
        ground = kind == GROUND
        total += np.bincount(cell[ground], z[ground], total.size)
        count += np.bincount(cell[ground], minlength=total.size)
    heights = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(wide.shape)
    return _bridge(heights)[wide.window_of(grid)].astype(np.float32)


def _bridge(heights: np.ndarray) -> np.ndarray:
    """Fill empty cells linearly over triangles between the cells that border a gap."""
    from scipy.interpolate import LinearNDInterpolator
    from scipy.ndimage import binary_dilation

    empty = np.isnan(heights)
    rim = ~empty & binary_dilation(empty, np.ones((3, 3), bool))
    if empty.all() or not empty.any() or rim.sum() < 4:
        return heights
    rows, cols = np.nonzero(rim)
    if np.ptp(rows) == 0 or np.ptp(cols) == 0:
        return heights
    between = LinearNDInterpolator(np.stack([rows, cols], axis=-1).astype(np.float64), heights[rim])
    filled = heights.copy()
    filled[empty] = between(np.argwhere(empty).astype(np.float64))
    return filled


def _points_on(path: Path, grid: CellGrid, crs: str, declared_crs: str | None) -> Any:
    """Chunks of (cell number, height, class) of the points inside the grid."""
    with _open(path) as reader:
        transform = _to_city(_horizontal_wkt(reader.header, declared_crs), crs, path)
        low, high = reader.header.mins, reader.header.maxs
        if transform is None and not grid.box.intersects(Box(low[0], low[1], high[0] + 1e-3, high[1] + 1e-3)):
            return
        for points in reader.chunk_iterator(CHUNK_POINTS):
            x, y, z = np.asarray(points.x), np.asarray(points.y), np.asarray(points.z)
            kind = np.asarray(points.classification)
            keep = ~np.isin(kind, NOISE)
            if "withheld" in points.point_format.dimension_names:
                keep &= np.asarray(points.withheld) == 0
            if transform is not None:
                x, y = transform.transform(x, y, errcheck=True)
            col = np.floor(x / grid.gsd_m).astype(np.int64) - grid.col0
            row = grid.row0 + grid.rows - 1 - np.floor(y / grid.gsd_m).astype(np.int64)
            keep &= (col >= 0) & (col < grid.cols) & (row >= 0) & (row < grid.rows)
            yield row[keep] * grid.cols + col[keep], z[keep], kind[keep]


def _open(path: Path) -> laspy.LasReader:
    import laspy
    from laspy.errors import LaspyException

    if not path.is_file():
        raise DataError(f"{path} is not there; LiDAR as .laz or .las is accepted")
    try:
        return laspy.open(path)
    except (LaspyException, ValueError, OSError) as error:
        raise DataError(f"{path} can't be read as LiDAR ({error}); a whole .laz or .las file is accepted") from error


def _horizontal_wkt(header: Any, declared: str | None) -> str | None:
    """The file's own CRS first; `declared` when it names none."""
    from pyproj import CRS

    crs = header.parse_crs()
    if crs is None and declared is not None:
        crs = CRS.from_user_input(declared)
    if crs is None:
        return None
    return (crs.sub_crs_list[0] if crs.is_compound else crs).to_2d().to_wkt()


@lru_cache(maxsize=8)
def _to_city(wkt: str | None, crs: str, path: Path) -> Any:
    """Transformer into the city's CRS, None when it is the same."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    if wkt is None:
        raise DataError(f"{path} names no CRS; LiDAR with one is accepted, or `crs` in its source")
    source, target = CRS.from_wkt(wkt), CRS.from_user_input(crs).to_2d()
    if source == target or (source.to_epsg() is not None and source.to_epsg() == target.to_epsg()):
        return None
    try:
        return Transformer.from_crs(source, target, always_xy=True, allow_ballpark=False)
    except ProjError as error:
        raise MissingCapability(f"{path}: PROJ knows no exact way from its CRS to the city's here: {error}") from error
