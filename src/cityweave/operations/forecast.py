"""What a city will take, before anything is submitted: recorded costs, scaled by the work that each kind of job does.

Work is counted from the configuration: pixels, cells, heights, views. The unit doesn't matter, since only the ratio to
the recorded run counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

from cityweave.config import Config, ViewSource
from cityweave.grid import DIVISIONS
from cityweave.operations.costs import KINDS, PER_UNIT_INODES, TILE_KINDS, CostTable, is_needed, manifest_of
from cityweave.plan import city_tiles, dsm_box, halos_m, ingest_halo_m
from cityweave.profiles import Profile, Requests

SLURM_START_S = 10.0  # until a job works, beside its own start-up: queue, allocation, the workflow's start on the node
_IMPORTS_MB = 120.0  # memory of a job that holds no data yet
_RELIEF_M = 10.0  # height that a fine sweep spans beyond its margins, in a city
_EXTRAPOLATED = 4.0  # work of a unit this many times the recorded one, or this small a part of it: said
_METADATA_INODES = 1  # the workflow's own note on every manifest
_LOG_INODES = 2  # a job's log and benchmark


@dataclass(frozen=True)
class KindForecast:
    kind: str
    units: int
    jobs: int
    job_s: float  # wall of one job, start-up included
    cpu_h: float
    gpu_h: float  # held, start-up included
    peak_mb: float
    bytes: int
    inodes: int
    times_recorded: float  # work of a unit against that of the recorded one
    remark: str = ""


@dataclass(frozen=True)
class Forecast:
    city: str
    tiles: int
    km2: float
    slots: int
    wall_h: float
    overhead_share: float
    kinds: tuple[KindForecast, ...]
    basis: tuple[str, ...]

    def total(self, name: str) -> float:
        return float(sum(getattr(kind, name) for kind in self.kinds))

    def as_json(self) -> str:
        names = ("jobs", "cpu_h", "gpu_h", "bytes", "inodes")
        return json.dumps(asdict(self) | {"totals": {name: self.total(name) for name in names}}, indent=1)

    def as_text(self) -> str:
        head = ("stage", "jobs", "s/job", "CPU h", "GPU h", "peak MB", "GB", "inodes")
        lines = [f"{self.city}: {self.tiles} tiles, {self.km2:.2f} km2"]
        lines.append(f"{head[0]:14}" + "".join(f"{name:>10}" for name in head[1:]))
        for kind in self.kinds:
            figures: tuple[str, ...] = (f"{kind.jobs}", f"{kind.job_s:.1f}", f"{kind.cpu_h:.3f}", f"{kind.gpu_h:.3f}")
            figures += (f"{kind.peak_mb:.0f}", f"{kind.bytes / 1e9:.3f}", f"{kind.inodes}")
            lines.append(f"{kind.kind:14}" + "".join(f"{figure:>10}" for figure in figures))
        peak = max(kind.peak_mb for kind in self.kinds)
        figures = (f"{self.total('jobs'):.0f}", "", f"{self.total('cpu_h'):.3f}", f"{self.total('gpu_h'):.3f}")
        figures += (f"{peak:.0f}", f"{self.total('bytes') / 1e9:.3f}", f"{self.total('inodes'):.0f}")
        lines.append(f"{'all':14}" + "".join(f"{figure:>10}" for figure in figures))
        lines.append(
            f"time: {_duration(self.wall_h)} with {self.slots} jobs at once, all granted at once; "
            f"{self.overhead_share:.0%} of it is start-up"
        )
        lines += [f"! {kind.kind}: {kind.remark}" for kind in self.kinds if kind.remark]
        return "\n".join([*lines, *(f"- {line}" for line in self.basis)])


def _duration(hours: float) -> str:
    return f"{hours * 60:.1f} min" if hours < 2 else f"{hours:.1f} h"


def forecast(
    config: Config,
    table: CostTable,
    profile: Profile | None = None,
    *,
    slots: int | None = None,
    start_s: float | None = None,
) -> Forecast:
    slurm = profile is not None and profile.slurm
    slots = slots or (profile.jobs if profile else None) or os.cpu_count() or 1
    start = table.start_s + (SLURM_START_S if slurm else 0.0) if start_s is None else start_s
    kinds = tuple(
        _kind_forecast(kind, config, table, profile.requests(_rule(kind, config)) if profile else None, start)
        for kind in KINDS
        if kind in table.kinds and is_needed(kind, config)
    )
    wall_s = sum(math.ceil(kind.jobs / slots) * kind.job_s for kind in kinds)
    if profile and profile.jobs_per_minute:
        wall_s = max(wall_s, sum(kind.jobs for kind in kinds) / profile.jobs_per_minute * 60)
    busy_s = sum(kind.jobs * kind.job_s for kind in kinds)
    tiles = city_tiles(config)
    return Forecast(
        config.city.name,
        len(tiles),
        sum(tile.core.width * tile.core.height for tile in tiles) / 1e6,
        slots,
        wall_s / 3600,
        sum(kind.jobs for kind in kinds) * start / busy_s if busy_s else 0.0,
        kinds,
        _basis(config, table, profile, start, kinds),
    )


def _basis(
    config: Config, table: CostTable, profile: Profile | None, start: float, kinds: tuple[KindForecast, ...]
) -> tuple[str, ...]:
    lines = [
        f"from {table.source}; scaled by pixels, cells, heights and views of the two configurations",
        f"every job costs {start:.1f} s before it works; time waiting in a queue isn't in it",
    ]
    if table.config.synth is not None:
        lines.append("recorded on a synthetic city: real pictures differ in relief and clouds, expect a factor of 2")
    if small := [kind.kind for kind in kinds if kind.times_recorded < 1 / _EXTRAPOLATED]:
        lines.append(f"far less work than recorded, so what doesn't shrink with it is missed: {', '.join(small)}")
    missing = [kind for kind in KINDS if kind not in table.kinds and kind != "synth" and is_needed(kind, config)]
    if missing:
        lines.append(f"not in the records, so not counted: {', '.join(missing)}")
    if profile is not None and not any(cost.gpu_s for cost in table.kinds.values()):
        lines.append("recorded without a GPU: GPU-hours are what jobs hold at the speed of the recorded processor")
    return tuple(lines)


def _rule(kind: str, config: Config) -> str:
    if kind == "fit" and not config.workflow.pack.divisions:
        return "fit_division"
    return "fuse" if kind == "fuse" else manifest_of(kind, config)


def _jobs(kind: str, units: int, config: Config) -> int:
    pack = config.workflow.pack
    if kind not in TILE_KINDS:
        return 1
    if kind == "fit":
        return units if not pack.divisions else math.ceil(units / len(DIVISIONS) / pack.tiles)
    return math.ceil(units / pack.tiles)


def _kind_forecast(kind: str, config: Config, table: CostTable, asked: Requests | None, start_s: float) -> KindForecast:
    recorded = table.kinds[kind]
    tiles = len(city_tiles(config))
    of_a_tile = {"fit": len(DIVISIONS), "texture": 1 + 2 * config.texture.refine.rounds}
    units = tiles * of_a_tile.get(kind, 1) if kind in TILE_KINDS else 1
    ratio = work(kind, config) / work(kind, table.config)
    jobs = _jobs(kind, units, config)
    work_s = recorded.work_s / recorded.units * ratio * units
    at_once = min(config.workflow.pack.at_once, math.ceil(units / jobs)) if kind in ("ingest", "dsm") else 1
    job_s = work_s / jobs / at_once + start_s
    unit_mb = max(0.0, recorded.peak_rss_mb - _IMPORTS_MB) * memory_ratio(kind, config, table.config)
    peak_mb = _IMPORTS_MB + unit_mb * at_once
    inodes = (recorded.inodes / recorded.units - PER_UNIT_INODES) * inode_ratio(kind, config, table.config)
    inodes += PER_UNIT_INODES + _METADATA_INODES
    remark = _remark(kind, ratio, peak_mb, job_s, asked)
    return KindForecast(
        kind,
        units,
        jobs,
        job_s,
        (recorded.cpu_s / recorded.units * ratio * units + jobs * start_s) / 3600,
        jobs * job_s * (asked.gpus if asked else 0) / 3600,
        peak_mb,
        round(recorded.bytes / recorded.units * ratio_of_bytes(kind, config, table.config) * units),
        round(inodes * units) + _LOG_INODES * jobs,
        ratio,
        remark,
    )


def _remark(kind: str, ratio: float, peak_mb: float, job_s: float, asked: Requests | None) -> str:
    remarks = []
    if ratio > _EXTRAPOLATED:
        pilot = "try one tile first" if kind in TILE_KINDS else "plan from a larger run to know better"
        remarks.append(f"{ratio:.0f} times the recorded work of a unit: extrapolated, {pilot}")
    if asked and asked.mem_mb and peak_mb > asked.mem_mb:
        remarks.append(f"asks for {asked.mem_mb:.0f} MB, {peak_mb:.0f} MB are expected")
    if asked and asked.runtime_min and job_s / 60 > asked.runtime_min:
        remarks.append(f"asks for {asked.runtime_min:.0f} min, {job_s / 60:.0f} min are expected")
    return "; ".join(remarks)


# Work of one unit, by kind.


def work(kind: str, config: Config) -> float:
    return _WORK[kind](config)


def memory_ratio(kind: str, config: Config, recorded: Config) -> float:
    """City-wide jobs stream or hold one view; a tile's hold what they work on."""
    if kind == "dsm":
        return _dsm_bytes(config) / _dsm_bytes(recorded)
    if kind == "cityscale":  # one window after the other
        return (config.cityscale.window_m / recorded.cityscale.window_m) ** 2
    ratio = work(kind, config) / work(kind, recorded)
    return ratio if kind in TILE_KINDS else min(4.0, max(1.0, ratio))


