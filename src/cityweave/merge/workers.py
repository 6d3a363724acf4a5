"""A function over the tiles of a city: in this process, in processes beside it, or in SLURM jobs.

One worker is no cluster: the work is done here, one tile after the other, and dask isn't imported (importing and
starting it costs some 3 s). More are dask workers, processes of one thread. However many there are and wherever they
run, the same calls are made with the same arguments, so the products are the same to the byte.

What a worker does must be repeatable: when it dies, its task is done again by another.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cityweave.config import MergeConfig, MergeSlurmConfig
from cityweave.errors import CityweaveError, ConfigError, DataError, MissingCapability
from cityweave.fetched import use_compiled_kernels
from cityweave.plan import local_workers

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.deploy.spec import SpecCluster
    from distributed.security import Security

T = TypeVar("T")
R = TypeVar("R")

JOB_NAME = "cityweave_merge"
_IN_FLIGHT = 2  # tasks per worker that are handed out at once: the next one is there when one ends
_DEATHS_FORGIVEN = 2  # of workers, per task
_LOOK_S = 20.0  # how often to look after workers while no task ends
_STOP_S = 60.0  # how long work that is under way may take to end after an error
_LOST_FORGIVEN = 3  # jobs per worker, in a row, that end before any is here
_VISIBLE_S = 90.0  # a shared file system may show a file of another node this late


class Workers:
    """One worker: this process."""

    count = 1
    threads_per_task = 1  # that each of two tasks may use when there are no more

    def map(self, work: Callable[[T], R], items: Mapping[str, T]) -> Iterator[tuple[str, R]]:
        """(name, result) of every item, in the order in which they end. An error names its item."""
        for name, item in items.items():
            with _named(name):
                result = work(item)
            yield name, result

    def usage(self) -> dict[str, Any]:
        """For the run record, when all is done."""
        return {}


@contextmanager
def open_workers(merge: MergeConfig, cpus: int, tiles: int, scratch: Path) -> Iterator[Workers]:
    """`cpus` is what the job itself may use on its node, `scratch` a folder that every node sees."""
    if merge.cluster == "slurm":
        require_slurm()
        with _stoppable(), _slurm(merge.workers, merge.slurm, scratch) as workers:
            yield workers
        return
    count = min(cpus, local_workers(merge, tiles))
    if count < 2:
        yield Workers()
        return
    with _stoppable(), _local(count) as workers:
        yield workers


def require_slurm() -> None:
    """Refuse merge.cluster: slurm where it can't be served."""
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise MissingCapability(
            "merge.cluster is slurm, which needs dask-jobqueue: install it with make setup EXTRAS=hpc, or "
            "pip install 'cityweave[hpc]'; accepted without it: merge.cluster: local"
        )
    if shutil.which("sbatch") is None:
        raise MissingCapability(
            "merge.cluster is slurm, but there is no sbatch on PATH here; accepted: a machine that may submit jobs, "
            "or merge.cluster: local"
        )


def await_files(folder: Path, names: Collection[str], timeout_s: float = _VISIBLE_S) -> None:
    """Wait until this node sees every file that workers say they wrote below `folder`."""
    deadline = time.monotonic() + timeout_s
    while True:
        here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        missing = sorted(set(names) - here)
        if not missing:
            return
        if time.monotonic() > deadline:
            raise DataError(
                f"{folder}: {len(missing)} files that workers wrote can't be seen here after {timeout_s:.0f} s, such "
                f"as {missing[0]}; accepted: a run on a file system that all nodes share"
            )
        time.sleep(1.0)


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except CityweaveError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        error.add_note(f"while merging {name}")
        raise


@dataclass(frozen=True)
class _Answer:
    result: Any
    cpu_s: float
    peak_rss_mb: float


def _task(folder: str, work: Callable[[T], R], item: T) -> _Answer:
    """Runs in a worker, in the folder that relative paths count from."""
    os.chdir(folder)
    use_compiled_kernels()
    started = time.process_time()
    result = work(item)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return _Answer(result, time.process_time() - started, peak)


