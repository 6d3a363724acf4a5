"""What runs have cost: sums of their run records, and the table of reference costs that a forecast starts from.

The committed table is made anew from a run by: python -m cityweave.operations.costs RUN HARDWARE > reference_costs.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cityweave.config import Config
from cityweave.errors import DataError
from cityweave.grid import Tile
from cityweave.manifest import Run
from cityweave.plan import CITY_MANIFESTS, city_tiles, load_config, tile_manifests

REFERENCE = Path(__file__).with_name("reference_costs.json")
# Kinds of jobs in the order of work. The four divisions of a fit are four units of one kind.
TILE_KINDS = ("ingest", "cityscale", "dsm", "fuse", "fit", "mesh", "texture")
KINDS = ("synth", "survey", *TILE_KINDS, "merge_heights", "merge_city", "evaluate", "report")
PER_UNIT_INODES = 2  # its manifest and its run record


@dataclass(frozen=True)
class KindCost:
    """Sums over `units` jobs' units of one kind; peaks are the largest."""

    units: int = 0
    work_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    bytes: int = 0
    inodes: int = 0
    gpu_s: float = 0.0
    gpu_peak_mb: float | None = None
    gpu_models: tuple[str, ...] = ()

    def with_record(self, record: dict[str, Any], inodes: int) -> KindCost:
        gpu = record.get("gpu") or {}
        peaks = [peak for peak in (self.gpu_peak_mb, gpu.get("peak_memory_mb")) if peak is not None]
        model = gpu.get("model") or "unknown model"
        return replace(
            self,
            units=self.units + 1,
            work_s=round(self.work_s + record["work_s"], 3),
            cpu_s=round(self.cpu_s + record["work_cpu_s"], 3),
            peak_rss_mb=max(self.peak_rss_mb, record["peak_rss_mb"]),
            bytes=self.bytes + sum(product["bytes"] for product in record["manifest"]["products"]),
            inodes=self.inodes + inodes,
            gpu_s=round(self.gpu_s + gpu.get("seconds", 0.0), 3),
            gpu_peak_mb=max(peaks) if peaks else None,
            gpu_models=tuple(sorted({*self.gpu_models, *([model] if gpu else [])})),
        )


@dataclass(frozen=True)
class CostTable:
    """Recorded costs with the configuration they were recorded with, so that they can be scaled to another one."""

    source: str  # for people: what they are based on
    config: Config
    kinds: dict[str, KindCost]
    start_s: float = 0.0  # of a job, beside its work: interpreter, imports, compiled code
    details: dict[str, Any] = field(default_factory=dict)


def kind_of(name: str, config: Config) -> str:
    """Of a manifest. Rounds of refinement are units of texturing, as divisions are of fitting. `dsm` is what measures
    heights, `fuse` what puts them together with predicted ones, or predicted ones on terrain."""
    if name in ("stereo", "dsm"):
        return "dsm" if name == "stereo" or config.dsm.method == "stereo" else "fuse"
    kinds = {"sdf_": "fit", "texture_": "texture", "novel_": "texture"}
    return next((kind for start, kind in kinds.items() if name.startswith(start)), name)


def manifest_of(kind: str, config: Config) -> str:
    """The way back, for a kind that has one manifest a tile; it is the name of the command as well."""
    if kind == "dsm":
        return "stereo" if config.dsm.method == "fused" else "dsm"
    return "dsm" if kind == "fuse" else kind


def is_needed(kind: str, config: Config) -> bool:
    method = config.dsm.method
    without = {"synth": config.synth is None, "cityscale": method == "stereo", "fuse": method == "stereo"}
    return not without.get(kind, kind == "dsm" and method == "cityscale")


def _record_paths(run: Run) -> Iterator[tuple[str, Tile | None, Path]]:
    for name in CITY_MANIFESTS:
        yield name, None, run.manifest_path(name).with_name(f"{name}.run.json")
    for tile in city_tiles(run.config):
        for name in tile_manifests(run.config):
            yield name, tile, run.manifest_path(name, tile).with_name(f"{name}.run.json")


