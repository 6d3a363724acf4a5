"""Tiles over workers: nothing lost, nothing in a pile, errors that say where; real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cityweave.config import MergeConfig
from cityweave.errors import DataError, MissingCapability
from cityweave.merge import workers as module
from cityweave.merge.workers import Workers, await_files, open_workers
from cityweave.plan import load_config, stage_params

MANY = 100  # tiles, enough to be worth two workers


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Iterator[Workers]:
    with open_workers(MergeConfig(), 2, MANY, tmp_path_factory.mktemp("scratch")) as workers:
        assert workers.count == 2
        yield workers


def square(number: int) -> int:
    return number * number


def sleep_long_first(number: int) -> tuple[int, int]:
    time.sleep(0.6 if number == 0 else 0.01)
    return number, os.getpid()


def fail_at(number: int) -> int:
    if number == 3:
        raise DataError("its height model is gone")
    if number == 13:
        raise ZeroDivisionError("a defect")
    return number


def fail_or_write_late(path: str) -> None:
    if Path(path).name == "failing":
        raise DataError("its height model is gone")
    time.sleep(0.5)
    Path(path).touch()


def die_once(marker: str) -> int:
    path = Path(marker)
    if path.name == "unlucky" and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class Drawn(Mapping[str, int]):
    """Items that count how many were asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.drawn = count, 0

    def __getitem__(self, key: str) -> int:
        return int(key)

    def __iter__(self) -> Iterator[str]:
        return map(str, range(self.count))

    def __len__(self) -> int:
        return self.count

    def items(self) -> Any:
        for number in range(self.count):
            self.drawn += 1
            yield str(number), number


def test_results_are_those_of_one_process(two, tmp_path):
    items = {f"t{n}": n for n in range(40)}
    with open_workers(MergeConfig(workers=1), 2, MANY, tmp_path) as one:
        assert dict(two.map(square, items)) == dict(one.map(square, items)) == {f"t{n}": n * n for n in range(40)}


def test_tasks_end_in_another_order_on_both_workers(two):
    found = list(two.map(sleep_long_first, {f"t{n}": n for n in range(20)}))
    names = [name for name, _ in found]
    assert sorted(names) == sorted(f"t{n}" for n in range(20))
    assert names.index("t0") > 3
    assert len({pid for _, (_, pid) in found}) == 2
    assert os.getpid() not in {pid for _, (_, pid) in found}


def test_no_more_is_handed_out_than_workers_need(two):
    items = Drawn(50)
    most = 0
    for done, _ in enumerate(two.map(square, items)):
        most = max(most, items.drawn - done)
    assert items.drawn == 50
    assert most == module._IN_FLIGHT * two.count


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_names_its_tile(two, tmp_path, count):
    with open_workers(MergeConfig(workers=1), 1, MANY, tmp_path) as one:
        workers = {1: one, 2: two}[count]
        with pytest.raises(DataError, match=r"^t3: its height model is gone$"):
            list(workers.map(fail_at, {f"t{n}": n for n in range(10)}))
        with pytest.raises(ZeroDivisionError) as defect:
            list(workers.map(fail_at, {f"t{n}": n for n in range(10, 20)}))
        assert defect.value.__notes__ == ["while merging t13"]
        assert dict(workers.map(square, {"next": 4})) == {"next": 16}


def test_after_an_error_nothing_is_written_any_more(two, tmp_path):
    with pytest.raises(DataError, match="failing"):
        list(two.map(fail_or_write_late, {name: str(tmp_path / name) for name in ("failing", "a", "b", "c")}))
    written = sorted(tmp_path.iterdir())
    time.sleep(1.5)
    assert sorted(tmp_path.iterdir()) == written


def test_a_worker_that_dies_loses_no_tile(two, tmp_path):
    items = {f"t{n}": str(tmp_path / ("unlucky" if n == 5 else str(n))) for n in range(12)}
    assert set(dict(two.map(die_once, items))) == set(items)
    assert (tmp_path / "unlucky").exists()


def test_a_tile_that_kills_every_worker_is_named(two):
    with pytest.raises(MissingCapability, match=r"^t2: the worker that merged it died 3 times.*merge\.workers"):
        list(two.map(die, {f"t{n}": n for n in range(6)}))
    assert dict(two.map(square, {"next": 4})) == {"next": 16}


