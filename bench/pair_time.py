"""Seconds and memory from pictures to heights, compiled code cached: python bench/pair_time.py CONFIG FOLDER

Runs the jobs survey, ingest and dsm of a city by their commands, one after another, each with all tiles as a packed
job of the workflow, with as many tiles at once as there are cores, and prints wall time and peak memory of each.
Imports are in it, the start of Snakemake isn't. Runs everything three times: the first fills the caches of compiled
code, Python's own too; of the second memory is taken, that of all processes together, pages that they share counted
once; the third is timed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from cityweave.machine import usable_cores
from cityweave.manifest import write_json
from cityweave.plan import city_tiles, read_config, run_folder

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
LOOK_S = 0.02


def started(command: list[str]) -> int:
    return os.posix_spawn(command[0], command, ENVIRONMENT)


def expect_success(status: int, command: list[str]) -> None:
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"failed: {' '.join(command)}")


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    _, status = os.waitpid(started(command), 0)
    expect_success(status, command)
    return time.perf_counter() - begin


def peak_mb(command: list[str]) -> float:
    child, most = started(command), 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            expect_success(status, command)
            return most
        most = max(most, sum(map(proportional_mb, family(child))))
        time.sleep(LOOK_S)


def family(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [process, *(each for child in children for each in family(int(child)))]
    return []


def proportional_mb(process: int) -> float:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
    return 0.0


def main() -> None:
    folder = Path(sys.argv[2]).resolve()
    config = read_config(Path(sys.argv[1]))
    config = config.model_copy(update={"workflow": config.workflow.model_copy(update={"results": folder})})
    run = run_folder(config)
    tiles = [part for tile in city_tiles(config) for part in ("--tile", tile.name)]
    cores = str(usable_cores())
    jobs = {
        "survey": ["--cpus", cores],
        "ingest": [*tiles, "--at-once", cores],
        "dsm": [*tiles, "--cpus", cores, "--at-once", cores],
    }
    commands = {
        name: [sys.executable, "-m", "cityweave", name, "--run", str(run), *rest] for name, rest in jobs.items()
    }
    rounds = []
    for measure in (seconds, peak_mb, seconds):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        write_json(run / "config.json", config.model_dump(mode="json"))
        rounds.append({name: measure(command) for name, command in commands.items()})
    _, memory, times = rounds
    for name in jobs:
        print(f"{name}: {times[name]:.2f} s, {memory[name]:.0f} MB")
    print(f"together {sum(times.values()):.2f} s, at most {max(memory.values()):.0f} MB")


if __name__ == "__main__":
    main()
