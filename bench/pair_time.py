"""Seconds and memory from pictures to heights, compiled code cached: python bench/pair_time.py CONFIG FOLDER [RUNS]

Runs `cityweave heights` on a city, from nothing to its merged height model, RUNS times (5), each from the start. Two
runs before them don't count: the first fills the caches of compiled code, Python's own too; of the second memory is
taken, that of all processes together, pages that they share counted once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import yaml

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
LOOK_S = 0.02


def started(command: list[str]) -> int:
    quiet = os.open(os.devnull, os.O_WRONLY)
    return os.posix_spawn(command[0], command, ENVIRONMENT, file_actions=[(os.POSIX_SPAWN_DUP2, quiet, 1)])


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
    values = yaml.safe_load(Path(sys.argv[1]).read_text())
    values["workflow"] = values.get("workflow", {}) | {"results": str(folder / "results")}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "cityweave", "heights", "--config", str(file)]
    times, memory = [], 0.0
    for number in range(2 + int((sys.argv[3:] or ["5"])[0])):
        shutil.rmtree(folder / "results", ignore_errors=True)
        if number == 1:
            memory = peak_mb(command)
        elif (spent := seconds(command)) and number > 1:
            times.append(spent)
    print(" ".join(f"{spent:.2f}" for spent in times))
    print(f"median {statistics.median(times):.2f} s, longest {max(times):.2f} s, at most {memory:.0f} MB")


if __name__ == "__main__":
    main()
