"""City height model: tile cores side by side in one Zarr store, and from it two Cloud-Optimised GeoTIFFs.

Every tile is read once, cut to its core and written in place. The GeoTIFFs go through an uncompressed file that
GDAL's COG driver then copies, block by block. Cells that no tile delivers stay nodata.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.aoi import compound_crs_wkt
from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid
from cityweave.io import cf

if TYPE_CHECKING:
    import zarr

LAYERS: dict[str, tuple[str, float, str]] = {  # dtype, fill, meaning
    "dsm": ("float32", np.nan, "height of the surface"),
    "dtm": ("float32", np.nan, "height of the ground"),
    "sigma": ("float32", np.nan, "standard deviation of dsm"),
    "count": ("uint8", 0, "views that agree"),
    "source": ("uint8", 0, "0 none, 1 measured, 2 filled, 3 predicted"),
    "deck": ("uint8", 0, "1 where another surface may lie below, as under a bridge"),
}
_CACHE_MB = 64
_LARGEST_CHUNK = 512


@dataclass(frozen=True)
class CityRaster:
    """Where the city's cells are and what their heights mean."""

    grid: CellGrid
    tile_cells: int
    crs: str
    vertical_epsg: int | None  # None: heights above the ellipsoid

    @property
    def vertical(self) -> str:
        return "ellipsoid" if self.vertical_epsg is None else f"EPSG:{self.vertical_epsg}"


def geotiff_crs_wkt(crs: str, vertical_epsg: int | None) -> str:
    """Like `aoi.compound_crs_wkt`, in a form that a GeoTIFF can hold.

    GeoTIFF keys know no projected 3D CRS: GDAL would put it into a sidecar file, or drop it without one. So heights
    above the ellipsoid become a compound with a vertical CRS that says so in its name.
    """
    from pyproj import CRS
    from pyproj.crs import CompoundCRS

    if vertical_epsg is not None:
        return compound_crs_wkt(crs, vertical_epsg)
    horizontal = CRS(crs).to_2d()
    assert horizontal.ellipsoid is not None
    name = f"{horizontal.ellipsoid.name} ellipsoidal height"
    vertical = CRS.from_wkt(
        f'VERTCRS["{name}",VDATUM["{name}"],CS[vertical,1],AXIS["up (h)",up],LENGTHUNIT["metre",1]]'
    )
    return CompoundCRS(f"{horizontal.name} + {name}", [horizontal, vertical]).to_wkt()


@dataclass(frozen=True)
class TileHeights:
    """Layers of one tile, [rows, cols] north-up on its own grid, halo included."""

    grid: CellGrid
    layers: Mapping[str, np.ndarray]

    @staticmethod
    def read(path: Path, gsd_m: float) -> TileHeights:
        import zarr

        group = zarr.open_group(path, mode="r")
        x, y = _array(group, "x")[...], _array(group, "y")[...]
        grid = CellGrid(round(float(x[0]) / gsd_m - 0.5), round(float(y[-1]) / gsd_m - 0.5), len(x), len(y), gsd_m)
        return TileHeights(grid, {name: np.asarray(_array(group, name)[...]) for name in LAYERS})

    def core(self, core: Box) -> tuple[CellGrid, dict[str, np.ndarray]]:
        grid = CellGrid.covering(core, self.grid.gsd_m)
        try:
            window = self.grid.window_of(grid)
        except ValueError as error:
            raise DataError(f"a tile's height model doesn't cover its core: {error}") from error
        return grid, {name: layer[window] for name, layer in self.layers.items()}


def _array(group: zarr.Group, name: str) -> Any:
    if name not in group:
        raise DataError(f"{group.store_path}: no variable {name!r} in a height model; it has {sorted(group.keys())}")
    return group[name]


