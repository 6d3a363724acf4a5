"""A record: one JSON that says what a variant with one seed gave, what it cost, and all that this depends on.

Tables, plots and comparisons are made from records alone, so a record carries what they show of its suite.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from cityweave import __version__
from cityweave.bench.suite import BenchRun, Suite
from cityweave.bench.work import physical_floor, pixels_and_km2
from cityweave.codehash import stage_hash
from cityweave.errors import ConfigError, DataError
from cityweave.fetched import sha256_of
from cityweave.manifest import Manifest, Run
from cityweave.operations.costs import KINDS, KindCost, kind_of
from cityweave.plan import CITY_MANIFESTS, STAGE_OF, STAGE_SECTIONS, city_tiles, tile_manifests
from cityweave.status import quarantined_tiles, tile_entries

FORMAT = 1
OTHER_CPU_TOLERANCE = 0.02  # relative, of figures for which the suite states none
_PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "rasterio", "pyproj", "zarr", "pillow", "shapely", "torch")


def make_record(suite: Suite, bench_run: BenchRun, run: Run, source: dict[str, Any]) -> dict[str, Any]:
    """Of a run as it is, also of one that isn't done: `refused` says why it is no reference."""
    timing = _read(run.folder / "timing.json") or {}
    metrics = _read(run.folder / "metrics.json")
    inputs = _inputs(suite, run)
    record = {
        "format": FORMAT,
        "suite": suite.name,
        "variant": bench_run.variant,
        "seed": bench_run.seed,
        "source": source | {"code": {stage: stage_hash(stage) for stage in STAGE_SECTIONS}},
        "versions": _versions(),
        "machine": timing.get("machine"),
        "calibration": timing.get("calibration"),
        "config": run.config.model_dump(mode="json"),
        "inputs": inputs,
        "metrics": metrics,
        "tolerances": {
            "other": OTHER_CPU_TOLERANCE,
            "metrics": {metric.key: metric.tolerance for metric in suite.plan.metrics},
        },
        "stages": _stages(run, timing),
        "timing": {key: value for key, value in timing.items() if key not in ("machine", "calibration", "stages")},
        "products": _products(run),
        "shown": _shown(suite, bench_run),
    }
    return record | {"refused": list(_refusals(record, run))}


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _versions() -> dict[str, str]:
    found = {"cityweave": __version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _inputs(suite: Suite, run: Run) -> dict[str, Any]:
    """Checksums of what was read: real files now, a synthetic city's by the manifest of the job that made it."""
    found: dict[str, Any] = {}
    for path, pinned in suite.plan.data.items():
        sha256 = sha256_of(path) if path.is_file() else None
        found[str(path)] = {"sha256": sha256, "pinned": pinned}
    if run.config.synth is not None:
        values = _read(run.folder.with_name(run.config.city.name) / "city" / "synth.json")
        products: list[dict[str, Any]] = values["products"] if values else [{"path": "sources", "sha256": None}]
        return found | {Path(entry["path"]).name: {"sha256": entry["sha256"]} for entry in products}
    sources = run.config.sources
    files = [view.path for view in sources.views] + [view.mask for view in sources.views if view.mask]
    files += [ortho.path for ortho in sources.ortho]
    files += [raster.path for raster in (sources.terrain, sources.reference) if raster]
    for file in files:
        if str(file) not in found:
            found[str(file)] = {"sha256": sha256_of(file) if file.is_file() else None, "pinned": None}
    return found


def _manifests(run: Run) -> Iterator[tuple[str, str, Path]]:
    """(name, stage, path) of every job's manifest."""
    for name, stage in CITY_MANIFESTS.items():
        folder = run.folder.with_name(run.config.city.name) if name == "synth" else run.folder
        if name != "synth" or run.config.synth is not None:
            yield name, stage, folder / "city" / f"{name}.json"
    for tile in city_tiles(run.config):
        for name, stage in tile_manifests(run.config).items():
            yield name, stage, run.manifest_path(name, tile)


def _stages(run: Run, timing: dict[str, Any]) -> dict[str, Any]:
    """Per kind of job: what the run itself spent, the times of one job alone, the work and its physical floor."""
    sums: dict[str, KindCost] = {}
    facts: dict[str, dict[str, set[str]]] = {}
    steps: list[float] = []
    for name, _, path in _manifests(run):
        record = _read(path.with_name(f"{name}.run.json"))
        if record is None:
            continue
        kind = kind_of(name, run.config)
        sums[kind] = sums.get(kind, KindCost()).with_record(record, 0)
        if kind == "fit" and record["manifest"]["notes"]:
            steps.append(record["manifest"]["notes"]["steps"])
        for key in ("code", "host", "cpu", "adopted_from"):
            facts.setdefault(kind, {}).setdefault(key, set()).update([record[key]] if key in record else [])
    out: dict[str, Any] = {}
    for kind in (kind for kind in KINDS if kind in sums):
        cost = sums[kind]
        pixels, km2 = pixels_and_km2(kind, run.config)
        out[kind] = {
            "units": cost.units,
            "work_s": cost.work_s,
            "cpu_s": cost.cpu_s,
            "peak_rss_mb": cost.peak_rss_mb,
            "gpu_s": cost.gpu_s,
            "gpu_peak_mb": cost.gpu_peak_mb,
            "gpu_models": list(cost.gpu_models),
            "pixels": pixels,
            "km2": km2,
            "floor": physical_floor(kind, run.config, timing.get("calibration") or {}, steps),
            "timed": timing.get("stages", {}).get(kind),
            **{key: sorted(values) for key, values in facts[kind].items()},
        }
    return out


def _products(run: Run) -> dict[str, str]:
    """Checksums by tile (or "city") and the product's name."""
    found = {}
    for _, _, path in _manifests(run):
        if path.is_file():
            for entry in Manifest.read(path).values["products"]:
                found[f"{path.parent.name}/{entry['name']}"] = entry["sha256"]
    return dict(sorted(found.items()))


def _shown(suite: Suite, bench_run: BenchRun) -> dict[str, Any]:
    plan = suite.plan
    return {
        "description": plan.description,
        "variants": list(plan.variants),
        "seeds": list(plan.seeds),
        "overlay": plan.variants[bench_run.variant].config,
        "axis": plan.variants[bench_run.variant].axis,
        "at_once": plan.variants[bench_run.variant].at_once,
        "metrics": [metric.model_dump() for metric in plan.metrics],
        "published": [published.model_dump() for published in plan.published],
        "remarks": plan.remarks,
    }


def _refusals(record: dict[str, Any], run: Run) -> Iterator[str]:
    """Why nobody should compare with this record."""
    source = record["source"]
    if source["commit"] is None:
        yield "the commit is not known: the code is not in a git clone"
    elif not source["clean"]:
        yield f"the tree was not clean: {', '.join(source['changed'])}"
    for name, entry in record["inputs"].items():
        if entry["sha256"] is None:
            yield f"input {name} is missing"
        elif entry.get("pinned") not in (None, entry["sha256"]):
            yield f"input {name} is not the one that the suite pins"
    for tile, reason in quarantined_tiles(run).items():
        yield f"tile {tile} is quarantined: {reason}"
    broken = {
        e.tile.name: f"{e.name} is {e.status}" for e in tile_entries(run) if e.status not in ("done", "quarantined")
    }
    for tile, state in broken.items():
        yield f"tile {tile}: {state}"
    if record["metrics"] is None:
        yield "there is no metrics.json: the run is not done"
    for kind, entry in record["stages"].items():
        if entry["code"] != [source["code"][STAGE_OF[kind]]]:
            yield f"{kind} was made by other code than that of the commit"
    if record["machine"] is None:
        yield "the machine was not measured"
    else:
        cpus = {cpu for entry in record["stages"].values() for cpu in entry["cpu"]}
        if cpus - {record["machine"]["cpu"]}:
            yield f"stages ran on {', '.join(sorted(cpus))}, {record['machine']['cpu']} is what was measured"


def read_records(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Of files and folders, in the order that their suite gives them."""
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    records = []
    for file in files:
        try:
            record = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{file} can't be read as a record ({error})") from error
        if record.get("format") != FORMAT or "variant" not in record:
            raise DataError(f"{file} is no record of format {FORMAT}; accepted: what `cityweave bench record` writes")
        records.append(record)
    if not records:
        raise ConfigError(f"no record in {', '.join(map(str, paths))}; accepted: a record, or a folder of them")
    return sorted(records, key=lambda r: (r["suite"], _place(r["shown"]["variants"], r["variant"]), r["seed"]))


def read_selected(place: str) -> list[dict[str, Any]]:
    """Of a file, a folder, or FOLDER:VARIANT."""
    folder, _, variant = place.rpartition(":")
    if not folder or Path(place).exists():
        return read_records([Path(place)])
    records = read_records([Path(folder)])
    chosen = [record for record in records if record["variant"] == variant]
    if not chosen:
        known = ", ".join(dict.fromkeys(record["variant"] for record in records))
        raise ConfigError(f"{folder} has no variant {variant!r}; accepted: {known}")
    return chosen


def _place(names: list[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def figure(metrics: dict[str, Any] | None, key: str) -> float | None:
    """The number at a dotted key, None where there is none."""
    value: Any = metrics
    while key and isinstance(value, dict):  # a name may hold a dot itself: mesh.f1.0.5
        name = next((name for name in value if key == name or key.startswith(f"{name}.")), key)
        value, key = value.get(name), key[len(name) + 1 :]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def figures(metrics: dict[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """Every leaf of the metrics by its dotted key, the cost aside: that is never the same twice."""
    found: dict[str, Any] = {}
    for key, value in (metrics or {}).items():
        if prefix + key in ("cost", "reasons"):
            continue
        if isinstance(value, dict):
            found |= figures(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def publish(records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Copy what may serve as a reference to `folder`/{suite}; refuse all when one may not."""
    refused = [f"{r['variant']}-s{r['seed']}: {'; '.join(r['refused'])}" for r in records if r["refused"]]
    if refused:
        raise DataError(f"{len(refused)} of {len(records)} records are no reference. {' | '.join(refused)}")
    written = []
    for record in records:
        file = folder / record["suite"] / f"{record['variant']}-s{record['seed']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        written.append(file)
    return written