def ratio_of_bytes(kind: str, config: Config, recorded: Config) -> float:
    if kind == "dsm":
        return _cells(config) / _cells(recorded)
    if kind == "fit":
        return nodes_of(config) / nodes_of(recorded)
    if kind == "texture":
        return texels_of(config) / texels_of(recorded)
    if kind in ("survey", "report", "evaluate"):
        return 1.0 if kind == "report" else city_cells(config) / city_cells(recorded)
    return work(kind, config) / work(kind, recorded)


def inode_ratio(kind: str, config: Config, recorded: Config) -> float:
    """Arrays of an AOI by views, shards and files of the city's products by tiles."""
    if kind == "ingest":
        return (3 + views_of(config)[0]) / (3 + views_of(recorded)[0])
    if kind in ("merge_heights", "merge_city"):
        return max(1.0, len(city_tiles(config)) / len(city_tiles(recorded)))
    return 1.0


def views_of(config: Config) -> tuple[int, float]:
    """How many, and their pixel in metres."""
    if config.synth is not None:
        return len(config.synth.views), config.synth.gsd_m
    sizes = [_pixel_m(view, config.city.crs, config.city.box.as_tuple()) for view in config.sources.views]
    return len(sizes), sum(sizes) / len(sizes)


@cache
def _pixel_m(view: ViewSource, crs: str, box: tuple[float, float, float, float]) -> float:
    """From the camera of a real view: how far two points of the ground are apart in the picture."""
    import numpy as np

    from cityweave.cameras import geodetic_transform
    from cityweave.io.raster import open_raster
    from cityweave.io.satellite import read_rpc

    with open_raster(view.path) as dataset:
        rpc = read_rpc(dataset, view)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    xs, ys = np.array([x, x + 100, x]), np.array([y, y, y + 100])
    u, v = rpc.project(*geodetic_transform(crs, None)(xs, ys, np.full(3, rpc.height_off)))
    area_px = abs((u[1] - u[0]) * (v[2] - v[0]) - (u[2] - u[0]) * (v[1] - v[0]))
    return float(100.0 / math.sqrt(area_px))


