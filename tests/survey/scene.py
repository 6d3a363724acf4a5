"""Hills with a pattern, photographed by cameras whose RPCs may point wrong by a known amount."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from cityweave.cameras import RPC, fit_local, geodetic_transform
from cityweave.grid import Box
from tests import pictures

BOX = Box(315392, 4161536, 315648, 4161792)
MARGIN_M, GSD_M = 40.0, 0.5
HEIGHTS_M = (520.0, 620.0)
TO_GEODETIC = geodetic_transform(pictures.CRS, None)


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """550 to 575 m, with slopes up to a fifth."""
    a, b = x - BOX.xmin, y - BOX.ymin
    return pictures.GROUND_M + 12.5 + 8 * np.sin(a / 47 + b / 90) + 4 * np.cos(b / 31 - a / 70)


class Pattern:
    """Brightness of the ground, 200 to 1000, unlike itself everywhere."""

    def __init__(self, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        side = int(BOX.width + 2 * MARGIN_M + 60)
        layers = [ndimage.gaussian_filter(rng.normal(size=(side, side)), sigma) * sigma for sigma in (1.2, 3.0, 7.0)]
        self.values = 600 + 400 * np.tanh(2.0 * sum(layers))
        self.corner = (BOX.xmin - MARGIN_M - 30, BOX.ymin - MARGIN_M - 30)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        at = [y - self.corner[1], x - self.corner[0]]
        out: np.ndarray = ndimage.map_coordinates(self.values, at, order=3, mode="nearest")
        return out


@dataclass(frozen=True)
class Shot:
    """`lean`: metres east and north of the ray per metre up. `off_px`: how far right and down the RPC points wrong."""

    name: str
    lean: tuple[float, float]
    off_px: tuple[float, float] = (0.0, 0.0)
    bent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # the same, growing from the image's middle
    alter: Callable[[np.ndarray], np.ndarray] | None = None  # of the picture
    extra: Mapping[str, Any] = field(default_factory=dict)  # keys of its source


STEREO = (Shot("a", (0.0, 0.1)), Shot("b", (-0.3, 0.05)))


def photograph(shot: Shot, pattern: Pattern) -> tuple[np.ndarray, RPC]:
    rpc, size = pictures.view_rpc(BOX, GSD_M, shot.lean, MARGIN_M)
    u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    p, q = u - size[0] / 2, v - size[1] / 2
    a, b, c, d = shot.bent
    u, v = u + a * p + b * q, v + c * p + d * q  # small: the way back is its negative
    wide = BOX.grow(MARGIN_M)
    x0, y0 = wide.xmin + u * GSD_M, wide.ymax - v * GSD_M
    x, y = x0, y0
    for _ in range(12):
        up = height(x, y) - pictures.GROUND_M
        x, y = x0 + shot.lean[0] * up, y0 + shot.lean[1] * up
    rng = np.random.default_rng(sum(map(ord, shot.name)))
    image = np.rint(pattern(x, y) + rng.normal(0, 4, x.shape))
    if shot.alter is not None:
        image = shot.alter(image)
    return np.clip(image, 1, 4095).astype(np.uint16), rpc.shifted(-shot.off_px[0], -shot.off_px[1])


def write(folder: Path, shots: Sequence[Shot], **pointing: Any) -> dict[str, Any]:
    """The images and a configuration as plain values."""
    pattern, views = Pattern(), []
    for shot in shots:
        path = pictures.write_view(folder / f"{shot.name}.tif", *photograph(shot, pattern))
        views.append({"name": shot.name, "path": str(path), **shot.extra})
    return {
        "city": {
            "name": "hills",
            "crs": pictures.CRS,
            "vertical": "ellipsoid",
            "bounds_m": list(BOX.as_tuple()),
            "heights_m": list(HEIGHTS_M),
            "max_building_m": 20.0,
        },
        "tiles": {"size_m": 128},
        "sources": {"views": views},
        "survey": {"pointing": pointing},
    }


def left_px(shots: Sequence[Shot], facts: Mapping[str, Any]) -> np.ndarray:
    """(views, 2): pointing errors after the correction, but for what a move of all ground would explain."""
    slopes, off = [], []
    for shot, view in zip(shots, facts["views"], strict=True):
        rpc, _ = pictures.view_rpc(BOX, GSD_M, shot.lean, MARGIN_M)
        camera = fit_local(rpc, TO_GEODETIC, BOX, HEIGHTS_M, (0.0, 0.0, 0.0))
        slopes.append(camera.coefficients[:, 1:4] / camera.scale)
        found = view.get("pointing", {"du_px": 0.0, "dv_px": 0.0})
        off.append(np.array([found["du_px"], found["dv_px"]]) + shot.off_px)
    matrix, values = np.vstack(slopes), np.concatenate(off)
    move, *_ = np.linalg.lstsq(matrix, values, rcond=None)
    return (values - matrix @ move).reshape(-1, 2)
