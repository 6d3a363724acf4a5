"""Rasters of any format and CRS, resampled honestly onto the city's cells.

Cells and pixels are areas. Making coarser averages over the area, making finer interpolates (linearly for heights,
cubic for pictures); nothing is picked by chance. A pixel is nodata when it is NaN, when the file's mask or alpha band
says so, or when *all* its bands hold the file's nodata value: a picture that calls 255 nodata keeps its white walls
unless they are pure white, and its layer says so.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.errors import DataError, MissingCapability
from cityweave.grid import CellGrid

if TYPE_CHECKING:
    import pyproj
    from affine import Affine
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

MAX_BANDS = 16
_COARSER = 1.001  # source pixels per cell from which on averaging is right
_MOST_PARTS = 8  # samples along a cell's side; beyond, GDAL's average over each sample is good enough
_EDGE_STEPS = 16  # samples along each side of a box that is carried into another CRS


@contextmanager
def open_raster(path: Path) -> Iterator[DatasetReader]:
    """Open for reading; what GDAL can't open or read becomes one clear line."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not path.is_file():
        raise DataError(f"{path} is not there; a raster that GDAL reads is accepted, such as a GeoTIFF")
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # satellite views have RPC tags instead
            with rasterio.open(path) as dataset:
                yield dataset
    except RasterioError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise DataError(
            f"{path} can't be read as a raster ({cause}); a whole file in a format that GDAL reads is accepted"
        ) from error