def area_m2(config: Config) -> float:
    return sum(tile.core.width * tile.core.height for tile in city_tiles(config))


def city_cells(config: Config) -> float:
    return area_m2(config) / config.dsm.gsd_m**2


def _cells(config: Config) -> float:
    """Of a tile's height model."""
    return (dsm_box(config, city_tiles(config)[0]).width / config.dsm.gsd_m) ** 2


def matched_m2(config: Config, halo: str = "dsm") -> float:
    """Ground of a tile that is matched finely, in m2."""
    return (config.tiles.size_m + 2 * halos_m(config)[halo]) ** 2


def fine_entries(config: Config) -> float:
    """(cell, height) pairs of a tile's fine sweep."""
    return matched_m2(config) * (2 * config.dsm.range_margin_m + _RELIEF_M) / config.dsm.step_m / config.dsm.gsd_m**2


def coarse_entries(config: Config) -> float:
    """The same of the coarse sweep, which also looks for what hides the tile."""
    low, high = config.city.heights_m
    return matched_m2(config, "dsm's occluders") * (high - low) / config.dsm.coarse_step_m / config.dsm.coarse_gsd_m**2


def _dsm_bytes(config: Config) -> float:
    """Memory of a tile's matching: a census word for every upsampled pixel of every view, costs of the larger sweep."""
    views, pixel_m = views_of(config)
    census = 8 * views * (config.dsm.upsample / pixel_m) ** 2
    return matched_m2(config) * census + 4 * max(coarse_entries(config), fine_entries(config))


