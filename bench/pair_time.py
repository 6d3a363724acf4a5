"""Seconds and memory from pictures to heights, compiled code cached: python bench/pair_time.py CONFIG FOLDER

Runs the jobs survey, ingest and dsm of a city by their commands, one after another, each with all tiles as a packed
job of the workflow, dsm on all cores, and prints wall time and peak memory of each. Imports are in it, the start of
Snakemake isn't. Runs everything twice; the second counts, since the first fills the caches of compiled code,
Python's own too.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from cityweave.machine import usable_cores
from cityweave.manifest import write_json
from cityweave.plan import city_tiles, read_config, run_folder

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(command: list[str]) -> tuple[float, float]:
    started = time.perf_counter()
    child = os.posix_spawn(command[0], command, ENVIRONMENT)
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    folder = Path(sys.argv[2]).resolve()
    config = read_config(Path(sys.argv[1]))
    config = config.model_copy(update={"workflow": config.workflow.model_copy(update={"results": folder})})
    run = run_folder(config)
    tiles = [part for tile in city_tiles(config) for part in ("--tile", tile.name)]
    cores = ["--cpus", str(usable_cores())]
    for _ in range(2):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        write_json(run / "config.json", config.model_dump(mode="json"))
        jobs = {"survey": [], "ingest": tiles, "dsm": [*tiles, *cores]}
        found = {
            name: timed([sys.executable, "-m", "cityweave", name, "--run", str(run), *rest])
            for name, rest in jobs.items()
        }
    for name, (seconds, peak_mb) in found.items():
        print(f"{name}: {seconds:.2f} s, {peak_mb:.0f} MB")
    print(f"together {sum(s for s, _ in found.values()):.2f} s, at most {max(m for _, m in found.values()):.0f} MB")


if __name__ == "__main__":
    main()
