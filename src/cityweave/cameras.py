"""Cameras: RPC, its polynomial stand-in inside a tile, and pinhole views.

The pixel convention of the whole program: image coordinates (u right, v down) start at the top-left CORNER of the
first pixel, whose centre is therefore (0.5, 0.5). An RPC counts samples and lines from the CENTRE of that pixel, as
GDAL does: samp = u - 0.5, line = v - 0.5. Rasters on the ground are cells with an area (see `grid.CellGrid`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.errors import DataError, MissingCapability
from cityweave.grid import Box, CellGrid
from cityweave.rpc import RPC as RPC
from cityweave.rpc import Correction as Correction

ToGeodetic = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

MAX_POLY_ERROR_PX = 0.02


def __getattr__(name: str) -> Any:
    """`project_poly` is compiled when first asked for: half the stages need cameras but not numba, slow to load."""
    if name != "project_poly":
        raise AttributeError(name)
    from numba import njit

    compiled = njit(cache=True, inline="always")(_project_poly)
    globals()[name] = compiled
    return compiled


def _project_poly(coefficients, centre, scale, x, y, z):  # type: ignore[no-untyped-def]
    """Local metres to (u, v) through a `PolyCamera`'s arrays; for use inside kernels, as `project_poly`."""
    a = (x - centre[0]) / scale[0]
    b = (y - centre[1]) / scale[1]
    c = (z - centre[2]) / scale[2]
    p, q = coefficients[0], coefficients[1]
    u = (
        p[0] + p[1] * a + p[2] * b + p[3] * c + p[4] * a * b + p[5] * a * c + p[6] * b * c
        + p[7] * a * a + p[8] * b * b + p[9] * c * c
    )  # fmt: skip
    v = (
        q[0] + q[1] * a + q[2] * b + q[3] * c + q[4] * a * b + q[5] * a * c + q[6] * b * c
        + q[7] * a * a + q[8] * b * b + q[9] * c * c
    )  # fmt: skip
    return u, v


def _poly_terms(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(a), a, b, c, a * b, a * c, b * c, a * a, b * b, c * c], axis=-1)


@dataclass(frozen=True)
class PolyCamera:
    """Degree-2 polynomial that replaces an RPC inside a tile; `error_px` is its largest distance from the RPC."""

    coefficients: np.ndarray  # (2, 10)
    centre: np.ndarray  # (3,) local metres
    scale: np.ndarray  # (3,) local metres
    error_px: float

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y, z = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (x, y, z)))
        local = [
            (value - centre) / scale for value, centre, scale in zip((x, y, z), self.centre, self.scale, strict=True)
        ]
        image = _poly_terms(*local) @ self.coefficients.T
        return image[..., 0], image[..., 1]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.coefficients, self.centre, self.scale

    def lean(self) -> np.ndarray:
        """(dx/dz, dy/dz) along the ray through the centre: how far a point moves on the ground per metre up."""
        linear = self.coefficients[:, 1:4] / self.scale
        return -np.linalg.solve(linear[:, :2], linear[:, 2])


def straight_down(grid: CellGrid, origin_m: tuple[float, float, float]) -> PolyCamera:
    """What a true orthophoto on these cells is taken by, in metres relative to `origin_m`."""
    coefficients = np.zeros((2, 10))
    coefficients[0, :2] = (origin_m[0] - grid.box.xmin) / grid.gsd_m, 1 / grid.gsd_m
    coefficients[1, 0], coefficients[1, 2] = (grid.box.ymax - origin_m[1]) / grid.gsd_m, -1 / grid.gsd_m
    return PolyCamera(coefficients, np.zeros(3), np.ones(3), 0.0)


