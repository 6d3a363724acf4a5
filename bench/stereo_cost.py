"""Time and memory of matching against tile size, number of views and range of heights.

    python bench/stereo_cost.py FOLDER > bench/records/stereo_cost.md

Makes a synthetic city of 512 m in FOLDER with the twelve views of config/bench/stereo.yaml, cuts it into tiles of
several sizes, and measures each case in a process of its own after a small corner was matched, which loads the compiled
code: seconds of matching, and the process's peak memory. A range of heights is what the coarse search has to cover.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from cityweave import cores
from cityweave.aoi import Aoi
from cityweave.dsm.job import matching_grids, usable_views
from cityweave.dsm.reconstruct import reconstruct
from cityweave.grid import CellGrid
from cityweave.machine import cpu_kind, usable_cores
from cityweave.manifest import Manifest, Run
from cityweave.plan import city_tiles

ROOT = Path(__file__).resolve().parent.parent
SIZE_M = 512
TILES_M = (64, 128, 256, 512)
VIEWS = (2, 3, 6, 12)
RANGES_M = (10, 100, 1000)
BOUNDS_MB = (400, 2000)
HEAD = """## stereo: what matching costs

The heights of one tile and its halo by `bench/stereo_cost.py`, on {cores} cores of {cpu}, {date}. Mpx: million
cells of 0.5 m, halo included. Heights: what the coarse search has to cover. `dsm.memory_mb` bounds what matching takes
on top of what the process holds before it (last column).

| tile | views | heights | dsm.memory_mb | s | s per Mpx | peak MB | before matching |
|---|---|---|---|---|---|---|---|"""
FIRST = ("v02", "v06", "v04")  # as in the suite: a pair of one pass, then the other date


@dataclasses.dataclass(frozen=True)
class Case:
    tile_m: int
    views: int
    range_m: int | None = None  # None: what the survey found
    memory_mb: int = 2000


def config_of(folder: Path, tile_m: int) -> Path:
    suite = yaml.safe_load((ROOT / "config" / "bench" / "stereo.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(suite["config"]))
    west, south = 315392, 4161536
    config["city"] |= {"name": f"tiles_{tile_m}", "bounds_m": [west, south, west + SIZE_M, south + SIZE_M]}
    config["synth"]["views"] = suite[".views"]
    config |= {"seed": 1, "tiles": {"size_m": tile_m}, "workflow": {"results": str(folder)}}
    file = folder / f"tiles_{tile_m}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def prepared(folder: Path, tile_m: int) -> Path:
    """The run whose south-western tile is ingested."""
    file = config_of(folder, tile_m)
    run = folder / f"tiles_{tile_m}"
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    tile = f"E{315392}_N{4161536}"
    target = run / "tiles" / tile / "ingest.json"
    command = [snakemake, "--cores", "all", "--quiet", "all", "--configfile", str(file), "--", str(target)]
    subprocess.run(command, cwd=ROOT, check=True)
    return run


def held_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(run: Run, case: Case) -> dict[str, float]:
    cores.use(usable_cores())
    tile = city_tiles(run.config)[0]
    aoi = Aoi(Manifest.read(run.manifest_path("ingest", tile)).product("aoi"))
    low, high = (float(height) - aoi.z0_m for height in aoi.attributes["heights_m"])
    if case.range_m is not None:
        middle = (low + high) / 2
        low, high = middle - case.range_m / 2, middle + case.range_m / 2
    views, _ = usable_views(run.config, aoi)
    order = [*FIRST, *sorted(view.name for view in views if view.name not in FIRST)]
    chosen = sorted(views, key=lambda view: order.index(view.name))[: case.views]
    grid, around = matching_grids(run.config, tile)
    settings = run.config.dsm.model_copy(update={"memory_mb": case.memory_mb})
    corner = CellGrid(grid.col0, grid.row0, 64, 64, grid.gsd_m)
    reconstruct(chosen, corner, (low, high), settings)  # loads the compiled code
    before = held_mb()
    started = time.perf_counter()
    reconstruct(chosen, grid, (low, high), settings, around)
    seconds = time.perf_counter() - started
    cells = grid.rows * grid.cols / 1e6
    return {"seconds": seconds, "per_mpx": seconds / cells, "peak_mb": peak_mb(), "before_mb": before}


def row(folder: Path, case: Case) -> None:
    command = [sys.executable, __file__, str(folder), json.dumps(dataclasses.asdict(case))]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    heights = "as found" if case.range_m is None else f"{case.range_m} m"
    print(
        f"| {case.tile_m} m | {case.views} | {heights} | {case.memory_mb} MB | {found['seconds']:.2f} | "
        f"{found['per_mpx']:.2f} | {found['peak_mb']:.0f} | {found['before_mb']:.0f} |",
        flush=True,
    )


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        case = Case(**json.loads(sys.argv[2]))
        print(json.dumps(measure(Run.open(folder / f"tiles_{case.tile_m}"), case)))
        return
    for tile_m in TILES_M:
        prepared(folder, tile_m)
    print(HEAD.format(cores=usable_cores(), cpu=cpu_kind(), date=time.strftime("%Y-%m-%d")), flush=True)
    cases = [Case(tile_m, views) for tile_m in TILES_M for views in VIEWS]
    cases += [Case(256, 6, range_m, bound) for bound in BOUNDS_MB for range_m in RANGES_M]
    for case in cases:
        row(folder, case)


if __name__ == "__main__":
    main()
