"""Times of every stage's job, again and again in a scratch copy of a run that is done.

A job is the command that the workflow gives, so its start, imports and loading of compiled code are in it. The run
itself has just been made on this machine: what is compiled is there. Nothing heavy is imported here, since a child's
peak memory is never below what its parent held when it was started.
"""

from __future__ import annotations

import json
import os
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cityweave.adopt import link_file
from cityweave.bench.suite import BenchRun, Suite
from cityweave.errors import DataError
from cityweave.grid import DIVISIONS, Tile
from cityweave.machine import describe, usable_cores
from cityweave.manifest import Run, remove, write_json
from cityweave.operations.costs import KINDS, TILE_KINDS, is_needed, manifest_of
from cityweave.plan import CITY_MANIFESTS, STAGE_OF, city_tiles
from cityweave.status import tile_entries

_TOP = 6  # functions of a profile that are kept


@dataclass(frozen=True)
class _Job:
    kind: str
    arguments: tuple[str, ...]
    records: tuple[str, ...]  # run records that it leaves, relative to the run's folder


@dataclass(frozen=True)
class _Usage:
    seconds: float
    cpu_s: float
    peak_rss_mb: float


def measure(suite: Suite, bench_run: BenchRun, run: Run) -> dict[str, Any]:
    """What timing.json holds: the machine, what it can do, and the times of a job of every stage."""
    at_once = suite.plan.variants[bench_run.variant].at_once
    found: dict[str, Any] = {
        "machine": describe(),
        "load": round(os.getloadavg()[0], 2),  # well above 1 says that somebody else was at work
        "calibration": _calibration(),
        "at_once": at_once,
        "repeats": suite.plan.timing.repeats,
        "stages": {},
    }
    if not bench_run.timed:
        return found | {"note": f"the suite doesn't time {bench_run.name}; `stages` has what the run itself spent"}
    if at_once > usable_cores():
        return found | {"note": f"{at_once} jobs at once on {usable_cores()} cores would only wait for each other"}
    tile = _typical_tile(run)
    if tile is None:
        return found | {"note": "no tile is done"}
    found["tile"] = tile.name
    jobs = list(_jobs(run, tile))
    if bench_run.adopts and suite.plan.variants[bench_run.adopts.variant].at_once == at_once:
        taken = json.loads((bench_run.adopts.folder / "timing.json").read_text())["stages"]
        found["stages"] |= {kind: entry for kind, entry in taken.items() if _adopted(kind, run)}
        jobs = [job for job in jobs if not _adopted(job.kind, run)]
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=run.folder.parent) as folder:
        scratches = [_scratch(run, Path(folder) / str(number)) for number in range(at_once)]
        for job in jobs:
            found["stages"][job.kind] = _timed(job, scratches, suite, bench_run)
    return found


def _adopted(kind: str, run: Run) -> bool:
    taken = run.config.workflow.adopt
    return taken is not None and STAGE_OF[kind] in taken.stages


def _calibration() -> dict[str, Any]:
    command = [sys.executable, "-m", "cityweave.bench.calibrate"]
    figures: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return figures


