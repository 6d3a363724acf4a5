"""A synthetic city as an orthophoto and true heights, without the satellite views: a second instead of a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cityweave.config import SynthConfig
from cityweave.grid import Box, CellGrid
from cityweave.synth import sensor, views
from cityweave.synth.city import build_city
from cityweave.synth.layout import Layout
from cityweave.synth.loaded import build_loaded
from cityweave.synth.noise import CODE_AERIAL, generator
from cityweave.synth.scene import Scene
from cityweave.synth.shading import Sun, prepare, sun_map
from cityweave.synth.truth import true_heights

CORNER_M = (500_000.0, 4_000_000.0)  # south-west corner of the ground that is shown
EDGE_M = 24.0  # built beyond it: bodies at the rim are left out whole, and shadows come from outside
GROUND_M = 100.0


@dataclass(frozen=True)
class AerialLook:
    """How a city is built and photographed."""

    style: str = "mixed"
    sun_azimuth_deg: float = 140.0
    sun_elevation_deg: float = 50.0
    off_nadir_deg: float = 0.0  # 0: a true orthophoto; else roofs lean, as in most
    lean_azimuth_deg: float = 0.0  # where they lean to
    gain: float = 1.0
    noise_dn: float = 2.0
    relief_m: float = 14.0
    max_height_m: float = 80.0
    supersample: int = 2
    blur_px: float = 0.42


@dataclass(frozen=True)
class Aerial:
    grid: CellGrid
    rgb: NDArray[np.uint8]  # (band, y, x), 0 where nothing is seen
    seen: NDArray[np.bool_]
    dsm: NDArray[np.float32]
    dtm: NDArray[np.float32]


def aerial_city(seed: int, side_m: float, gsd_m: float, look: AerialLook) -> Aerial:
    x, y = CORNER_M
    shown = Box(x, y, x + side_m, y + side_m)
    built = shown.grow(EDGE_M)
    origin = (built.xmin, built.ymin, GROUND_M)
    layout = Layout(seed, GROUND_M, look.relief_m, look.style)
    return photographed(build_city(built, origin, layout, look.max_height_m), shown, seed, gsd_m, look)


def aerial_model(model: Path, crs: str, shown: Box, seed: int, gsd_m: float, look: AerialLook) -> Aerial:
    """The same of a city model in a file: real buildings, procedural walls, roofs and ground."""
    built = shown.grow(EDGE_M)
    origin = (built.xmin, built.ymin, GROUND_M)
    scene = build_loaded(SynthConfig(model=model), built, origin, seed, crs)
    return photographed(scene, shown, seed, gsd_m, look)


def photographed(scene: Scene, shown: Box, seed: int, gsd_m: float, look: AerialLook) -> Aerial:
    shaded = prepare(scene, seed)
    light = sun_map(scene, Sun(look.sun_azimuth_deg, look.sun_elevation_deg))
    grid = CellGrid.covering(shown, gsd_m)
    screen = _leaning_plan(scene, grid, look) * look.supersample
    radiance = views.from_above(shaded, light, screen, grid.cols, grid.rows, look.supersample, look.blur_px)
    seen: NDArray[np.bool_] = np.isfinite(radiance[..., 0])
    dn = sensor.digitise(radiance, look.gain, 0.0, look.noise_dn, generator(seed, CODE_AERIAL))
    grey = np.clip(np.rint(dn / sensor.DN_PER_GREY), 0, 255).astype(np.uint8)
    heights = true_heights(scene, grid)
    return Aerial(grid, np.ascontiguousarray(np.moveaxis(grey, -1, 0)), seen, heights.dsm, heights.dtm)


def _leaning_plan(scene: Scene, grid: CellGrid, look: AerialLook) -> NDArray[np.float64]:
    """Columns and rows of the vertices in an orthophoto that was laid on the ground: what stands up is displaced by
    its height above it, away from the camera. Along a line of sight higher is still nearer."""
    x, y, z = scene.vertices.T
    lean = (z - scene.ground(x, y)) * np.tan(np.radians(look.off_nadir_deg))
    azimuth = np.radians(look.lean_azimuth_deg)
    east = x + lean * np.sin(azimuth) + scene.origin_m[0]
    north = y + lean * np.cos(azimuth) + scene.origin_m[1]
    return np.stack([(east - grid.box.xmin) / grid.gsd_m, (grid.box.ymax - north) / grid.gsd_m], axis=1)
