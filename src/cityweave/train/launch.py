"""Where runs work: in this process, in processes of this machine, or as one job array on a cluster.

submitit writes the jobs and requeues those that reach their time limit. What became of them is read from the runs' own
`result.json` and from squeue: submitit itself asks sacct, which without accounting says nothing, so that it would wait
for ever for a job that died; and its result files are pickles, which nothing here opens.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cityweave.errors import CityweaveError, ConfigError, MissingCapability
from cityweave.manifest import write_json
from cityweave.train.runs import FAILED, JOBS, PlannedRun, Training, work

EXECUTORS = ("none", "local", "slurm")
POLL_S = 2.0
GONE_S = 30.0  # a job that left the queue without a result: how long a slow file system may take to show one


class RunsFailed(CityweaveError):  # noqa: N818 - says what happened
    """Some runs of a training have no result."""


@dataclass(frozen=True)
class TrainingJob:
    """What submitit pickles and calls on the node. It holds a folder's name: all else is read there."""

    folder: str
    device: str

    def __call__(self) -> None:
        from cityweave.train.loop import Interrupted, Requests

        requests = Requests()
        number = _leave_signal()
        hand_over = signal.getsignal(number)
        signal.signal(number, requests.on_leave)
        # SLURM sends it before it takes a job off its node, and before it ends a cancelled one. It alone knows which,
        # so this only saves: to leave with an error, or to ask for a requeue, would be wrong in one of the two.
        signal.signal(signal.SIGTERM, requests.on_save)
        try:
            work(Path(self.folder), self.device, requests)
        except Interrupted as interrupted:
            if not callable(hand_over):
                raise
            try:
                hand_over(interrupted.signal_number, None)  # submitit calls `checkpoint`, requeues, ends the process
            except Exception as error:  # it reached its time limit too often
                (Path(self.folder) / FAILED).write_text(f"{error}\n")
                raise

    def checkpoint(self) -> Any:
        """Called by submitit: what the requeued job does is the same again, from the last checkpoint on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _leave_signal() -> signal.Signals:
    """The one that submitit has SLURM send before the time limit."""
    return getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")  # type: ignore[no-any-return]


def launch(training: Training, executor: str, device: str, *, wait: bool) -> None:
    """Start what isn't finished. Raises when a run that was waited for ended without a result."""
    left = [run for run in training.runs if not run.finished]
    if skipped := len(training.runs) - len(left):
        print(f"{skipped} of {len(training.runs)} runs are finished")
    if not left:
        return
    if executor == "none":
        run_here(left, device)
    elif executor == "local":
        run_local(training, left, device)
    else:
        jobs = submit(training, left, device)
        if not wait:
            print(f"they go on without this process; cityweave train results {training.folder} says how far they are")
            return
        wait_for_jobs(training.runs, jobs)
    if lost := [run for run in left if not run.finished]:
        raise RunsFailed("; ".join(f"{run.folder} has no result ({reason(run.folder)})" for run in lost))


def reason(folder: Path) -> str:
    """The last line of what went wrong."""
    file = folder / FAILED
    return file.read_text().strip().splitlines()[-1] if file.is_file() else "it was ended from outside"


