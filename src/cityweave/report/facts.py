"""What the report says about a run: states and costs of tiles and stages, versions, errors beside borders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave import __version__
from cityweave.grid import Tile
from cityweave.manifest import Run
from cityweave.plan import CITY_MANIFESTS, city_cells, city_tiles, tile_manifests
from cityweave.status import tile_entries

STAGE_NAMES = ("synth", "survey", "ingest", "cityscale", "dsm", "fit", "mesh", "texture", "merge", "evaluate")
_PACKAGES = ("numpy", "numba", "scipy", "rasterio", "pyproj", "zarr", "pillow", "pydantic", "snakemake")


@dataclass
class StageCost:
    jobs: int = 0
    work_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    code: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class TileRow:
    tile: Tile
    status: str
    reason: str | None
    work_s: dict[str, float]  # per stage
    peak_rss_mb: float


def _stage_of(manifest: str) -> str:
    if manifest.startswith("sdf_"):
        return "fit"
    if manifest == "stereo":
        return "dsm"
    if manifest.startswith(("texture_", "novel_")):
        return "texture"
    return CITY_MANIFESTS.get(manifest, manifest)


def _records(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    paths = [run.manifest_path(name) for name, stage in CITY_MANIFESTS.items() if stage in STAGE_NAMES]
    paths[0] = run.folder.parent / run.config.city.name / "city" / "synth.json"
    paths += [run.manifest_path(name, tile) for tile in city_tiles(run.config) for name in tile_manifests(run.config)]
    for path in paths:
        record = path.with_name(f"{path.stem}.run.json")
        if record.is_file():
            yield _stage_of(path.stem), json.loads(record.read_text())


def stage_costs(run: Run) -> tuple[dict[str, StageCost], dict[str, list[str]]]:
    """Cost per stage in the order of work, and where it was done: hosts, machines, Python versions."""
    costs = {name: StageCost() for name in STAGE_NAMES}
    places: dict[str, set[str]] = {"host": set(), "machine": set(), "python": set()}
    for stage, record in _records(run):
        entry = costs[stage]
        entry.jobs += 1
        entry.work_s += record["work_s"]
        entry.cpu_s += record["work_cpu_s"]
        entry.peak_rss_mb = max(entry.peak_rss_mb, record["peak_rss_mb"])
        entry.code.add(record["code"])
        for key, values in places.items():
            values.add(str(record[key]))
    return {k: v for k, v in costs.items() if v.jobs}, {k: sorted(v) for k, v in places.items()}


def tile_rows(run: Run) -> list[TileRow]:
    rows: dict[Tile, TileRow] = {}
    for entry in tile_entries(run):
        row = rows.get(entry.tile, TileRow(entry.tile, "done", None, {}, 0.0))
        work = dict(row.work_s)
        stage = _stage_of(entry.name)
        work[stage] = work.get(stage, 0.0) + entry.work_s
        status, reason = row.status, row.reason
        if status == "done" and entry.status != "done":  # the first trouble is the cause of those after it
            status, reason = entry.status, entry.reason or f"{entry.name} is {entry.status}"
        peak = max(row.peak_rss_mb, entry.peak_rss_mb)
        rows[entry.tile] = TileRow(entry.tile, status, reason, work, peak)
    return list(rows.values())


def versions() -> dict[str, str]:
    found = {"cityweave": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_document(run: Run) -> dict[str, Any]:
    """run.json: how and where the city was made. Never the same twice, so no job depends on it."""
    costs, places = stage_costs(run)
    return {
        "city": run.config.city.name,
        "versions": versions(),
        "hosts": places["host"],
        "machines": places["machine"],
        "python": places["python"],
        "stages": {
            name: {
                "jobs": cost.jobs,
                "work_s": round(cost.work_s, 3),
                "cpu_s": round(cost.cpu_s, 3),
                "peak_rss_mb": cost.peak_rss_mb,
                "code": sorted(cost.code),
            }
            for name, cost in costs.items()
        },
    }


def error_by_border_distance(
    run: Run, error: NDArray[np.floating], step: int, bin_m: float = 4.0
) -> list[tuple[float, float]]:
    """(metres from the nearest border between two tiles, mean |error|), for maps of every `step`-th cell."""
    tiles = city_tiles(run.config)
    known = set(tiles)
    grid = city_cells(run.config)
    x, y = grid.x_centres[::step], grid.y_centres[::step]
    distance = np.full(error.shape, np.inf)
    for tile in tiles:
        core = tile.core
        rows = (y >= core.ymin) & (y < core.ymax)
        cols = (x >= core.xmin) & (x < core.xmax)
        part = np.full((int(rows.sum()), int(cols.sum())), np.inf)
        for di, edge in ((-1, core.xmin), (1, core.xmax)):
            if tile.neighbour(di, 0) in known:
                part = np.minimum(part, np.abs(x[cols] - edge)[None, :])
        for dj, edge in ((-1, core.ymin), (1, core.ymax)):
            if tile.neighbour(0, dj) in known:
                part = np.minimum(part, np.abs(y[rows] - edge)[:, None])
        distance[np.ix_(rows, cols)] = part
    use = np.isfinite(error) & np.isfinite(distance)
    bins = (distance[use] / bin_m).astype(np.int64)
    count = np.bincount(bins)
    total = np.bincount(bins, weights=np.abs(error[use]))
    most = max(1, int(0.02 * count.max(initial=0)))
    return [((k + 0.5) * bin_m, float(total[k] / count[k])) for k in range(len(count)) if count[k] >= most]


def read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
