"""Jobs that an earlier run left in SLURM's queue: they go on after the run itself was killed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cityweave.errors import CityweaveError

JOB_NAMES = "cityweave_"  # what the profile puts before a job's name
_FORMAT = "%i|%j|%Z"


class LeftoverJobs(CityweaveError):  # noqa: N818 - says what it is
    """Starting now would do the work of these jobs a second time, in the same files."""


def left_jobs(queue: str, folder: Path) -> list[str]:
    """Ids in what squeue printed as `_FORMAT` of jobs that work in `folder`."""
    rows = [line.split("|") for line in queue.splitlines() if line.count("|") == 2]
    return [row[0] for row in rows if row[1].startswith(JOB_NAMES) and Path(row[2]) == folder]


def refuse_leftovers(folder: Path) -> None:
    if shutil.which("squeue") is None:
        return
    asked = subprocess.run(
        ["squeue", "--me", "--noheader", "--format", _FORMAT], capture_output=True, text=True, timeout=120, check=False
    )
    if jobs := left_jobs(asked.stdout, folder.resolve()):
        raise LeftoverJobs(
            f"{len(jobs)} SLURM jobs of an earlier run in {folder} are still queued or running; "
            f"wait until they are gone, or end them: scancel {' '.join(jobs)}"
        )
