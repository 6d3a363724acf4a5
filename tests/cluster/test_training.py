"""Training on a private SLURM cluster: a sweep as one array, and what clusters do to runs in the middle of their work.

Whatever happens, a run ends in the bytes that it has without a cluster.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import need_slurm
from .private import PrivateCluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
VALUES: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "window_px": 64,
        "validation_windows": 4,
        "train": {"synthetic": [{"first_seed": 1000, "count": 2, "side_m": 128}]},
        "validation": {"synthetic": [{"first_seed": 9000, "count": 1, "side_m": 128}]},
    },
    "model": {"width": 8},
    "loop": {"steps": 600, "batch": 4, "warmup_steps": 10, "validate_every": 200, "log_every": 20},
    "checkpoints": {"every": 40},
    "slurm": {"mem_gb": 2, "time_min": 30},
}
PREEMPTED = 0  # index of the run that is hit in the sweep


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """Two nodes with two stand-in GPUs each, accounting off."""
    need_slurm()
    if missing := [name for name in ("torch", "submitit") if importlib.util.find_spec(name) is None]:
        text = f"not installed: {', '.join(missing)} (make setup EXTRAS=models,hpc)"
        (pytest.fail if os.environ.get("CITYWEAVE_NEEDS_SLURM") else pytest.skip)(text)
    with PrivateCluster() as cluster:
        yield cluster


class Site:
    """A folder with a configuration and its data; commands run in it, on the cluster or not."""

    def __init__(self, folder: Path, cluster: PrivateCluster) -> None:
        self.folder = folder
        self.cluster = cluster
        values = VALUES | {"data": VALUES["data"] | {"folder": str(folder / "data")}}
        (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
        self.call("data")

    def command(self, *arguments: str) -> list[str]:
        task, *rest = arguments
        return [sys.executable, "-m", "cityweave", "train", task, "--config", "tiny.yaml", *rest]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 600) -> str:
        try:
            text, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate()
            pytest.fail(f"not done after {timeout_s:g} s\n{text}\n{self.cluster.diagnosis()}")
        assert process.returncode == 0, text + self.cluster.diagnosis()
        return text

    def call(self, *arguments: str) -> str:
        return self.finish(self.start(*arguments))

    def runs(self, name: str, to: str = "training") -> list[Path]:
        return sorted((self.folder / to / name).glob("run-*"))


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), cluster)


def log_of(run: Path) -> list[dict[str, Any]]:
    file = run / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def starts(run: Path) -> list[dict[str, Any]]:
    return [line for line in log_of(run) if line.get("event") == "start"]


def last_step(run: Path) -> int:
    return max((line["step"] for line in log_of(run)), default=0)


def in_the_middle(run: Path) -> bool:
    """Beyond a checkpoint, and far from done."""
    assert not (run / "result.json").exists(), "it was too quick to be hit"
    return last_step(run) >= 60


def same_weights(run: Path, other: Path) -> bool:
    return (run / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()


def test_a_sweep_as_one_array_with_a_preemption(site: Site) -> None:
    cluster = site.cluster
    sweep = {"name": "sweep", "grid": {"loop.learning_rate": [0.001, 0.002]}, "seeds": [0, 1, 2]}
    (site.folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    arguments = ("heights", "--sweep", "sweep.yaml", "--executor", "slurm")
    waiting = site.start(*arguments, "--wait", "--set", "slurm.gpus=1")
    wait_for(lambda: len(site.runs("sweep")) == 6, "six folders", timeout_s=120)
    runs = site.runs("sweep")
    hit = runs[PREEMPTED]
    wait_for(lambda: in_the_middle(hit), "the run in the middle of its work", timeout_s=120)
    node = starts(hit)[0]["host"]
    cluster.call("sbatch", "-p", "urgent", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5")
    text = site.finish(waiting)

    jobs = json.loads((site.folder / "training/sweep/jobs.json").read_text())
    arrays = {job.split("_")[0] for job in jobs.values()}
    assert len(arrays) == 1 and sorted(int(job.split("_")[1]) for job in jobs.values()) == list(range(6))
    assert all((run / "result.json").is_file() for run in runs)
    assert text.count("| done |") == 6, text
    first, second = starts(hit)
    assert first["step"] == 0 and second["step"] >= 40, "it went on"
    assert (first["job"], first["restarts"], second["restarts"]) == (jobs[hit.name], "0", "1")
    assert len({start["host"] for run in runs for start in starts(run)}) == 2, "both nodes"

    site.call("heights", "--set", "seed=0", "--set", "loop.learning_rate=0.001", "--to", "here")
    (alone,) = site.runs("tiny", "here")
    assert same_weights(hit, alone)

    # The same command again has nothing to do.
    assert "6 of 6 runs are finished" in site.call(*arguments, "--set", "slurm.gpus=1")
    others = [run for run in runs if len(starts(run)) == 1]
    assert len(others) >= 4, "at most the two runs of that node were hit"


def workers(cluster: PrivateCluster) -> list[int]:
    """The processes that train."""
    found = []
    for process in cluster.own_processes():
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        if b"submitit.core._submit" in command and not command[0].endswith(b"srun"):
            found.append(process.pid)
    return found


def test_over_its_time_limit(site: Site) -> None:
    """It hangs until its limit is near: submitit gets its signal, the run saves, is requeued, and goes on."""
    more = ("--set", "name=limit", "--set", "checkpoints.every=100000")
    limit = ("--set", "slurm.time_min=1", "--set", "slurm.signal_delay_s=5")
    waiting = site.start("heights", *more, *limit, "--executor", "slurm", "--wait")
    wait_for(lambda: bool(site.runs("limit")), "a folder", timeout_s=60)
    (run,) = site.runs("limit")
    wait_for(lambda: in_the_middle(run), "the run in the middle of its work", timeout_s=120)
    for pid in workers(site.cluster):
        os.kill(pid, signal.SIGSTOP)  # SLURM wakes it when it sends the signal
    site.finish(waiting)
    begun = [start["step"] for start in starts(run)]
    saved = [line["step"] for line in log_of(run) if line.get("event") == "saved on a signal"]
    assert len(begun) >= 2 and begun[0] == 0
    assert begun[1:] == saved, "each start goes on from the very step that was saved on the signal"
    site.call("heights", *more, "--to", "here")
    (alone,) = site.runs("limit", "here")
    assert same_weights(run, alone)


def test_killed_and_submitted_again(site: Site) -> None:
    """A run whose process dies fails; the waiting command says so, and the same command goes on with it."""
    arguments = ("heights", "--set", "name=killed", "--executor", "slurm", "--wait")
    waiting = site.start(*arguments)
    wait_for(lambda: bool(site.runs("killed")), "a folder", timeout_s=60)
    (run,) = site.runs("killed")
    wait_for(lambda: in_the_middle(run), "the run in the middle of its work", timeout_s=120)
    for pid in workers(site.cluster):
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    text, _ = waiting.communicate(timeout=180)
    assert waiting.returncode == 1 and "has no result (it was ended from outside)" in text, text
    assert time.monotonic() - started < 120, "without accounting, too"
    again = site.call(*arguments)
    assert "| done |" in again
    first, second = starts(run)
    assert first["step"] == 0 and second["step"] >= 40
    site.call("heights", "--set", "name=killed", "--to", "here")
    (alone,) = site.runs("killed", "here")
    assert same_weights(run, alone)


def test_submitted_twice_is_submitted_once(site: Site) -> None:
    arguments = ("heights", "--set", "name=twice", "--set", "loop.steps=300", "--executor", "slurm")
    site.call(*arguments)
    (run,) = site.runs("twice")
    job = json.loads((site.folder / "training/twice/jobs.json").read_text())[run.name]
    text = site.call(*arguments, "--wait")
    assert f"in the queue as {job}" in text
    assert len(starts(run)) == 1 and starts(run)[0]["job"] == job
