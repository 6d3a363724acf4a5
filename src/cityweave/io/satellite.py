"""Satellite views in sensor geometry: their camera, where they look, and the crop that a piece of ground needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.cameras import RPC, ToGeodetic
from cityweave.config import ViewSource
from cityweave.errors import DataError, MissingCapability
from cityweave.grid import Box
from cityweave.io.raster import invalid_pixels, open_raster, picture_bands
from cityweave.io.rpc_files import ACCEPTED, check_rpc, read_rpc_file, rpc_beside

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

SATURATING_BITS = (8, 10, 11, 12, 13, 14, 15, 16)
DISPLAY_TAG = "CITYWEAVE_DISPLAY_RANGE"  # "low high": counts of a view that are shown as 0 and 255
# Metadata that travels with a view: our name -> names in other people's files, as the first one found.
_METADATA = {
    "acquired": ("ACQUISITION_TIME", "ACQUISITIONDATETIME", "IMAGING_TIME"),
    "sun_azimuth_deg": ("SUN_AZIMUTH_DEG", "SUN_AZIMUTH"),
    "sun_elevation_deg": ("SUN_ELEVATION_DEG", "SUN_ELEVATION"),
}


@dataclass(frozen=True)
class Crop:
    """Pixels [left, left+width) x [top, top+height) of an image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class ViewPixels:
    image: np.ndarray  # (band, row, col), native type
    invalid: np.ndarray  # (row, col) bool, nodata and NaN
    undeclared_nan: np.ndarray  # (row, col) bool, NaN in a file that doesn't call NaN nodata
    nodata: float | None


def read_rpc(dataset: DatasetReader, source: ViewSource | None = None) -> RPC:
    """The vendor's camera of an open image: from `rpc` of its source, its tags, or a file beside it."""
    where = str(dataset.name)
    tags = dataset.tags(ns="RPC")
    beside = source.rpc if source is not None else None
    if beside is None and not tags:
        beside = rpc_beside(Path(dataset.name))
        if beside is None:
            raise DataError(f"{where} has no RPC; {ACCEPTED}")
    if beside is not None:
        rpc, where = read_rpc_file(beside), str(beside)
    else:
        try:
            rpc = RPC.from_tags(tags, where=where)
        except ValueError as error:
            raise DataError(f"{where}: RPC that isn't numbers ({error}); {ACCEPTED}") from error
    if source is not None and source.crop_px is not None:
        rpc = rpc.shifted(*source.crop_px)
    check_rpc(rpc, (dataset.width, dataset.height), where)
    return rpc


def view_metadata(dataset: DatasetReader) -> dict[str, Any]:
    """Acquisition time, sun angles and display range where the file tells them."""
    tags: dict[str, str] = {}
    for domain in (None, "IMAGERY", "RPC"):
        tags |= {key.upper(): value for key, value in dataset.tags(ns=domain).items()}
    found: dict[str, Any] = {}
    for name, keys in _METADATA.items():
        text = next((tags[key] for key in keys if key in tags), None)
        if text is None:
            continue
        try:
            found[name] = float(text) if name.endswith("_deg") else text
        except ValueError:
            continue  # another program's idea of an angle: leave it out
    if DISPLAY_TAG in tags:
        found["display_range"] = [float(number) for number in tags[DISPLAY_TAG].split()]
    return found


def view_angles(rpc: RPC, to_ground: ToGeodetic, ground: tuple[float, float, float]) -> dict[str, float]:
    """Off-nadir angle at the ground and azimuth of the camera, seen from a ground point (lon, lat, height)."""
    lon, lat, height = ground
    u, v = rpc.project(np.array([lon]), np.array([lat]), np.array([height]))
    up = 100.0
    lon_up, lat_up = rpc.localise(u, v, np.array([height + up]))
    x, y, _ = to_ground(np.array([lon, lon_up[0]]), np.array([lat, lat_up[0]]), np.array([height, height + up]))
    east, north = float(x[1] - x[0]), float(y[1] - y[0])
    return {
        "off_nadir_deg": round(math.degrees(math.atan2(math.hypot(east, north), up)), 3),
        "view_azimuth_deg": round(math.degrees(math.atan2(east, north)) % 360, 3),
    }


def crop_for(
    rpc: RPC,
    to_geodetic: ToGeodetic,
    box: Box,
    heights_m: tuple[float, float],
    size_px: tuple[int, int],
    allowance_px: float,
) -> Crop | None:
    """Pixels of an image of `size_px` (width, height) that may show ground or roofs of `box`; None if none do."""
    axes = (np.linspace(box.xmin, box.xmax, 5), np.linspace(box.ymin, box.ymax, 5), np.linspace(*heights_m, 3))
    u, v = rpc.project(*to_geodetic(*(axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))))
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return None
    # One pixel more: between the samples an RPC bends by less than that.
    pad = allowance_px + 1
    left, top = max(math.floor(u.min() - pad), 0), max(math.floor(v.min() - pad), 0)
    right, bottom = min(math.ceil(u.max() + pad), size_px[0]), min(math.ceil(v.max() + pad), size_px[1])
    return Crop(left, top, right - left, bottom - top) if left < right and top < bottom else None


def read_crop(dataset: DatasetReader, crop: Crop) -> ViewPixels:
    from rasterio.windows import Window

    bands = picture_bands(dataset)
    window = Window(crop.left, crop.top, crop.width, crop.height)
    image = dataset.read(bands, window=window)
    nan = np.zeros(image.shape[1:], bool)
    if np.issubdtype(image.dtype, np.floating) and not (dataset.nodata is not None and math.isnan(dataset.nodata)):
        nan = ~np.isfinite(image).all(axis=0)
        if dataset.nodata is not None:
            nan &= ~(image == dataset.nodata).all(axis=0)
    return ViewPixels(image, invalid_pixels(dataset, bands, image, window), nan, dataset.nodata)


def read_excluded(path: Path, crop: Crop, size_px: tuple[int, int]) -> np.ndarray:
    """(row, col) bool from the user's mask of a view: not 0 means don't use."""
    from rasterio.windows import Window

    with open_raster(path) as dataset:
        if (dataset.width, dataset.height) != size_px:
            raise DataError(
                f"mask {path} has {dataset.width}x{dataset.height} pixels; the view's own {size_px[0]}x{size_px[1]} "
                "are accepted"
            )
        return dataset.read(1, window=Window(crop.left, crop.top, crop.width, crop.height)) != 0


def outline_on_ground(
    rpc: RPC, size_px: tuple[int, int], height_m: float, steps: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of the image's border at one height."""
    part = np.arange(steps) / steps
    zero, one = np.zeros(steps), np.ones(steps)
    u = np.concatenate([part, one, 1 - part, zero]) * size_px[0]
    v = np.concatenate([zero, part, one, 1 - part]) * size_px[1]
    return rpc.localise(u, v, np.full(u.shape, height_m))


@lru_cache(maxsize=8)
def ground_from_geodetic(crs: str) -> ToGeodetic:
    """(lon, lat, height above the ellipsoid) to (x, y, height above the ellipsoid) of a projected CRS."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        way = Transformer.from_crs("EPSG:4979", CRS(crs).to_3d(), always_xy=True, allow_ballpark=False)
    except ProjError as error:
        raise MissingCapability(f"PROJ knows no exact way from WGS 84 to {crs} here: {error}") from error

    def transform(lon: np.ndarray, lat: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = way.transform(lon, lat, height)
        return x, y, z

    return transform
