"""What a city cost: seconds, processor seconds, memory, and how much of it was not work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cityweave.manifest import Run
from cityweave.plan import CITY_MANIFESTS, city_tiles, tile_manifests

_NOT_COUNTED = ("synth", "evaluate", "report")  # a real city brings its pictures; measuring isn't making


def job_records(run: Run) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """(manifest name, tile, its run record) of every job that made the city."""
    for name in [name for name in CITY_MANIFESTS if name not in _NOT_COUNTED]:
        yield from _record(run.manifest_path(name), name, None)
    for tile in city_tiles(run.config):
        for name in tile_manifests(run.config):
            yield from _record(run.manifest_path(name, tile), name, tile.name)


def _record(manifest: Path, name: str, tile: str | None) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    path = manifest.with_name(f"{name}.run.json")
    if path.is_file():
        yield name, tile, json.loads(path.read_text())


def benchmark_walls_s(folder: Path) -> list[float]:
    """Wall seconds of the jobs as Snakemake saw them, start-up included; those that don't make the city left out."""
    walls = []
    for path in sorted(folder.rglob("*.jsonl")):
        rule = path.relative_to(folder).parts[0].removesuffix(".jsonl")
        if rule in _NOT_COUNTED:
            continue
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        if lines:
            walls.append(float(json.loads(lines[-1])["s"]))
    return walls


def cost(run: Run, area_km2: float) -> tuple[dict[str, float | None], dict[str, str]]:
    """`wall_s` adds up the jobs' own walls: what the city takes with one job at a time."""
    records = list(job_records(run))
    names = ("wall_s", "cpu_s", "peak_rss_mb", "per_km2_s", "overhead_share")
    out: dict[str, float | None] = dict.fromkeys(names)
    reasons: dict[str, str] = {}
    if records:
        out["cpu_s"] = sum(record["work_cpu_s"] for _, _, record in records)
        out["peak_rss_mb"] = max(record["peak_rss_mb"] for _, _, record in records)
    else:
        reasons |= dict.fromkeys(("cpu_s", "peak_rss_mb"), "no job has left a run record")
    walls = benchmark_walls_s(run.folder / "benchmarks")
    if walls:
        total = sum(walls)
        out["wall_s"], out["per_km2_s"] = total, total / area_km2
        work = sum(record["work_s"] for _, _, record in records)
        out["overhead_share"] = max(0.0, 1.0 - work / total) if total > 0 else None
    missing = [name for name in ("wall_s", "per_km2_s", "overhead_share") if out[name] is None]
    reasons |= dict.fromkeys(missing, "the jobs did not run under Snakemake: there are no benchmark records")
    return out, reasons