def check_readable(dataset: DatasetReader) -> None:
    """Read the first and the last block: a truncated file opens well and fails later."""
    rows, cols = dataset.block_shapes[0]
    last = ((dataset.height - 1) // rows * rows, (dataset.width - 1) // cols * cols)
    for top, left in ((0, 0), last):
        dataset.read(1, window=((top, min(top + rows, dataset.height)), (left, min(left + cols, dataset.width))))


# ---------------------------------------------------------------------------------------------------------------- CRS


def horizontal_crs(dataset: DatasetReader, declared: str | None = None) -> CRS:
    """The raster's CRS without its vertical part. `declared` is used when the file names none.

    Some programs write a CRS as a bare name such as "EPSG:2154" over a nameless datum. When the projection written
    beside it is the one of that code, the code is meant; otherwise the file contradicts itself and is refused.
    """
    from rasterio.crs import CRS

    if dataset.crs is None:
        if declared is None:
            raise DataError(f"{dataset.name} names no CRS; a georeferenced raster is accepted, or `crs` in its source")
        return _flat(CRS.from_user_input(declared))
    if _is_georeferenced(dataset):
        return _named(_flat(dataset.crs), dataset.name)
    raise DataError(f"{dataset.name} has a CRS but no geotransform; a georeferenced raster is accepted")


def raster_crs(path: Path) -> pyproj.CRS | None:
    """The file's CRS with its vertical part; None where it has none that PROJ can read."""
    import pyproj
    from pyproj.exceptions import CRSError

    with open_raster(path) as dataset:
        if dataset.crs is None:
            return None
        try:
            return pyproj.CRS.from_wkt(dataset.crs.to_wkt())
        except CRSError:
            return None


def _is_georeferenced(dataset: DatasetReader) -> bool:
    return not dataset.transform.is_identity


def _flat(crs: CRS) -> CRS:
    from rasterio.crs import CRS

    wkt = crs.to_wkt()
    if not (wkt.startswith(("COMPD_CS", "COMPOUNDCRS")) or re.search(r"CS\[(Cartesian|ellipsoidal),3", wkt)):
        return crs
    import pyproj

    whole = pyproj.CRS.from_wkt(wkt)
    first = whole.sub_crs_list[0] if whole.is_compound else whole
    return CRS.from_wkt(first.to_2d().to_wkt())


def _named(crs: CRS, where: str) -> CRS:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    match = re.match(r'(?:PROJCS|GEOGCS|PROJCRS|GEOGCRS|LOCAL_CS|ENGCRS)\["EPSG:(\d+)"', crs.to_wkt())
    if not match:
        return crs
    try:
        meant = CRS.from_epsg(int(match[1]))
    except CRSError as error:
        raise DataError(f"{where} names its CRS EPSG:{match[1]}, which PROJ doesn't know") from error
    if crs.is_projected and _projection(crs) != _projection(meant):
        raise DataError(
            f"{where} names its CRS EPSG:{match[1]} but describes another projection; "
            "a file whose CRS agrees with its name is accepted (gdal_edit.py -a_srs sets it)"
        )
    return meant


def _projection(crs: CRS) -> dict[str, Any]:
    """The projection's own numbers, without datum and ellipsoid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = dict(part.partition("=")[::2] for part in crs.to_proj4().split())
    datum = {"+datum", "+ellps", "+towgs84", "+a", "+b", "+rf", "+nadgrids", "+type", "+no_defs", "+wktext"}
    parallels = {"+lat_1", "+lat_2"}
    numbers = {key: _number(value) for key, value in parts.items() if key not in datum | parallels}
    return numbers | {"parallels": sorted(str(_number(parts[key])) for key in parallels if key in parts)}


def _number(text: str) -> float | str:
    try:
        return round(float(text), 9)
    except ValueError:
        return text


@lru_cache(maxsize=32)
def check_transform(source_wkt: str, target_wkt: str, where: str) -> None:
    """Refuse to fall back on a ballpark datum shift, which is wrong by up to hundreds of metres."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        Transformer.from_crs(source_wkt, target_wkt, always_xy=True, allow_ballpark=False)
    except ProjError as error:
        raise MissingCapability(f"{where}: PROJ knows no exact way from its CRS to the city's here: {error}") from error


def footprint(dataset: DatasetReader, crs: CRS, target: str) -> list[tuple[float, float]]:
    """The raster's outline in the CRS `target`, densified."""
    return carry(_outline(0, 0, dataset.width, dataset.height), dataset.transform, crs, target)


def carry(pixels: np.ndarray, transform: Any, crs: CRS, target: str) -> list[tuple[float, float]]:
    from rasterio.crs import CRS
    from rasterio.warp import transform as project

    xs, ys = transform @ (pixels[:, 0], pixels[:, 1])
    goal = CRS.from_user_input(target)
    if crs != goal:
        check_transform(crs.to_wkt(), goal.to_wkt(), "raster")
        xs, ys = project(crs, goal, xs, ys)
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _outline(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    steps = np.arange(_EDGE_STEPS) / _EDGE_STEPS
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
    sides = [a + steps[:, None] * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    return np.concatenate(sides)


# ------------------------------------------------------------------------------------------------------ onto the cells


@dataclass(frozen=True)
class OnGrid:
    """A raster on a grid: `values` (band, y, x) float32 with NaN where `valid` (y, x) is false."""

    values: np.ndarray
    valid: np.ndarray
    dtype: np.dtype[Any]  # of the file
    nodata: float | None  # of the file
    resampling: str

    def native(self) -> np.ndarray:
        """Back in the file's type; invalid pixels hold the nodata value (0 where the file has none)."""
        if np.issubdtype(self.dtype, np.floating):
            return self.values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        fill = self.nodata if self.nodata is not None and limits.min <= self.nodata <= limits.max else 0
        filled = np.where(self.valid, self.values, fill)
        return np.clip(np.rint(filled), limits.min, limits.max).astype(self.dtype)


def warp_to_grid(
    path: Path, grid: CellGrid, crs: str, *, upsampling: str = "bilinear", declared_crs: str | None = None
) -> OnGrid:
    """Read only what the grid needs and resample it; ground that the raster doesn't cover is invalid."""
    from rasterio.crs import CRS

    with open_raster(path) as dataset:
        source_crs = horizontal_crs(dataset, declared_crs)
        target = CRS.from_user_input(crs)
        if source_crs != target:
            check_transform(source_crs.to_wkt(), target.to_wkt(), str(path))
        pixels = _grid_outline_in_pixels(grid, target, dataset, source_crs)
        pixels_per_cell = math.sqrt(_ring_area(pixels) / (grid.rows * grid.cols))
        coarser = pixels_per_cell > _COARSER
        window = _window_around(pixels, dataset, pad=4 + math.ceil(2 * pixels_per_cell))
        bands = picture_bands(dataset)
        values = np.full((len(bands), *grid.shape), np.nan, np.float32)
        if window is not None:
            source, _ = read_as_float(dataset, bands, window)
            place = (_window_transform(dataset, window), source_crs)
            for band, pixel in zip(values, source, strict=True):
                if coarser:
                    band[:] = _area_mean(pixel, place, grid, target, pixels_per_cell)
                else:
                    _reproject(pixel, place, band, grid.transform, target, upsampling)
        dtype, nodata = np.dtype(dataset.dtypes[0]), dataset.nodata
    valid = np.asarray(np.isfinite(values).all(axis=0))
    return OnGrid(values, valid, dtype, nodata, "area" if coarser else upsampling)


def _area_mean(
    source: np.ndarray, place: tuple[Affine, CRS], grid: CellGrid, target: CRS, pixels_per_cell: float
) -> np.ndarray:
    """Mean over each cell's area; NaN where less than half of it is known.

    Through samples finer than the source's pixels: GDAL's own average is off by up to 0.15 pixels in place.
    """
    from affine import Affine

    parts = min(math.ceil(pixels_per_cell - 1e-3), _MOST_PARTS)
    fine = np.full((grid.rows * parts, grid.cols * parts), np.nan, np.float32)
    way = "bilinear" if pixels_per_cell <= parts * _COARSER else "average"
    _reproject(source, place, fine, grid.transform @ Affine.scale(1 / parts), target, way)
    cells = fine.reshape(grid.rows, parts, grid.cols, parts)
    known = ~np.isnan(cells)
    count = known.sum(axis=(1, 3))
    total = np.where(known, cells, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(2 * count >= parts * parts, total / np.maximum(count, 1), np.nan)


def _reproject(
    source: np.ndarray, place: tuple[Affine, CRS], out: np.ndarray, transform: Affine, target: CRS, resampling: str
) -> None:
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    reproject(
        source,
        out,
        src_transform=place[0],
        src_crs=place[1],
        src_nodata=np.nan,
        dst_transform=transform,
        dst_crs=target,
        dst_nodata=np.nan,
        resampling=Resampling[resampling],
        num_threads=1,
        tolerance=0.01,
    )


def _grid_outline_in_pixels(grid: CellGrid, target: CRS, dataset: DatasetReader, source_crs: CRS) -> np.ndarray:
    from rasterio.warp import transform as project

    box = grid.box
    outline = _outline(box.xmin, box.ymin, box.xmax, box.ymax)
    xs, ys = outline[:, 0], outline[:, 1]
    if source_crs != target:
        xs, ys = (np.asarray(axis) for axis in project(target, source_crs, xs, ys))
    return np.stack(~dataset.transform @ (xs, ys), axis=-1)


def _ring_area(ring: np.ndarray) -> float:
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    return max(abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2, 1e-12)


def _window_around(pixels: np.ndarray, dataset: DatasetReader, pad: int) -> Window | None:
    from rasterio.windows import Window

    if not np.isfinite(pixels).all():
        return None
    left, top = (max(math.floor(pixels[:, axis].min()) - pad, 0) for axis in (0, 1))
    right = min(math.ceil(pixels[:, 0].max()) + pad, dataset.width)
    bottom = min(math.ceil(pixels[:, 1].max()) + pad, dataset.height)
    return Window(left, top, right - left, bottom - top) if left < right and top < bottom else None


def _window_transform(dataset: DatasetReader, window: Window) -> Affine:
    from affine import Affine

    return dataset.transform @ Affine.translation(window.col_off, window.row_off)


def picture_bands(dataset: DatasetReader) -> list[int]:
    """Band numbers without an alpha band."""
    from rasterio.enums import ColorInterp

    bands = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind != ColorInterp.alpha]
    if not 1 <= len(bands) <= MAX_BANDS:
        raise DataError(f"{dataset.name} has {len(bands)} bands beside alpha; 1 to {MAX_BANDS} are accepted")
    return bands


def invalid_pixels(dataset: DatasetReader, bands: list[int], values: np.ndarray, window: Window) -> np.ndarray:
    """(row, col) bool by the file's own word: nodata in all bands, its alpha band, or its mask; and NaN in any."""
    from rasterio.enums import ColorInterp, MaskFlags

    invalid = np.zeros(values.shape[1:], bool)
    if np.issubdtype(values.dtype, np.floating):
        invalid |= ~np.isfinite(values).all(axis=0)
    if dataset.nodata is not None and not math.isnan(dataset.nodata):
        invalid |= (values == dataset.nodata).all(axis=0)
    alpha = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha]
    if alpha:
        invalid |= dataset.read(alpha[0], window=window) == 0
    elif MaskFlags.per_dataset in dataset.mask_flag_enums[bands[0] - 1]:
        invalid |= dataset.read_masks(bands[0], window=window) == 0
    return invalid


def read_as_float(dataset: DatasetReader, bands: list[int], window: Window) -> tuple[np.ndarray, np.ndarray]:
    values = dataset.read(bands, window=window)
    invalid = invalid_pixels(dataset, bands, values, window)
    as_float = values.astype(np.float32)
    as_float[:, invalid] = np.nan
    return as_float, invalid


def native_gsd_m(path: Path, crs: str, declared_crs: str | None = None) -> float:
    """Pixel size in metres of the CRS `crs`, at the raster's middle."""
    with open_raster(path) as dataset:
        col, row = dataset.width / 2, dataset.height / 2
        pixel = np.array([(col, row), (col + 1, row), (col + 1, row + 1), (col, row + 1)])
        return math.sqrt(
            _ring_area(np.array(carry(pixel, dataset.transform, horizontal_crs(dataset, declared_crs), crs)))
        )


# ------------------------------------------------------------------------------------------------------------- heights

_SHIFT_STEP_M = 64.0  # a geoid bends by well under a millimetre between points of this spacing


def warp_heights(path: Path, grid: CellGrid, crs: str, *, declared_crs: str | None = None) -> np.ndarray:
    """(y, x) float32 of a height raster, NaN = nodata, still in its own vertical reference."""
    on_grid = warp_to_grid(path, grid, crs, declared_crs=declared_crs)
    if len(on_grid.values) != 1:
        raise DataError(f"{path} has {len(on_grid.values)} bands; a height raster has 1")
    return on_grid.values[0]


def vertical_shift(grid: CellGrid, crs: str, source: Path | None, target: Path | None) -> np.ndarray | float:
    """What to add to heights above `source` to get heights above `target`; None is the ellipsoid.

    Sampled at fixed points of the CRS and interpolated between them, so that neighbouring tiles agree.
    """
    if source == target:
        return 0.0
    from cityweave.cameras import geodetic_transform

    coarse = CellGrid.covering(grid.box.grow(_SHIFT_STEP_M), _SHIFT_STEP_M)
    xs, ys = np.meshgrid(coarse.x_centres, coarse.y_centres)
    zero = np.zeros(xs.size)
    above = [geodetic_transform(crs, file)(xs.ravel(), ys.ravel(), zero)[2] for file in (source, target)]
    shift = (np.asarray(above[0]) - np.asarray(above[1])).reshape(coarse.shape)
    return _bilinear(shift, coarse, grid).astype(np.float32)


def _bilinear(values: np.ndarray, coarse: CellGrid, grid: CellGrid) -> np.ndarray:
    col = grid.x_centres / coarse.gsd_m - coarse.col0 - 0.5
    row = (coarse.row0 + coarse.rows) - grid.y_centres / coarse.gsd_m - 0.5
    c0 = np.clip(np.floor(col).astype(int), 0, coarse.cols - 2)
    r0 = np.clip(np.floor(row).astype(int), 0, coarse.rows - 2)
    fc, fr = (col - c0)[None, :], (row - r0)[:, None]
    top = values[r0][:, c0] * (1 - fc) + values[r0][:, c0 + 1] * fc
    bottom = values[r0 + 1][:, c0] * (1 - fc) + values[r0 + 1][:, c0 + 1] * fc
    return top * (1 - fr) + bottom * fr