def run_here(runs: Sequence[PlannedRun], device: str) -> None:
    """One after the other. Ctrl-C and SIGTERM save first; the same command goes on."""
    from cityweave.train.loop import Interrupted, Requests

    requests = Requests()
    before = {number: signal.signal(number, requests.on_leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for run in runs:
            print(f"{run.folder}: {_said(run)}", flush=True)
            try:
                work(run.folder, device, requests)
            except Interrupted as stop:
                print(f"{run.folder}: saved at step {stop.step}; the same command goes on from there", flush=True)
                raise SystemExit(128 + stop.signal_number) from None
            except CityweaveError as error:
                if len(runs) == 1:
                    raise
                print(f"{run.folder}: {error}", flush=True)  # the others go on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _said(run: PlannedRun) -> str:
    return " ".join(f"{key}={value}" for key, value in run.changes.items()) or run.settings.name


def _submitit_executor(training: Training, cluster: str, **arguments: Any) -> Any:
    try:
        from submitit import AutoExecutor
    except ModuleNotFoundError:
        raise MissingCapability(
            f"--executor {cluster} needs submitit, which is not installed; accepted: make setup EXTRAS=models,hpc, or "
            "--executor none"
        ) from None
    return AutoExecutor(folder=training.folder / "submitit", cluster=cluster, **arguments)


def run_local(training: Training, runs: Sequence[PlannedRun], device: str) -> None:
    """submitit's local executor starts everything at once: here at most `local.parallel`."""
    settings = training.settings
    executor = _submitit_executor(training, "local")
    executor.update_parameters(
        timeout_min=settings.local.time_min,
        gpus_per_node=settings.slurm.gpus,
        local_setup=list(settings.slurm.setup) or None,
    )
    waiting = list(runs)
    working: list[Any] = []
    try:
        while waiting or working:
            working = [job for job in working if not job.done()]
            while waiting and len(working) < settings.local.parallel:
                run = waiting.pop(0)
                working.append(executor.submit(TrainingJob(str(run.folder.absolute()), device)))
                print(f"{run.folder}: process {working[-1].job_id}; {_said(run)}", flush=True)
            time.sleep(0.2)
    except BaseException:
        for job in working:
            job.cancel(check=False)
        raise


def submit(training: Training, runs: Sequence[PlannedRun], device: str) -> dict[str, str]:
    """One array of all runs that aren't in the queue yet; run -> job of all that are now."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise MissingCapability("no sbatch and srun on PATH; accepted: a login node of a cluster, or --executor local")
    record = training.folder / JOBS
    known: dict[str, str] = json.loads(record.read_text()) if record.is_file() else {}
    queued = queue()
    if queued is None:
        raise MissingCapability("squeue doesn't answer, so it can't be told which runs are in the queue; try again")
    kept = {name: job for name, job in known.items() if job in queued}
    new = [run for run in runs if run.folder.name not in kept]
    for run in runs:
        if run not in new:
            print(f"{run.folder}: in the queue as {kept[run.folder.name]}")
    if not new:
        return kept
    executor = _slurm_executor(training)
    from submitit.core.utils import FailedJobError

    try:
        jobs = executor.submit_array([TrainingJob(str(run.folder.absolute()), device) for run in new])
    except FailedJobError as error:
        raise ConfigError(f"sbatch refused: {error}; accepted: what the cluster grants, in the section slurm") from None
    for run, job in zip(new, jobs, strict=True):
        kept[run.folder.name] = job.job_id
        print(f"{run.folder}: job {job.job_id}; {_said(run)}")
    write_json(record, kept)
    return kept


def _slurm_executor(training: Training) -> Any:
    s = training.settings.slurm
    executor = _submitit_executor(training, "slurm", slurm_max_num_timeout=s.max_timeouts)
    executor.update_parameters(
        name=f"train-{training.settings.name}",
        timeout_min=s.time_min,
        mem_gb=s.mem_gb,
        cpus_per_task=s.cpus,
        gpus_per_node=s.gpus or None,
        slurm_partition=s.partition,
        slurm_account=s.account,
        slurm_qos=s.qos,
        slurm_constraint=s.constraint,
        slurm_signal_delay_s=s.signal_delay_s,
        slurm_array_parallelism=s.parallel,
        slurm_setup=list(s.setup) or None,
        slurm_additional_parameters={"requeue": True, **s.extra},
    )
    return executor


def queue() -> dict[str, str] | None:
    """Own jobs that wait or work, elements of arrays one by one; None when the controller doesn't answer."""
    try:
        answer = subprocess.run(
            ["squeue", "--me", "--noheader", "--array", "--format=%i %T"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return None
    return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines() if line.strip())


def wait_for_jobs(
    runs: Sequence[PlannedRun],
    jobs: dict[str, str],
    asked: Callable[[], dict[str, str] | None] = queue,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Until every run has a result, or its job has left the queue for good.

    A controller that doesn't answer says nothing about jobs; a requeued job is in the queue all along.
    """
    gone_since: dict[str, float] = {}
    clock = 0.0
    while True:
        open_runs = [run for run in runs if not run.finished]
        queued = asked() if open_runs else {}
        for run in open_runs:
            name = run.folder.name
            if queued is None or jobs.get(name) in queued:
                gone_since.pop(name, None)
            else:
                gone_since.setdefault(name, clock)
        if all(clock - gone_since.get(run.folder.name, clock) >= GONE_S for run in open_runs):
            return
        pause(POLL_S)
        clock += POLL_S
