"""What each source is: footprint, checksum, pixel size, camera angles, statistics on a decimated read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.aoi import rpc_to_json
from cityweave.cameras import RPC, ToGeodetic
from cityweave.config import OrthoSource, RasterSource, ViewSource
from cityweave.grid import Box
from cityweave.io.pointcloud import describe_cloud, is_point_cloud
from cityweave.io.raster import footprint, horizontal_crs, native_gsd_m, open_raster, picture_bands
from cityweave.io.satellite import (
    SATURATING_BITS,
    ground_from_geodetic,
    outline_on_ground,
    read_rpc,
    view_angles,
    view_metadata,
)
from cityweave.manifest import content_hash

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DECIMATED_PX = 1024  # longest side of the read that statistics are taken from


@dataclass(frozen=True)
class Place:
    """The city as the cameras need it."""

    crs: str
    box: Box
    middle_height_m: float  # in the city's vertical reference
    to_geodetic: ToGeodetic

    def middle_geodetic(self) -> tuple[float, float, float]:
        """Longitude, latitude, height above the ellipsoid of the city's middle."""
        x, y = (self.box.xmin + self.box.xmax) / 2, (self.box.ymin + self.box.ymax) / 2
        lon, lat, height = self.to_geodetic(np.array([x]), np.array([y]), np.array([self.middle_height_m]))
        return float(lon[0]), float(lat[0]), float(height[0])


def decimate(dataset: DatasetReader, longest_px: int) -> np.ndarray:
    """(band, row, col) float32 of the whole picture made small, NaN = invalid."""
    from rasterio.enums import Resampling

    factor = max(1.0, max(dataset.width, dataset.height) / longest_px)
    rows, cols = math.ceil(dataset.height / factor), math.ceil(dataset.width / factor)
    bands = picture_bands(dataset)
    values = dataset.read(bands, out_shape=(len(bands), rows, cols), resampling=Resampling.average)
    values = values.astype(np.float32)
    if dataset.nodata is not None:
        values[:, (values == np.float32(dataset.nodata)).all(axis=0)] = np.nan
    values[:, ~np.isfinite(values).all(axis=0)] = np.nan
    return values


def band_statistics(values: np.ndarray) -> list[dict[str, float | None]]:
    """Per band p2, p98, mean, std, rounded; None for a band without a valid pixel."""
    out: list[dict[str, float | None]] = []
    for band in values:
        seen = band[np.isfinite(band)].astype(np.float64)
        if seen.size == 0:
            out.append({"p2": None, "p98": None, "mean": None, "std": None})
            continue
        low, high = np.percentile(seen, [2, 98])
        numbers = {"p2": low, "p98": high, "mean": seen.mean(), "std": seen.std()}
        out.append({key: round(float(value), 3) for key, value in numbers.items()})
    return out


def saturation_of(dataset: DatasetReader) -> float | None:
    """Largest value of the sensor when the image reaches it: 2^bits - 1 for the usual bit depths."""
    from rasterio.enums import Resampling

    if not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
        return None
    factor = max(1.0, max(dataset.width, dataset.height) / (2 * DECIMATED_PX))
    shape = (math.ceil(dataset.height / factor), math.ceil(dataset.width / factor))
    bands = picture_bands(dataset)
    values = dataset.read(bands, out_shape=(len(bands), *shape), resampling=Resampling.nearest)
    largest = int(values.max())
    if dataset.nodata is not None and largest == dataset.nodata:
        largest = int(values.max(initial=0, where=values != dataset.nodata))
    return float(largest) if largest in {2**bits - 1 for bits in SATURATING_BITS} else None


def describe_view(source: ViewSource, dataset: DatasetReader, place: Place) -> dict[str, Any]:
    rpc = read_rpc(dataset, source)
    size = (dataset.width, dataset.height)
    lon, lat, height = place.middle_geodetic()
    to_ground = ground_from_geodetic(place.crs)
    outline = to_ground(*outline_on_ground(rpc, size, height), np.full(32, height))
    tags = {key.upper(): value for key, value in dataset.tags(ns="RPC").items()}
    return {
        "name": source.name,
        "file": source.path.name,
        "sha256": content_hash(source.path),
        "mask_sha256": content_hash(source.mask) if source.mask else None,
        "size_px": list(size),
        "bands": len(picture_bands(dataset)),
        "dtype": dataset.dtypes[0],
        "nodata": None if dataset.nodata is None else str(dataset.nodata),
        "saturation": saturation_of(dataset),
        "gsd_m": round(_gsd(rpc, size, height, place), 4),
        "footprint_m": [[round(float(x), 2), round(float(y), 2)] for x, y in zip(*outline[:2], strict=True)],
        "rpc": rpc_to_json(rpc),
        "rpc_heights_m": [rpc.height_off - abs(rpc.height_scale), rpc.height_off + abs(rpc.height_scale)],
        "rpc_error_m": {key.lower(): _error(tags.get(key)) for key in ("ERR_BIAS", "ERR_RAND")},
        "statistics": band_statistics(decimate(dataset, DECIMATED_PX)),
        **view_angles(rpc, to_ground, (lon, lat, height)),
        **view_metadata(dataset),
    }


def _error(text: str | None) -> float | None:
    """RPC errors are metres; a negative number means unknown."""
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if value >= 0 else None


def _gsd(rpc: RPC, size: tuple[int, int], height: float, place: Place) -> float:
    """Side of a pixel on level ground, in the middle of the image: the root of its area."""
    u = size[0] / 2 + np.array([0.0, 1.0, 0.0])
    v = size[1] / 2 + np.array([0.0, 0.0, 1.0])
    heights = np.full(3, height)
    x, y, _ = ground_from_geodetic(place.crs)(*rpc.localise(u, v, heights), heights)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    return math.sqrt(abs(float(area)))


def describe_ortho(source: OrthoSource, place: Place) -> dict[str, Any]:
    with open_raster(source.path) as dataset:
        outline = footprint(dataset, horizontal_crs(dataset, source.crs), place.crs)
        return {
            "name": source.name,
            "file": source.path.name,
            "sha256": content_hash(source.path),
            "size_px": [dataset.width, dataset.height],
            "bands": len(picture_bands(dataset)),
            "dtype": dataset.dtypes[0],
            "nodata": None if dataset.nodata is None else str(dataset.nodata),
            "gsd_m": round(native_gsd_m(source.path, place.crs, source.crs), 4),
            "footprint_m": _rounded(outline),
            "statistics": band_statistics(decimate(dataset, DECIMATED_PX)),
        }


def describe_heights(source: RasterSource, place: Place) -> dict[str, Any]:
    common = {"file": source.path.name, "sha256": content_hash(source.path)}
    if is_point_cloud(source.path):
        cloud = describe_cloud(source.path, place.crs, source.crs)
        facts = {"points": cloud.points, "heights_m": list(cloud.heights_m)}
        return {**common, **facts, "footprint_m": _rounded(cloud.outline)}
    with open_raster(source.path) as dataset:
        outline = footprint(dataset, horizontal_crs(dataset, source.crs), place.crs)
        return {
            **common,
            "size_px": [dataset.width, dataset.height],
            "gsd_m": round(native_gsd_m(source.path, place.crs, source.crs), 4),
            "footprint_m": _rounded(outline),
            "statistics": band_statistics(decimate(dataset, DECIMATED_PX)),
        }


def _rounded(outline: list[tuple[float, float]]) -> list[list[float]]:
    return [[round(x, 2), round(y, 2)] for x, y in outline]
