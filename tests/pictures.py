"""Small sources made for tests: height ramps with values known everywhere, and views of a painted plane."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from cityweave.cameras import RPC, geodetic_transform
from cityweave.grid import Box

CRS = "EPSG:32637"
GROUND_M = 550.0


def ramp(x: np.ndarray, y: np.ndarray, box: Box) -> np.ndarray:
    return GROUND_M + 0.01 * (x - box.xmin) - 0.02 * (y - box.ymin)


def write_raster(path: Path, values: np.ndarray, corner: tuple[float, float], gsd_m: float, **profile: Any) -> Path:
    """`values` (y, x) or (band, y, x), north-up from the north-west `corner`."""
    import rasterio

    bands = values[None] if values.ndim == 2 else values
    count, height, width = bands.shape
    place = {"crs": CRS, "transform": Affine(gsd_m, 0, corner[0], 0, -gsd_m, corner[1])} | profile
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **place
    ) as file:
        file.write(bands)
    return path


def write_ramp(path: Path, box: Box, gsd_m: float, offset_m: float = 0.0, **profile: Any) -> Path:
    cols, rows = round(box.width / gsd_m), round(box.height / gsd_m)
    x, y = np.meshgrid(box.xmin + (np.arange(cols) + 0.5) * gsd_m, box.ymax - (np.arange(rows) + 0.5) * gsd_m)
    return write_raster(path, (ramp(x, y, box) + offset_m).astype(np.float32), (box.xmin, box.ymax), gsd_m, **profile)


def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness of the ground, 200 to 1000, without a direction and nowhere the same twice."""
    rng = np.random.default_rng(5)
    total = np.zeros(np.broadcast(x, y).shape)
    for length_m in (12.0, 14.0, 17.0, 21.0, 26.0, 33.0, 43.0):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        total += np.sin(2 * np.pi / length_m * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return 600 + 400 * np.tanh(0.7 * total)


def view_rpc(box: Box, gsd_m: float, lean: tuple[float, float], margin_m: float) -> tuple[RPC, tuple[int, int]]:
    """A distant camera whose rays move `lean` metres on the ground per metre up; and its image size.

    Linear in longitude, latitude and height, so it is exact within a small city only up to the curvature of the CRS.
    """
    wide = box.grow(margin_m)
    size = (round(wide.width / gsd_m), round(wide.height / gsd_m))
    to_geodetic = geodetic_transform(CRS, None)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(wide.xmin, wide.xmax, 200), rng.uniform(wide.ymin, wide.ymax, 200)
    z = rng.uniform(GROUND_M - 50, GROUND_M + 250, 200)
    u = (x - lean[0] * (z - GROUND_M) - wide.xmin) / gsd_m
    v = (wide.ymax - (y - lean[1] * (z - GROUND_M))) / gsd_m
    lon, lat, height = to_geodetic(x, y, z)
    offs = [lon.mean(), lat.mean(), GROUND_M]
    scales = [np.ptp(lon), np.ptp(lat), 300.0]
    terms = np.stack(
        [np.ones(200), *((a - o) / s for a, o, s in zip((lon, lat, height), offs, scales, strict=True))], -1
    )
    numerators = []
    for image, length in zip((u, v), size, strict=True):
        solution, *_ = np.linalg.lstsq(terms, (image - 0.5 - length / 2) / length, rcond=None)
        numerators.append((*map(float, solution), *([0.0] * 16)))
    one = (1.0, *([0.0] * 19))
    rpc = RPC(
        line_num=numerators[1], line_den=one, samp_num=numerators[0], samp_den=one,
        line_off=size[1] / 2, line_scale=float(size[1]), samp_off=size[0] / 2, samp_scale=float(size[0]),
        lat_off=float(offs[1]), lat_scale=float(scales[1]), long_off=float(offs[0]), long_scale=float(scales[0]),
        height_off=GROUND_M, height_scale=300.0,
    )  # fmt: skip
    return rpc, size


def painted(rpc: RPC, size: tuple[int, int], box: Box, gsd_m: float, margin_m: float) -> np.ndarray:
    """(row, col) brightness of the level ground at GROUND_M as the camera sees it."""
    wide = box.grow(margin_m)
    x = wide.xmin + (np.arange(size[0]) + 0.5) * gsd_m
    y = wide.ymax - (np.arange(size[1]) + 0.5) * gsd_m
    return paint(*np.meshgrid(x, y))


def write_view(
    path: Path, image: np.ndarray, rpc: RPC | None, tags: dict[str, str] | None = None, **profile: Any
) -> Path:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    bands = image[None] if image.ndim == 2 else image
    count, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **profile
        ) as file:
            file.write(bands)
            file.update_tags(**(tags or {}))
            if rpc is not None:
                file.update_tags(ns="RPC", **rpc.to_tags())
    return path


def write_city(folder: Path, box: Box) -> dict[str, Any]:
    """Two views, an ortho, terrain and reference of a 2 x 2 tile city; its configuration as plain values."""
    margin_m, gsd_m = 60.0, 0.5
    views = []
    for name, lean, gain, offset in (("a", (0.05, 0.02), 1.0, 0.0), ("b", (-0.3, 0.1), 1.25, 40.0)):
        rpc, size = view_rpc(box, gsd_m, lean, margin_m)
        image = np.rint(gain * painted(rpc, size, box, gsd_m, margin_m) + offset).astype(np.uint16)
        tags = {"ACQUISITION_TIME": "2025-06-18T08:31:00Z", "SUN_ELEVATION": "62.0"}
        views.append({"name": name, "path": str(write_view(folder / f"{name}.tif", image, rpc, tags))})
    wide = box.grow(margin_m)
    x = wide.xmin + (np.arange(round(wide.width / 0.25)) + 0.5) * 0.25
    y = wide.ymax - (np.arange(round(wide.height / 0.25)) + 0.5) * 0.25
    grey = (paint(*np.meshgrid(x, y)) / 4).astype(np.uint8)
    ortho = write_raster(folder / "ortho.tif", np.stack([grey] * 3), (wide.xmin, wide.ymax), 0.25)
    terrain = write_ramp(folder / "terrain.tif", wide, 5.0, nodata=-9999.0)
    reference = write_ramp(folder / "reference.tif", wide, 0.5, nodata=np.nan)
    return {
        "city": {
            "name": "painted",
            "crs": CRS,
            "vertical": "ellipsoid",
            "bounds_m": list(box.as_tuple()),
            "heights_m": [530.0, 700.0],
            "max_building_m": 60.0,
        },
        "tiles": {"size_m": 64},
        "sources": {
            "views": views,
            "ortho": [{"name": "aerial", "path": str(ortho)}],
            "terrain": {"path": str(terrain)},
            "reference": {"path": str(reference)},
        },
    }
