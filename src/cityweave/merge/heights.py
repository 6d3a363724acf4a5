"""City height model: tile cores side by side into two Cloud-Optimised GeoTIFFs and one Zarr store.

Every tile is read once, cut to its core and written in place. The GeoTIFFs go through an uncompressed file that
GDAL's COG driver then copies, block by block. Cells that no tile delivers stay nodata.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.aoi import compound_crs_wkt
from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid

if TYPE_CHECKING:
    import zarr

LAYERS: dict[str, tuple[str, float, str]] = {  # dtype, fill, meaning
    "dsm": ("float32", np.nan, "height of the surface"),
    "dtm": ("float32", np.nan, "height of the ground"),
    "sigma": ("float32", np.nan, "standard deviation of dsm"),
    "count": ("uint8", 0, "views that agree"),
    "source": ("uint8", 0, "0 none, 1 measured, 2 filled"),
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


def city_grid(cores: Iterable[Box], gsd_m: float) -> CellGrid:
    boxes = list(cores)
    box = Box(
        min(b.xmin for b in boxes), min(b.ymin for b in boxes), max(b.xmax for b in boxes), max(b.ymax for b in boxes)
    )
    return CellGrid.covering(box, gsd_m)


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


class HeightsWriter:
    """Streams tile cores into the temporary GeoTIFFs and the Zarr store."""

    def __init__(self, city: CityRaster, scratch: Mapping[str, Path], store: Path) -> None:
        import rasterio

        self.city = city
        self._files = ExitStack()
        self._files.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"))
        crs_wkt = geotiff_crs_wkt(city.crs, city.vertical_epsg)
        self._rasters = {
            name: self._files.enter_context(
                rasterio.open(
                    path, "w", driver="GTiff", dtype="float32", count=1, height=city.grid.rows, width=city.grid.cols,
                    nodata=math.nan, crs=crs_wkt, transform=city.grid.transform,
                    tiled=True, blockxsize=512, blockysize=512, BIGTIFF="IF_SAFER", SPARSE_OK="FALSE",
                )
            )
            for name, path in scratch.items()
        }  # fmt: skip
        for name, raster in self._rasters.items():
            raster.update_tags(AREA_OR_POINT="Area", VERTICAL_REFERENCE=city.vertical)
            raster.set_band_description(1, LAYERS[name][2])
            raster.set_band_unit(1, "metre")
        self._arrays = create_store(store, city)

    def write(self, grid: CellGrid, layers: Mapping[str, np.ndarray]) -> None:
        from rasterio.windows import Window

        rows, cols = self.city.grid.window_of(grid)
        window = Window(cols.start, rows.start, grid.cols, grid.rows)  # type: ignore[no-untyped-call, unused-ignore]
        for name, raster in self._rasters.items():
            raster.write(layers[name].astype(np.float32, copy=False), 1, window=window)
        for name, array in self._arrays.items():
            array[rows, cols] = layers[name]

    def close(self) -> None:
        self._files.close()


@contextmanager
def heights_writer(city: CityRaster, scratch: Mapping[str, Path], store: Path) -> Iterator[HeightsWriter]:
    writer = HeightsWriter(city, scratch, store)
    try:
        yield writer
    finally:
        writer.close()


def create_store(path: Path, city: CityRaster) -> dict[str, zarr.Array]:
    """A Zarr v3 group whose shards are whole tiles, with the coordinates and the CRS that rioxarray looks for."""
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.create_group(
        path,
        zarr_format=3,
        attributes={"vertical": city.vertical, "gsd_m": city.grid.gsd_m, "cell": "area"},
    )
    side = city.tile_cells
    chunk = next(side // k for k in range(1, side + 1) if side % k == 0 and side // k <= _LARGEST_CHUNK)
    arrays: dict[str, zarr.Array] = {}
    for name, (dtype, fill, meaning) in LAYERS.items():
        # `coordinates` makes spatial_ref a coordinate for plain xarray; `grid_mapping` is what the CF rules ask for.
        attributes: dict[str, Any] = {
            "long_name": meaning,
            "grid_mapping": "spatial_ref",
            "coordinates": "spatial_ref",
        }
        if dtype == "float32":
            attributes |= {"units": "m", "vertical": city.vertical}
        arrays[name] = group.create_array(
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
            attributes={"units": "metre", "standard_name": f"projection_{axis}_coordinate"},
        )
        array[...] = values
    t = city.grid.transform
    geotransform = " ".join(repr(float(number)) for number in (t.c, t.a, t.b, t.f, t.d, t.e))
    reference = group.create_array(
        "spatial_ref",
        shape=(),
        dtype="int64",
        attributes={"crs_wkt": compound_crs_wkt(city.crs, city.vertical_epsg), "GeoTransform": geotransform},
    )
    reference[...] = 0
    with warnings.catch_warnings():  # without consolidated metadata plain xarray reads every array's file on its own
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(group.store, zarr_format=3)
    return arrays


def write_cog(scratch: Path, path: Path, shape: tuple[int, int]) -> None:
    """Copy to a Cloud-Optimised GeoTIFF; small cities get small blocks, so that there is an overview all the same."""
    import rasterio
    from rasterio.shutil import copy

    block = 512
    while block > 64 and block >= max(shape):
        block //= 2
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"):
        copy(
            scratch, path, driver="COG", COMPRESS="DEFLATE", LEVEL="6", PREDICTOR="YES", BLOCKSIZE=str(block),
            OVERVIEW_RESAMPLING="AVERAGE", NUM_THREADS="1", BIGTIFF="IF_SAFER",
        )  # fmt: skip
