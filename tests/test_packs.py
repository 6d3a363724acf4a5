from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cityweave.errors import DataError
from cityweave.packs import work_through


def leave(folder: Path, unit: int) -> None:
    (folder / str(unit)).write_text(str(os.getpid()))


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_every_unit_is_worked_on_once_by_so_many_processes(tmp_path: Path, at_once: int) -> None:
    work_through(lambda unit: leave(tmp_path, unit), range(7), at_once)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(7))
    processes = {path.read_text() for path in tmp_path.iterdir()}
    assert len(processes) == min(at_once, 7)
    assert (str(os.getpid()) in processes) == (at_once == 1)


def test_a_failure_gives_its_code_and_message_and_what_runs_beside_it_is_finished(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(unit: int) -> None:
        if unit == 2:
            raise DataError("tile 2 is broken")
        leave(tmp_path, unit)

    with pytest.raises(SystemExit) as ended:
        work_through(work, range(8), 2)
    assert ended.value.code == DataError.exit_code
    assert "DataError: tile 2 is broken" in capfd.readouterr().err
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [0, 1, 3, 5, 7]


def test_a_process_that_is_killed_is_named() -> None:
    def work(unit: int) -> None:
        if unit == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(SystemExit, match="killed by signal 9"):
        work_through(work, range(4), 2)


ENDLESS = """
import os, sys, time
from pathlib import Path
from cityweave.packs import work_through

def work(unit):
    Path(sys.argv[1], str(unit)).write_text(str(os.getpid()))
    time.sleep(600)

work_through(work, range(2), 2)
"""


def test_a_job_that_is_told_to_end_takes_its_processes_along(tmp_path: Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)])
    while len(processes := [int(path.read_text() or 0) for path in tmp_path.iterdir()]) < 2 or not all(processes):
        assert job.poll() is None
        time.sleep(0.05)
    job.terminate()
    assert job.wait(60) == 128 + signal.SIGTERM
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