def recorded(run: Run, *, disk: bool = True) -> dict[str, KindCost]:
    """Costs by kind of every job of a run that has left a record; counting inodes (`disk`) walks every product."""
    kinds: dict[str, KindCost] = {}
    for name, _, path in _record_paths(run):
        if path.is_file():
            record = json.loads(path.read_text())
            entries = record["manifest"]["products"]
            inodes = PER_UNIT_INODES + sum(_inodes(path.parent / entry["path"]) for entry in entries if disk)
            kind = kind_of(name, run.config)
            kinds[kind] = kinds.get(kind, KindCost()).with_record(record, inodes)
    return {kind: kinds[kind] for kind in KINDS if kind in kinds}


def _inodes(path: Path) -> int:
    if not path.exists():
        return 0
    return 1 + (sum(1 for _ in path.rglob("*")) if path.is_dir() else 0)


def table_of(run: Run) -> CostTable:
    kinds = recorded(run)
    if not kinds:
        raise DataError(f"{run.folder} has no run records to plan from; accepted: a run that has done something")
    return CostTable(f"the records of {run.folder}", run.config, kinds, _start_s(run, kinds))


def _start_s(run: Run, kinds: dict[str, KindCost]) -> float:
    """Seconds of a job's wall that no unit worked in."""
    walls = []
    for path in sorted((run.folder / "benchmarks").rglob("*.jsonl")):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        if lines:
            walls.append(float(json.loads(lines[-1])["s"]))
    if not walls:
        return 0.0
    return round(max(0.0, sum(walls) - sum(cost.work_s for cost in kinds.values())) / len(walls), 2)


def reference_table(file: Path = REFERENCE) -> CostTable:
    values = json.loads(file.read_text())
    kinds = {
        kind: KindCost(**(cost | {"gpu_models": tuple(cost["gpu_models"])})) for kind, cost in values["kinds"].items()
    }
    details = values["details"]
    source = f"the reference costs in {file.name}: {details['run']} on {details['hardware']}, {details['date']}"
    return CostTable(source, load_config(values["config"]), kinds, values["start_s"], details)


def table_as_json(table: CostTable, details: dict[str, Any]) -> str:
    values = {
        "details": details,
        "start_s": table.start_s,
        "config": table.config.model_dump(mode="json"),
        "kinds": {kind: asdict(cost) for kind, cost in table.kinds.items()},
    }
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def gpu_report(run: Run) -> list[str]:
    """GPU-hours by kind and per km2, of the jobs that held a GPU; empty when none did."""
    kinds = {kind: cost for kind, cost in recorded(run, disk=False).items() if cost.gpu_s > 0}
    if not kinds:
        return []
    tiles = city_tiles(run.config)
    km2 = sum(tile.core.width * tile.core.height for tile in tiles) / 1e6
    lines = []
    for kind, cost in kinds.items():
        memory = "memory unknown" if cost.gpu_peak_mb is None else f"peak {cost.gpu_peak_mb:.0f} MB"
        hours = cost.gpu_s / 3600
        lines.append(f"GPU {kind}: {hours:.4f} h, {hours / km2:.4f} h/km2, {memory}, {', '.join(cost.gpu_models)}")
    total = sum(cost.gpu_s for cost in kinds.values()) / 3600
    lines.append(f"GPU in all: {total:.4f} h for {km2:.3f} km2, {total / km2:.4f} h/km2")
    return lines


def _main(folder: str, hardware: str) -> None:
    run = Run.open(Path(folder))
    newest = max(path.stat().st_mtime for _, _, path in _record_paths(run) if path.is_file())
    details = {
        "hardware": hardware,
        "date": time.strftime("%Y-%m-%d", time.gmtime(newest)),
        "run": run.config.city.name,
    }
    sys.stdout.write(table_as_json(table_of(run), details))


if __name__ == "__main__":
    _main(*sys.argv[1:])
