"""Novel views: where cameras stand that no satellite took, and the restored pictures they give.

A view is a node of a city-wide grid of aim points and a heading. The tile whose core holds the aim point owns it. What
lies farther than the reach from the aim point is masked, so that a tile's texture follows from the views of the tiles
within that reach, and neighbours read the same pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityweave.cameras import Pinhole
from cityweave.config import RefineConfig
from cityweave.grid import Box, Tile
from cityweave.io.textures import load_png, save_png

INDEX = "views.json"
_AROUND_M = 30.0  # how far around an aim point its ground is looked for


@dataclass(frozen=True)
class NovelView:
    """`camera` in metres of the city's CRS and height; `picture` uint8 [h, w, 3]; `known` bool [h, w], what counts."""

    name: str
    aim_m: tuple[float, float]
    camera: Pinhole
    picture: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Aim:
    """A place to look at from one side."""

    name: str
    x_m: float
    y_m: float
    heading_deg: float


def aims_of(tile: Tile, refine: RefineConfig) -> list[Aim]:
    """Those whose point lies in the tile, by nodes of the grid, row by row from the south-west."""
    step, found = refine.spacing_m, []
    for place, heading in enumerate(refine.headings_deg):
        ahead = _back_m(refine) if refine.grid == "cameras" else 0.0
        east, north = ahead * math.sin(math.radians(heading)), ahead * math.cos(math.radians(heading))
        core = Box(tile.core.xmin - east, tile.core.ymin - north, tile.core.xmax - east, tile.core.ymax - north)
        for j in range(math.ceil(core.ymin / step), math.ceil(core.ymax / step)):
            for i in range(math.ceil(core.xmin / step), math.ceil(core.xmax / step)):
                found.append((j, i, place, Aim(f"{i}_{j}_{heading:03.0f}", i * step + east, j * step + north, heading)))
    return [aim for *_, aim in sorted(found, key=lambda each: each[:3])]


def _back_m(refine: RefineConfig) -> float:
    """How far a camera stands from the point it aims at, in plan."""
    return refine.height_m / math.tan(math.radians(refine.pitch_deg))


def camera_of(aim: Aim, ground_m: float, refine: RefineConfig) -> Pinhole:
    """Aimed at the ground of its point; the reach fills the picture's width."""
    heading, back = math.radians(aim.heading_deg), _back_m(refine)
    target = np.array([aim.x_m, aim.y_m, ground_m])
    position = target + np.array([-math.sin(heading) * back, -math.cos(heading) * back, refine.height_m])
    away = math.hypot(back, refine.height_m)
    fov_deg = 2 * math.degrees(math.atan(refine.reach_m / away))
    return Pinhole.look_at(position, target, fov_deg, refine.size_px, refine.size_px)


def ground_below(aim: Aim, world: np.ndarray) -> float:
    """Lowest height of the surface's vertices (n, 3) around the point, on whole metres; the nearest one's without."""
    away = np.hypot(world[:, 0] - aim.x_m, world[:, 1] - aim.y_m)
    near = world[away <= _AROUND_M, 2]
    return float(np.floor(near.min() if near.size else world[away.argmin(), 2]))


def within_reach(camera: Pinhole, depth_m: np.ndarray, aim_m: tuple[float, float], reach_m: float) -> np.ndarray:
    """bool [h, w]: pixels that show something at most so far, in plan, from the point aimed at."""
    rows, cols = depth_m.shape
    x = (np.arange(cols) + 0.5 - camera.cx) / camera.focal_px
    y = (np.arange(rows) + 0.5 - camera.cy) / camera.focal_px
    turned = camera.rotation
    with np.errstate(invalid="ignore", over="ignore"):
        east, north = (
            camera.position[k]
            - aim_m[k]
            + depth_m * (x[None, :] * turned[0, k] + y[:, None] * turned[1, k] + turned[2, k])
            for k in range(2)
        )
        return np.asarray(np.isfinite(depth_m) & (east**2 + north**2 <= reach_m**2))


def save_views(folder: Path, views: Sequence[NovelView]) -> None:
    """One PNG a view, transparent where it doesn't count, and the cameras."""
    folder.mkdir(parents=True, exist_ok=True)
    cards = []
    for view in views:
        alpha = np.where(view.known, 255, 0).astype(np.uint8)
        save_png(folder / f"{view.name}.png", np.dstack([view.picture, alpha]))
        camera = view.camera
        cards.append(
            {
                "name": view.name,
                "aim_m": list(view.aim_m),
                "position": camera.position.tolist(),
                "rotation": camera.rotation.tolist(),
                "focal_px": camera.focal_px,
            }
        )
    (folder / INDEX).write_text(json.dumps(cards, indent=1) + "\n")


def load_views(folder: Path) -> list[NovelView]:
    views = []
    for card in json.loads((folder / INDEX).read_text()):
        pixels = load_png(folder / f"{card['name']}.png")
        rows, cols = pixels.shape[:2]
        camera = Pinhole(
            np.array(card["position"]), np.array(card["rotation"]), card["focal_px"], cols / 2, rows / 2, cols, rows
        )
        aim = (card["aim_m"][0], card["aim_m"][1])
        views.append(NovelView(card["name"], aim, camera, np.ascontiguousarray(pixels[..., :3]), pixels[..., 3] > 0))
    return views