def _box_samples(box: Box, z_range_m: tuple[float, float], counts: tuple[int, int, int]) -> list[np.ndarray]:
    spans = ((box.xmin, box.xmax), (box.ymin, box.ymax), z_range_m)
    axes = [np.linspace(low, high, count) for (low, high), count in zip(spans, counts, strict=True)]
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def fit_local(
    rpc: RPC,
    to_geodetic: ToGeodetic,
    box: Box,
    z_range_m: tuple[float, float],
    origin_m: tuple[float, float, float],
) -> PolyCamera:
    """Fit a polynomial camera over `box` and absolute heights `z_range_m`, in metres relative to `origin_m`."""

    centre = np.array([(box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2, sum(z_range_m) / 2])
    scale = np.array([box.width / 2, box.height / 2, max((z_range_m[1] - z_range_m[0]) / 2, 1.0)])

    def terms_and_image(points: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        local = [(p - c) / s for p, c, s in zip(points, centre, scale, strict=True)]
        return _poly_terms(*local), np.stack(rpc.project(*to_geodetic(*points)), axis=-1)

    terms, image = terms_and_image(_box_samples(box, z_range_m, (9, 9, 5)))
    if not np.isfinite(image).all():
        raise DataError("the RPC gives no finite image position inside the tile; is it the right camera?")
    solution, *_ = np.linalg.lstsq(terms, image, rcond=None)
    terms, image = terms_and_image(_box_samples(box, z_range_m, (8, 8, 4)))
    error_px = float(np.abs(terms @ solution - image).max())
    if error_px > MAX_POLY_ERROR_PX:
        raise DataError(
            f"inside {box.as_tuple()} and heights {z_range_m} the RPC is {error_px:.3f} px away from a polynomial of "
            f"degree 2, {MAX_POLY_ERROR_PX} px is accepted: use smaller tiles or a smaller height range"
        )
    return PolyCamera(np.ascontiguousarray(solution.T), centre - np.asarray(origin_m), scale, error_px)


@dataclass(frozen=True)
class PerspectiveFit:
    """The 3 x 4 matrix that comes nearest to an RPC inside a box: local metres to homogeneous image positions.

    `error_px` is its largest distance from the RPC there. A line scanner is no pinhole; this is for programs that know
    no other camera.
    """

    matrix: np.ndarray  # (3, 4)
    error_px: float

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = np.stack([*np.broadcast_arrays(x, y, z), np.ones(np.broadcast(x, y, z).shape)], axis=-1)
        u, v, w = np.moveaxis(points @ self.matrix.T, -1, 0)
        return u / w, v / w


def fit_perspective(
    rpc: RPC,
    to_geodetic: ToGeodetic,
    box: Box,
    z_range_m: tuple[float, float],
    origin_m: tuple[float, float, float],
) -> PerspectiveFit:
    """Least squares over `box` and absolute heights `z_range_m`, in metres relative to `origin_m`."""
    points = _box_samples(box, z_range_m, (9, 9, 5))
    centre = np.array([(box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2, sum(z_range_m) / 2])
    scale = max(box.width, box.height, z_range_m[1] - z_range_m[0]) / 2
    local = np.stack([(p - c) / scale for p, c in zip(points, centre, strict=True)] + [np.ones(len(points[0]))], axis=1)
    u, v = rpc.project(*to_geodetic(*points))
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        raise DataError("the RPC gives no finite image position inside the tile; is it the right camera?")
    middle = np.array([u.mean(), v.mean()])
    nothing, weight = np.zeros_like(local), np.ones(len(u))
    for _ in range(3):  # the denominator weighs the equations: with its last value they are the image's own
        rows = [
            np.hstack([local, nothing, -(u - middle[0])[:, None] * local[:, :3]]) * weight[:, None],
            np.hstack([nothing, local, -(v - middle[1])[:, None] * local[:, :3]]) * weight[:, None],
        ]
        right = np.concatenate([(u - middle[0]) * weight, (v - middle[1]) * weight])
        solution, *_ = np.linalg.lstsq(np.vstack(rows), right, rcond=None)
        weight = 1 / (1 + local[:, :3] @ solution[8:])
    matrix = np.vstack([solution[:4], solution[4:8], [*solution[8:], 1.0]])
    matrix[:2] += middle[:, None] * matrix[2]
    to_unit = np.eye(4) / scale
    to_unit[:3, 3] = (np.asarray(origin_m) - centre) / scale
    to_unit[3, 3] = 1
    fit = PerspectiveFit(matrix @ to_unit, 0.0)
    tested = _box_samples(box, z_range_m, (8, 8, 4))
    found = fit.project(*(p - o for p, o in zip(tested, origin_m, strict=True)))
    error = np.abs(np.subtract(found, rpc.project(*to_geodetic(*tested)))).max()
    return PerspectiveFit(fit.matrix, float(error))


@dataclass(frozen=True)
class Pinhole:
    """Perspective view. `rotation` takes world axes to camera axes: x right, y down, z forward."""

    position: np.ndarray
    rotation: np.ndarray
    focal_px: float
    cx: float
    cy: float
    width: int
    height: int

    @staticmethod
    def look_at(position: np.ndarray, target: np.ndarray, fov_deg: float, width: int, height: int) -> Pinhole:
        """`fov_deg` spans the image's width; world up is up in the image."""
        position = np.asarray(position, np.float64)
        forward = np.asarray(target, np.float64) - position
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        if np.linalg.norm(right) < 1e-9:  # straight down: north is up in the image
            right = np.array([1.0, 0.0, 0.0])
        right = right / np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        focal_px = width / 2 / np.tan(np.radians(fov_deg) / 2)
        return Pinhole(position, rotation, float(focal_px), width / 2, height / 2, width, height)

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World to (u, v, depth along the optical axis); depth <= 0 is behind the camera."""
        points = np.stack(np.broadcast_arrays(x, y, z), axis=-1) - self.position
        camera = points @ self.rotation.T
        depth = camera[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            u = self.focal_px * camera[..., 0] / depth + self.cx
            v = self.focal_px * camera[..., 1] / depth + self.cy
        return u, v, depth


def vertical_shift_pipeline(grid_file: Path) -> str:
    """PROJ pipeline that adds a geoid grid: heights above the geoid to heights above the ellipsoid."""
    return (
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
        f"+step +proj=vgridshift +grids={grid_file} +multiplier=1 "
        "+step +proj=unitconvert +xy_in=rad +xy_out=deg"
    )


@lru_cache(maxsize=32)
def geodetic_transform(crs: str, grid_file: Path | None = None) -> ToGeodetic:
    """From (x, y, z) of a projected CRS to (lon, lat, height above the ellipsoid), WGS 84 degrees and metres.

    Without a grid, z is already ellipsoidal. PROJ must not fall back to a ballpark transformation: it would return
    the height unchanged, tens of metres wrong, and nobody would notice.
    """
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        horizontal = Transformer.from_crs(
            CRS(crs).to_3d() if grid_file is None else CRS(crs),
            "EPSG:4979" if grid_file is None else "EPSG:4326",
            always_xy=True,
            allow_ballpark=False,
        )
    except ProjError as error:
        raise MissingCapability(f"PROJ knows no exact way from {crs} to WGS 84 here: {error}") from error
    vertical = None
    if grid_file is not None:
        if not grid_file.is_file():
            raise MissingCapability(f"vertical grid {grid_file} is not there; a GTX or GeoTIFF geoid grid is needed")
        try:
            vertical = Transformer.from_pipeline(vertical_shift_pipeline(grid_file))
        except ProjError as error:
            raise MissingCapability(f"vertical grid {grid_file} can't be read by PROJ: {error}") from error

    def transform(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            if vertical is None:
                lon, lat, height = horizontal.transform(x, y, z, errcheck=True)
            else:
                lon, lat = horizontal.transform(x, y, errcheck=True)
                lon, lat, height = vertical.transform(lon, lat, z, errcheck=True)
        except ProjError as error:
            raise MissingCapability(
                f"{grid_file or crs}: no height there ({error}); accepted: a grid that covers the city"
            ) from error
        if not np.isfinite(height).all():
            raise MissingCapability(f"{grid_file or crs}: no height there; the vertical grid must cover the city")
        return lon, lat, height

    return transform
