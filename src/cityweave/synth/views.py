"""Pictures of a scene: satellite views, plans from above, and perspective views, all by the same light and shader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cityweave.cameras import RPC, Pinhole
from cityweave.grid import Box, CellGrid
from cityweave.render.rasterise import rasterise_pinhole
from cityweave.synth.cameras import Pushbroom, ecef_of, fit_rpc
from cityweave.synth.scene import Scene
from cityweave.synth.sensor import downsample
from cityweave.synth.shading import Shaded, SunMap, band_fragments, face_reach, shade, turned

BAND_LINES = 192  # output lines rendered at once
NEAR_M = 2.0


@dataclass(frozen=True)
class Placed:
    """A satellite view: its camera, the RPC fitted to it, its size."""

    camera: Pushbroom
    rpc: RPC
    rpc_error_px: float
    width: int
    height: int


def ecef_vertices(scene: Scene, to_geodetic) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    p = scene.vertices + np.array(scene.origin_m)
    return ecef_of(*to_geodetic(p[:, 0], p[:, 1], p[:, 2]))


def place(camera: Pushbroom, box: Box, heights_m: tuple[float, float], to_geodetic) -> Placed:  # type: ignore[no-untyped-def]
    """Count the image's pixels from the corner of what it shows of the box's ground, and fit the RPC."""
    x = np.array([box.xmin, box.xmax, box.xmax, box.xmin])
    y = np.array([box.ymin, box.ymin, box.ymax, box.ymax])
    u, v = camera.project(ecef_of(*to_geodetic(x, y, np.full(4, heights_m[0]))))
    left, top = np.floor(u.min()), np.floor(v.min())
    width, height = int(np.ceil(u.max() - left)), int(np.ceil(v.max() - top))
    moved = Pushbroom(
        camera.position,
        camera.axis,
        camera.turn_per_line,
        camera.aim,
        camera.step,
        camera.focal_px,
        camera.u0 - left,
        camera.v0 - top,
    )
    corners = [to_geodetic(x, y, np.full(4, h)) for h in heights_m]
    stacked = np.concatenate([np.stack(c, axis=1) for c in corners])
    low, high = stacked.min(axis=0), stacked.max(axis=0)
    pad = np.array([1e-4, 1e-4, 5.0])
    rpc, error = fit_rpc(moved.project, low - pad, high + pad)
    return Placed(moved, rpc, error, width, height)


def satellite_radiance(
    shaded: Shaded, light: SunMap, placed: Placed, ecef: NDArray[np.float64], supersample: int, blur_px: float
) -> NDArray[np.float32]:
    """[height, width, 3], NaN where the scene ends. Depth is the height: along one line of sight higher is nearer."""
    u, v = placed.camera.project(ecef)
    screen = np.stack([u, v], axis=1) * supersample
    return from_above(shaded, light, screen, placed.width, placed.height, supersample, blur_px)


def plan_radiance(
    shaded: Shaded, light: SunMap, grid: CellGrid, supersample: int, blur_px: float
) -> NDArray[np.float32]:
    """A true orthophoto: every surface straight from above."""
    scene = shaded.scene
    x = (scene.vertices[:, 0] + scene.origin_m[0] - grid.box.xmin) / grid.gsd_m
    y = (grid.box.ymax - scene.vertices[:, 1] - scene.origin_m[1]) / grid.gsd_m
    screen = np.stack([x, y], axis=1) * supersample
    return from_above(shaded, light, screen, grid.cols, grid.rows, supersample, blur_px)


def from_above(
    shaded: Shaded,
    light: SunMap,
    screen: NDArray[np.float64],
    width: int,
    height: int,
    supersample: int,
    blur_px: float,
) -> NDArray[np.float32]:
    """In bands of lines, each with enough of its neighbours for the blur, so memory does not grow with the picture."""
    scene = shaded.scene
    reach = face_reach(screen[:, 1], scene.faces)
    depth = np.ascontiguousarray(scene.vertices[:, 2])
    out = np.empty((height, width, 3), dtype=np.float32)
    pad = 2  # pixels, more than the blur reaches
    for top in range(0, height, BAND_LINES):
        bottom = min(top + BAND_LINES, height)
        first, last = max(top - pad, 0), min(bottom + pad, height)
        seen = band_fragments(
            screen, depth, scene.faces, reach, width * supersample, (first * supersample, last * supersample)
        )
        band = downsample(shade(shaded, light, seen), last - first, width, blur_px, supersample)
        out[top:bottom] = band[top - first : top - first + bottom - top]
    return out


def pinhole_radiance(
    shaded: Shaded, light: SunMap, camera: Pinhole, supersample: int, blur_px: float
) -> NDArray[np.float32]:
    """`camera` in the scene's local frame."""
    scene, s = shaded.scene, supersample
    points = turned(scene.vertices - camera.position, camera.rotation)
    lens = (camera.focal_px * s, camera.cx * s, camera.cy * s)
    seen = rasterise_pinhole(points, scene.faces, *lens, camera.width * s, camera.height * s, NEAR_M)
    return downsample(shade(shaded, light, seen), camera.height, camera.width, blur_px, s)


def sample_bilinear(image: NDArray[np.float32], u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values between pixel centres; NaN outside and wherever a neighbour is NaN."""
    rows, cols = image.shape[:2]
    a, b = u - 0.5, v - 0.5
    i, j = np.floor(a).astype(np.int64), np.floor(b).astype(np.int64)
    inside = (i >= 0) & (j >= 0) & (i + 1 < cols) & (j + 1 < rows)
    i, j = np.where(inside, i, 0), np.where(inside, j, 0)
    s = (a - i)[..., None].astype(np.float32)
    t = (b - j)[..., None].astype(np.float32)
    i1, j1 = np.minimum(i + 1, cols - 1), np.minimum(j + 1, rows - 1)
    out = (image[j, i] * (1 - s) + image[j, i1] * s) * (1 - t) + (image[j1, i] * (1 - s) + image[j1, i1] * s) * t
    out[~inside] = np.nan
    return out  # type: ignore[no-any-return]