class _DaskWorkers(Workers):
    def __init__(self, client: Client, count: int, look_after: Callable[[], None] | None = None) -> None:
        self.count = count
        self._client = client
        self._beside = look_after is None  # on this node, with its processors
        self._look_after = look_after or (lambda: None)
        self.threads_per_task = max(1, count // 2) if self._beside else 1
        self._numbers = itertools.count()
        self._cpu_s = 0.0
        self._peak_rss_mb = 0.0

    def map(self, work: Callable[[T], R], items: Mapping[str, T]) -> Iterator[tuple[str, R]]:
        waiting = iter(items.items())
        running: dict[Future, str] = {}
        ended: deque[Future] = deque()
        folder = str(Path.cwd())
        try:
            while True:
                for name, item in itertools.islice(waiting, _IN_FLIGHT * self.count - len(running)):
                    key = f"{name}-{next(self._numbers)}"
                    running[self._client.submit(_task, folder, work, item, key=key, pure=False)] = name
                if not ended:
                    if not running:
                        return
                    ended.extend(self._wait(running))
                future = ended.popleft()
                name = running.pop(future)
                answer = self._answer(future, name)
                self._cpu_s += answer.cpu_s
                self._peak_rss_mb = max(self._peak_rss_mb, answer.peak_rss_mb)
                del future  # lets the worker forget the result
                yield name, answer.result
        finally:
            self._stop(list(running))

    def _stop(self, running: list[Future]) -> None:
        """After this nothing is written any more: dask takes back only what no worker has begun."""
        from distributed import wait

        if running and not isinstance(sys.exception(), SystemExit):  # then the workers go with this process
            with contextlib.suppress(TimeoutError):
                wait(running, timeout=_STOP_S)
        self._client.cancel(running, force=True)

    def _wait(self, running: dict[Future, str]) -> list[Future]:
        from distributed import wait

        while True:
            with contextlib.suppress(TimeoutError):
                return list(wait(list(running), timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
            self._look_after()

    def _answer(self, future: Future, name: str) -> _Answer:
        from distributed import KilledWorker

        with _named(name):
            try:
                answer: _Answer = future.result()
            except KilledWorker as error:
                raise MissingCapability(
                    f"the worker that merged it died {error.allowed_failures + 1} times, out of memory most likely; "
                    "accepted: fewer merge.workers or more memory for the job, with merge.cluster: slurm more "
                    "merge.slurm.memory_mb"
                ) from error
        return answer

    def usage(self) -> dict[str, Any]:
        facts = {"count": self.count, "cpu_s": round(self._cpu_s, 3), "peak_rss_mb": round(self._peak_rss_mb, 1)}
        return {"workers": facts | {"beside": self._beside}}


@contextmanager
def _stoppable() -> Iterator[None]:
    """A job that is told to end takes its workers along."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _security() -> Security:
    """Whoever reaches a dask port may run code as its user: only those who hold this job's keys get in."""
    from distributed.security import Security

    return Security.temporary()


@contextmanager
def _dask_settings() -> Iterator[None]:
    import dask

    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS_FORGIVEN,
        "distributed.scheduler.worker-saturation": 1.0,  # the one task that a worker has is the one that killed it
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.comm.timeouts.connect": "60s",
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    with dask.config.set(settings):
        yield


@contextmanager
def _local(count: int) -> Iterator[Workers]:
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        stack.enter_context(_dask_settings())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cityweave-merge-"))
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # the job's own limit is the limit
            host="127.0.0.1",
            protocol="tls://",
            security=_security(),
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            local_directory=folder,
        )
        stack.callback(cluster.close)
        client = stack.enter_context(Client(cluster))
        yield _DaskWorkers(client, count)


@contextmanager
def _slurm(count: int, settings: MergeSlurmConfig, scratch: Path) -> Iterator[Workers]:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    scratch = scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    for remains in scratch.glob(".dask-jobqueue.*"):  # keys of an attempt that was killed
        remains.unlink()
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # Slurm's own limit is the limit: a worker that paused short of it would wait for ever.
    limits = ("TARGET", "SPILL", "PAUSE")
    with ExitStack() as stack:
        stack.enter_context(_dask_settings())
        cluster = SLURMCluster(
            cores=1,
            processes=1,
            memory=f"{settings.memory_mb}MB",
            job_mem=f"{settings.memory_mb}M",
            walltime=str(settings.runtime_min),
            queue=settings.partition,
            account=settings.account,
            job_name=JOB_NAME,
            job_extra_directives=list(settings.extra),
            job_script_prologue=[
                *(f"export {name}=1" for name in threads),
                *(f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}=False" for name in limits),
            ],
            python=sys.executable,
            interface=settings.interface,
            local_directory=settings.local_dir,
            log_directory=str(scratch),
            security=_security(),
            shared_temp_directory=str(scratch),
            scheduler_options={"dashboard": False, "dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
        )
        stack.callback(cluster.close)
        _check_request(cluster.job_script())
        client = stack.enter_context(Client(cluster))
        cluster.scale(jobs=count)
        caretaker = _Caretaker(cluster, count, scratch)
        yield _DaskWorkers(client, count, caretaker.look)


def _check_request(script: str) -> None:
    """Ask Slurm whether it would take such a job, since dask only logs that it doesn't."""
    asked = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ConfigError(
            f"Slurm refuses the workers that merge.slurm describes: {asked.stderr.strip() or asked.stdout.strip()}"
        )


class _Caretaker:
    """Asks for a new SLURM worker where one is gone, and gives up when none ever gets here."""

    def __init__(self, cluster: SpecCluster, count: int, scratch: Path) -> None:
        self._cluster, self._count, self._scratch = cluster, count, scratch
        self._lost_before_work = 0

    def look(self) -> None:
        here = {worker["name"] for worker in self._cluster.scheduler_info["workers"].values()}
        jobs = {name: getattr(job, "job_id", None) for name, job in list(self._cluster.workers.items())}
        queued = _queued_jobs()
        lost = [
            name for name, job in jobs.items() if job and queued is not None and {name, job}.isdisjoint(here | queued)
        ]
        self._lost_before_work = 0 if here else self._lost_before_work + len(lost)
        if self._lost_before_work > _LOST_FORGIVEN * self._count:
            raise MissingCapability(
                f"the SLURM jobs that should merge end without reaching {self._cluster.scheduler_address}; what they "
                f"say is in {self._scratch}; accepted: merge.slurm.interface naming a network between the nodes, "
                "or merge.cluster: local"
            )
        for name in lost:  # dask itself forgets only those that once were here
            self._cluster.workers.pop(name, None)
        self._cluster.scale(self._count)


def _queued_jobs() -> set[str] | None:
    """Jobs of this user that wait or run; None when Slurm doesn't answer, as while its controller restarts."""
    command = ["squeue", "--me", "--noheader", "--format", "%i"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if asked.returncode else set(asked.stdout.split())