def test_nothing_is_left_after_an_error(tmp_path):
    pids: set[int] = set()
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(DataError, match="t3"),
        open_workers(MergeConfig(), 2, MANY, tmp_path) as workers,
    ):
        pids = {pid for _, (_, pid) in workers.map(sleep_long_first, {f"t{n}": n for n in range(20)})}
        list(workers.map(fail_at, {f"t{n}": n for n in range(10)}))
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert signal.getsignal(signal.SIGTERM) == before


def test_one_process_imports_no_dask(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cityweave.config import MergeConfig\n"
        "from cityweave.merge import job\n"
        "from cityweave.merge.workers import open_workers\n"
        "with open_workers(MergeConfig(), 1, 1000, Path('scratch')) as workers:\n"
        "    assert workers.count == 1 and dict(workers.map(abs, {'a': -1})) == {'a': 1}\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("workers", "cpus", "tiles", "count"), [(4, 1, 999, 1), (1, 8, 999, 1), (4, 8, 31, 1)])
def test_a_cluster_is_started_only_where_it_pays(tmp_path, workers, cpus, tiles, count):
    with open_workers(MergeConfig(workers=workers), cpus, tiles, tmp_path) as opened:
        assert opened.count == count


def test_slurm_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(MissingCapability, match="make setup EXTRAS=hpc"),
        open_workers(MergeConfig(cluster="slurm"), 1, MANY, tmp_path),
    ):
        pass


def test_slurm_where_nothing_can_be_submitted_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(MissingCapability, match="no sbatch on PATH"),
        open_workers(MergeConfig(cluster="slurm"), 1, MANY, tmp_path),
    ):
        pass


def test_files_that_are_not_there_are_waited_for_and_named(tmp_path):
    (tmp_path / "dsm").mkdir()
    (tmp_path / "dsm" / "a").touch()
    await_files(tmp_path, {"dsm/a"})
    with pytest.raises(DataError, match=r"1 files .* such as dsm/b"):
        await_files(tmp_path, {"dsm/a", "dsm/b"}, timeout_s=0.1)


def test_where_tiles_are_merged_is_no_part_of_the_result(city_values):
    here = load_config(city_values)
    there = load_config(
        city_values | {"merge": {"workers": 9, "cluster": "slurm", "slurm": {"partition": "big", "extra": ["--qos=x"]}}}
    )
    assert stage_params(here, "merge") == stage_params(there, "merge")
    finer = load_config(city_values | {"merge": {"jpeg_quality": 90}})
    assert stage_params(here, "merge") != stage_params(finer, "merge")


@pytest.mark.parametrize(
    ("merge", "complaint"),
    [
        ({"workers": 0}, "merge.workers.*greater than or equal to 1"),
        ({"cluster": "pbs"}, "merge.cluster.*'local' or 'slurm'"),
        ({"slurm": {"queue": "big"}}, "unknown key merge.slurm.queue; accepted there: partition, account"),
    ],
)
def test_refused_configurations(city_values, merge, complaint):
    from cityweave.errors import ConfigError

    with pytest.raises(ConfigError, match=complaint):
        load_config(city_values | {"merge": merge})


class Lost:
    """What the caretaker sees of a dask cluster whose jobs end before they get here."""

    scheduler_address = "tls://10.0.0.1:4000"

    def __init__(self) -> None:
        self.scheduler_info: dict[str, dict] = {"workers": {}}
        self.workers: dict[str, SimpleNamespace] = {}
        self.submitted = 0

    def scale(self, count: int) -> None:
        for name in {f"worker-{number}" for number in range(count)} - set(self.workers):
            self.submitted += 1
            self.workers[name] = SimpleNamespace(job_id=str(self.submitted))


def test_workers_that_never_get_here_are_given_up(tmp_path, monkeypatch):
    cluster = Lost()
    caretaker = module._Caretaker(cluster, 2, tmp_path)
    monkeypatch.setattr(module, "_queued_jobs", lambda: None)  # Slurm doesn't answer: nobody knows
    for _ in range(20):
        caretaker.look()
    assert cluster.submitted == 2
    monkeypatch.setattr(module, "_queued_jobs", lambda: {"1", "2"})  # they wait for a node
    for _ in range(20):
        caretaker.look()
    assert cluster.submitted == 2
    monkeypatch.setattr(module, "_queued_jobs", lambda: set())
    with pytest.raises(
        MissingCapability, match=r"end without reaching tls://10\.0\.0\.1:4000.*merge\.slurm\.interface"
    ):
        for _ in range(20):
            caretaker.look()
    assert cluster.submitted == 2 * (module._LOST_FORGIVEN + 1)