def _typical_tile(run: Run) -> Tile | None:
    """The one nearest to the middle of the city, of those that are done."""
    states: dict[Tile, set[str]] = {}
    for entry in tile_entries(run):
        states.setdefault(entry.tile, set()).add(entry.status)
    box = run.config.city.box
    x, y = (box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2

    def away(tile: Tile) -> tuple[float, str]:
        core = tile.core
        return (core.xmin + core.xmax - 2 * x) ** 2 + (core.ymin + core.ymax - 2 * y) ** 2, tile.name

    return min((tile for tile in city_tiles(run.config) if states[tile] == {"done"}), key=away, default=None)


def _jobs(run: Run, tile: Tile) -> Iterator[_Job]:
    for kind in KINDS:
        if not is_needed(kind, run.config) or (kind in CITY_MANIFESTS and not _made(kind, run)):
            continue
        if kind not in TILE_KINDS:
            yield _Job(kind, (kind.replace("_", "-"),), (f"city/{kind}.run.json",))
            continue
        own = manifest_of(kind, run.config)
        names = [f"sdf_{division}" for division in DIVISIONS] if kind == "fit" else [own]
        divisions = [part for division in DIVISIONS for part in ("--division", str(division))] if kind == "fit" else []
        records = tuple(f"tiles/{tile.name}/{name}.run.json" for name in names)
        yield _Job(kind, (own, "--tile", tile.name, *divisions), records)


def _made(kind: str, run: Run) -> bool:
    folder = run.folder.with_name(run.config.city.name) if kind == "synth" else run.folder
    return (folder / "city" / f"{kind}.json").is_file()


def _scratch(run: Run, folder: Path) -> Run:
    """The run again, by hard links; jobs replace files and never write into them."""
    place = folder / run.config.city.name
    shutil.copytree(run.folder, place, ignore=shutil.ignore_patterns("logs", "benchmarks"), copy_function=link_file)
    config = run.config.model_copy(
        update={"workflow": run.config.workflow.model_copy(update={"results": folder, "adopt": None})}
    )
    remove(place / "config.json")
    write_json(place / "config.json", config.model_dump(mode="json"))
    return Run(place, config)


def _timed(job: _Job, scratches: Sequence[Run], suite: Suite, bench_run: BenchRun) -> dict[str, Any]:
    usages, work_s, work_cpu_s, gpus = [], [], [], []
    for _ in range(suite.plan.timing.repeats):
        usages.append(_run_at_once(job, scratches))
        records = [json.loads((scratches[0].folder / name).read_text()) for name in job.records]
        work_s.append(round(sum(record["work_s"] for record in records), 3))
        work_cpu_s.append(round(sum(record["work_cpu_s"] for record in records), 3))
        gpus += [record["gpu"] for record in records if "gpu" in record]
    entry: dict[str, Any] = {
        "measured_in": bench_run.name,
        "seconds": round(statistics.median(usage.seconds for usage in usages), 3),
        "all_seconds": [round(usage.seconds, 3) for usage in usages],
        "work_s": statistics.median(work_s),
        "work_cpu_s": statistics.median(work_cpu_s),
        "cpu_s": round(statistics.median(usage.cpu_s for usage in usages), 3),
        "peak_rss_mb": max(usage.peak_rss_mb for usage in usages),
        "gpu_peak_mb": max((gpu["peak_memory_mb"] or 0.0 for gpu in gpus), default=None),
    }
    if suite.plan.timing.profile:
        entry["profile"] = _profile(job, scratches[0])
    return entry


def _run_at_once(job: _Job, scratches: Sequence[Run]) -> _Usage:
    """Until the last one is done; CPU seconds of one on average."""
    logs = [run.folder / "timing.log" for run in scratches]
    started = time.perf_counter()
    children = [_start(_command(job, run), log) for run, log in zip(scratches, logs, strict=True)]
    usages = []
    for child, log in zip(children, logs, strict=True):
        _, status, usage = os.wait4(child, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise DataError(f"{job.kind} failed when it was timed: {log.read_text()[-2000:]}")
        usages.append(usage)
    return _Usage(
        time.perf_counter() - started,
        sum(usage.ru_utime + usage.ru_stime for usage in usages) / len(usages),
        round(max(usage.ru_maxrss for usage in usages) / 1024, 1),
    )


def _command(job: _Job, run: Run) -> list[str]:
    return [sys.executable, "-m", "cityweave", job.arguments[0], "--run", str(run.folder), *job.arguments[1:]]


def _start(command: list[str], log: Path) -> int:
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    return os.posix_spawn(command[0], command, dict(os.environ), file_actions=[to_log, (os.POSIX_SPAWN_DUP2, 1, 2)])


def _profile(job: _Job, run: Run) -> dict[str, Any]:
    """Where the time of one more run goes, by own time; compiled code counts for the function that calls it."""
    file = run.folder / "timing.profile"
    command = _command(job, run)
    log = run.folder / "timing.log"
    _, status, _ = os.wait4(_start([command[0], "-m", "cProfile", "-o", str(file), *command[1:]], log), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise DataError(f"{job.kind} failed under the profiler: {log.read_text()[-2000:]}")
    stats: Any = pstats.Stats(str(file))
    total = stats.total_tt
    own = sorted(((entry[2], _label(where)) for where, entry in stats.stats.items()), reverse=True)[:_TOP]
    imports = max((entry[3] for where, entry in stats.stats.items() if where[2] == "_find_and_load"), default=0.0)
    top = [{"function": label, "share": round(seconds / total, 3)} for seconds, label in own]
    return {"imports_share": round(imports / total, 3), "top": top}


def _label(where: tuple[str, int, str]) -> str:
    """cityweave.dsm.sgm.aggregate, or what the standard library and others call theirs."""
    file, _, function = where
    parts = Path(file).with_suffix("").parts
    for root in ("cityweave", "site-packages"):
        if root in parts:
            index = len(parts) - 1 - parts[::-1].index(root)
            return ".".join([*parts[index + (root == "site-packages") :], function])
    return f"{Path(file).stem}.{function}" if file not in ("~", "") else function