def create_store(path: Path, city: CityRaster) -> None:
    """An empty Zarr v3 group whose shards are whole tiles, with coordinates and the CRS that rioxarray looks for."""
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.create_group(
        path,
        zarr_format=3,
        attributes={"vertical": city.vertical, "gsd_m": city.grid.gsd_m, "cell": "area"},
    )
    side = city.tile_cells
    chunk = next(side // k for k in range(1, side + 1) if side % k == 0 and side // k <= _LARGEST_CHUNK)
    for name, (dtype, fill, meaning) in LAYERS.items():
        attributes: dict[str, Any] = {"long_name": meaning, **cf.on_ground()}
        if dtype == "float32":
            attributes |= {"units": "m", "vertical": city.vertical}
        group.create_array(
            name,
            shape=city.grid.shape,
            dtype=dtype,
            chunks=(chunk, chunk),
            shards=(side, side),
            compressors=ZstdCodec(level=3),
            dimension_names=("y", "x"),
            fill_value=fill,
            attributes=attributes,
        )
    for axis, values in (("x", city.grid.x_centres), ("y", city.grid.y_centres)):
        array = group.create_array(
            axis,
            shape=values.shape,
            dtype="float64",
            chunks=values.shape,
            dimension_names=(axis,),
            attributes=cf.along(axis),
        )
        array[...] = values
    cf.write_spatial_ref(group, city.grid, compound_crs_wkt(city.crs, city.vertical_epsg))
    cf.consolidate(group)


def write_shards(store: Path, city: CityRaster, grid: CellGrid, layers: Mapping[str, np.ndarray]) -> list[str]:
    """Write a tile's core into `store`; the files that were written, relative to it.

    A tile is a whole shard of every array, so any number of tiles may be written at once. A shard without any value
    is no file.
    """
    import zarr

    rows, cols = city.grid.window_of(grid)
    shard = f"c/{rows.start // city.tile_cells}/{cols.start // city.tile_cells}"
    for name in LAYERS:
        zarr.open_array(store / name, mode="r+", zarr_format=3)[rows, cols] = layers[name]
    return [f"{name}/{shard}" for name in LAYERS if (store / name / shard).is_file()]


def write_raster(
    store: Path, city: CityRaster, name: str, shards: Iterable[str], scratch: Path, path: Path, threads: int
) -> None:
    """A layer of `store` as a Cloud-Optimised GeoTIFF, through a plain one in `scratch`, shard by shard.

    GDAL writes a file from one process, and a COG only from a file that is complete: this bounds a large city.
    """
    import rasterio
    import zarr
    from rasterio.windows import Window

    array = zarr.open_array(store / name, mode="r", zarr_format=3)
    side = city.tile_cells
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "BIGTIFF": "IF_SAFER", "SPARSE_OK": "FALSE"}
    facts = {
        "dtype": "float32", "count": 1, "height": city.grid.rows, "width": city.grid.cols, "nodata": math.nan,
        "crs": geotiff_crs_wkt(city.crs, city.vertical_epsg), "transform": city.grid.transform,
    }  # fmt: skip
    with (
        rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"),
        rasterio.open(scratch, "w", driver="GTiff", **facts, **options) as raster,
    ):
        raster.update_tags(AREA_OR_POINT="Area", VERTICAL_REFERENCE=city.vertical)
        raster.set_band_description(1, LAYERS[name][2])
        raster.set_band_unit(1, "metre")
        for row, col in sorted((int(row), int(col)) for row, col in (shard.split("/")[-2:] for shard in shards)):
            window = Window(col * side, row * side, side, side)  # type: ignore[no-untyped-call, unused-ignore]
            values = array[row * side : (row + 1) * side, col * side : (col + 1) * side]
            raster.write(values, 1, window=window)
    write_cog(scratch, path, city.grid.shape, threads)
    scratch.unlink()


def write_cog(scratch: Path, path: Path, shape: tuple[int, int], threads: int = 1) -> None:
    """Copy to a Cloud-Optimised GeoTIFF; small cities get small blocks, so that there is an overview all the same.

    Threads compress blocks, which are written in one order: the bytes don't depend on how many there are.
    """
    import rasterio
    from rasterio.shutil import copy

    block = 512
    while block > 64 and block >= max(shape):
        block //= 2
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_NUM_THREADS=str(threads), GDAL_PAM_ENABLED="NO"):
        copy(
            scratch, path, driver="COG", COMPRESS="DEFLATE", LEVEL="6", PREDICTOR="YES", BLOCKSIZE=str(block),
            OVERVIEW_RESAMPLING="AVERAGE", NUM_THREADS=str(threads), BIGTIFF="IF_SAFER",
        )  # fmt: skip