def _dsm(config: Config) -> float:
    """Entries of all sweeps times what one costs: paths, a look into every view, every pair against the best ones."""
    dsm, (views, pixel_m) = config.dsm, views_of(config)
    pairs = views * (views - 1) / 2
    entry = 30 + 3 * views + pairs * math.ceil(pairs * dsm.pair_share) / 15
    rounds = 1 + (dsm.visibility_rounds if views > 2 else 0)
    census = 60 * views * (dsm.upsample / pixel_m) ** 2
    return entry * (coarse_entries(config) + rounds * fine_entries(config)) + matched_m2(config) * census


def predicted_windows(config: Config) -> float:
    """Of a tile, and how often each is predicted; beyond the city's rim there are a few more."""
    beside_m = config.cityscale.window_m / 2
    return (config.tiles.size_m / beside_m + 1) ** 2 * beside_m**2 * config.cityscale.samples


def nodes_of(config: Config) -> float:
    """Of a division with its halo."""
    pitch = config.geometry.pitch_m
    return (config.tiles.size_m / 2 / pitch + 2 * (config.geometry.blend_m / pitch + 4)) ** 2


def _fit(config: Config) -> float:
    return nodes_of(config) * (config.geometry.pitch_m / config.dsm.gsd_m) ** 2 * config.geometry.steps


def lattice_points(config: Config) -> float:
    return (config.tiles.size_m / config.geometry.resolution_m) ** 2


def texels_of(config: Config) -> float:
    return (config.tiles.size_m / config.texture.top_texel_m) ** 2


def _texture(config: Config) -> float:
    return texels_of(config) * min(views_of(config)[0], config.texture.max_views)


def ingested_pixels(config: Config) -> float:
    views, pixel_m = views_of(config)
    ground = (config.tiles.size_m + 2 * ingest_halo_m(config)) ** 2
    return ground * (views / pixel_m**2 + 2 / config.dsm.gsd_m**2)


def picture_pixels(config: Config) -> float:
    """Pixels of all views."""
    views, pixel_m = views_of(config)
    margin = 2 * (config.synth.margin_m if config.synth else 0.0)
    box = config.city.box
    return (box.width + margin) * (box.height + margin) * views / pixel_m**2


def _synth(config: Config) -> float:
    return picture_pixels(config) * (config.synth.supersample**2 if config.synth else 0)


def _evaluate(config: Config) -> float:
    return city_cells(config) + area_m2(config) * config.evaluate.points_per_m2


_WORK: dict[str, Callable[[Config], float]] = {
    "synth": _synth,
    "survey": picture_pixels,
    "ingest": ingested_pixels,
    "cityscale": predicted_windows,
    "dsm": _dsm,
    "fuse": _cells,
    "fit": _fit,
    "mesh": lattice_points,
    "texture": _texture,
    "merge_heights": city_cells,
    "merge_city": lambda config: lattice_points(config) * len(city_tiles(config)),
    "evaluate": _evaluate,
    "report": lambda config: 1.0,
}
