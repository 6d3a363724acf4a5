"""How much work a job of a stage has at least, and how long that takes at what was measured of the machine.

Floors leave out everything that cleverness could: imports, decoding, compression, what is computed twice. Counted is
what the method itself must move and must compute, once. No program reaches them; the ratio says where to look.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cityweave.config import Config
from cityweave.grid import DIVISIONS
from cityweave.operations.costs import TILE_KINDS
from cityweave.operations.forecast import (
    area_m2,
    city_cells,
    coarse_entries,
    fine_entries,
    ingested_pixels,
    lattice_points,
    matched_m2,
    nodes_of,
    picture_pixels,
    texels_of,
    views_of,
)
from cityweave.plan import city_tiles

_PIXEL_B = 6  # three bands of 16 bit
_HEIGHTS_B = 14  # a cell's layers: three float32, two uint8
_TRIANGLE_B = 36


@dataclass(frozen=True)
class Work:
    """Of one job: bytes read and written at least once, operations by the rate that they run at."""

    bytes: float
    operations: dict[str, float] = field(default_factory=dict)


def pixels_and_km2(kind: str, config: Config) -> tuple[float, float]:
    """Source pixels on the ground that one job is about, halo left out, and that ground."""
    views, pixel_m = views_of(config)
    ground_m2 = float(config.tiles.size_m**2) if kind in TILE_KINDS else area_m2(config)
    return round(ground_m2 * views / pixel_m**2), ground_m2 / 1e6


def physical_floor(
    kind: str, config: Config, rates: dict[str, Any], steps: Sequence[float] = ()
) -> dict[str, Any] | None:
    """None for what has none, such as a page of HTML. Moving and computing can go on at the same time."""
    count = _WORK.get(kind)
    if count is None:
        return None
    work = count(config, statistics.mean(steps) if steps else float(config.geometry.steps))
    known = "copy_gb_s" in rates and all(name in rates for name in work.operations)
    seconds = None
    if known:
        moving = work.bytes / rates["copy_gb_s"] / 1e9
        computing = sum(count / rates[name] / 1e9 for name, count in work.operations.items())
        seconds = float(f"{max(moving, computing):.3g}")
    return {
        "bytes": round(work.bytes),
        "operations": {k: round(v) for k, v in work.operations.items()},
        "seconds": seconds,
    }


def _synth(config: Config, _: float) -> Work:
    samples = picture_pixels(config) * (config.synth.supersample**2 if config.synth else 0)
    return Work(2 * 12 * samples + _PIXEL_B * picture_pixels(config))  # radiance written, read, digitised


def _dsm(config: Config, _: float) -> Work:
    dsm, (views, pixel_m) = config.dsm, views_of(config)
    rounds = 1 + (dsm.visibility_rounds if views > 2 else 0)
    entries = coarse_entries(config) + rounds * fine_entries(config)
    census = matched_m2(config) * views * (dsm.upsample / pixel_m) ** 2
    return Work(
        2 * 8 * census + 2 * (1 + 2) * entries,  # words; cost and sum of the paths, each written and read
        {"popcount_gop_s": entries * views * (views - 1) / 2, "int16_gop_s": entries * 8 * 5},
    )


def _fit(config: Config, steps: float) -> Work:
    pixels = len(DIVISIONS) * nodes_of(config) * (config.geometry.pitch_m / config.dsm.gsd_m) ** 2
    # Root and gradient of nine terms where the field is flat; walls cost several times that.
    return Work(12 * pixels * steps, {"float32_gop_s": 36 * pixels * steps})


def _mesh(config: Config, _: float) -> Work:
    points, levels = lattice_points(config), len(config.geometry.level_errors_m)
    return Work(points * (8 + _TRIANGLE_B * levels), {"float32_gop_s": 36 * points})


def _texture(config: Config, _: float) -> Work:
    views = min(views_of(config)[0], config.texture.max_views)
    looks = texels_of(config) * views  # roofs and ground only
    return Work(looks * (_PIXEL_B + 4) + 4 * texels_of(config), {"float32_gop_s": 64 * looks})  # depth; camera, 4 taps


def _merge_city(config: Config, _: float) -> Work:
    tiles = len(city_tiles(config))
    return Work(tiles * (2 * _TRIANGLE_B * lattice_points(config) + 6 * texels_of(config)))


def _evaluate(config: Config, _: float) -> Work:
    points = 2 * area_m2(config) * config.evaluate.points_per_m2
    pictures = 0.0
    if config.synth is not None:
        pictures = len(config.synth.test_heights_m) * len(config.synth.test_headings_deg) * config.synth.test_size_px**2
    return Work(8 * city_cells(config) + 12 * points + 6 * pictures, {"float32_gop_s": 50 * points})


_WORK: dict[str, Callable[[Config, float], Work]] = {
    "synth": _synth,
    "survey": lambda config, _: Work(_PIXEL_B * picture_pixels(config)),
    "ingest": lambda config, _: Work(2 * _PIXEL_B * ingested_pixels(config)),
    "dsm": _dsm,
    "fit": _fit,
    "mesh": _mesh,
    "texture": _texture,
    "merge_heights": lambda config, _: Work((2 * _HEIGHTS_B + 8) * city_cells(config)),  # Zarr and two rasters
    "merge_city": _merge_city,
    "evaluate": _evaluate,
}
