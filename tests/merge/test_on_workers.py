"""Both merges come out the same to the byte, whoever did which tile when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cityweave.config import MergeConfig
from cityweave.errors import DataError
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.merge import job, workers
from cityweave.merge.workers import Workers, open_workers
from cityweave.plan import city_tiles
from cityweave.texture import job as texture_job
from tests.texture import scene

PRODUCTS = ("city_dsm.tif", "city_dtm.tif", "city.zarr", "tiles3d", "city.glb", "tiles.geojson", "stac")


def hashes(run: Run) -> dict[str, str]:
    manifests = [run.manifest_path(name) for name in ("merge_heights", "merge_city")]
    return {path.name: content_hash(path) for path in [*(run.folder / name for name in PRODUCTS), *manifests]}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Run, dict[str, str]]:
    run = scene.make_run(tmp_path_factory.mktemp("results") / "boxes", quarantined=(1, 0))
    for tile in city_tiles(run.config):
        texture_job.run(run, tile)
    job.heights(run)
    job.city(run)
    return run, hashes(run)


@pytest.fixture
def city(made) -> Iterator[tuple[Run, dict[str, str]]]:
    """The city with its merged products taken away."""
    run, expected = made
    for name in PRODUCTS:
        path = run.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    yield run, expected
    job.heights(run)
    job.city(run)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[Workers]:
    with open_workers(MergeConfig(), 2, 100, tmp_path_factory.mktemp("scratch")) as workers:
        yield workers


@pytest.fixture
def two(pair, monkeypatch) -> None:
    """The same two workers for every job that may use two processors: starting them takes longer than the work."""

    @contextmanager
    def opened(merge: MergeConfig, cpus: int, *_: Any) -> Iterator[Workers]:
        yield pair if cpus == 2 else Workers()

    monkeypatch.setattr(job, "open_workers", opened)


class LastFirst(Workers):
    count = 3
    threads_per_task = 2

    def map(self, work: Callable[[Any], Any], items: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        yield from reversed([(name, work(item)) for name, item in reversed(items.items())][1:])
        name, item = list(items.items())[-1]
        yield name, work(item)  # done twice, as after a death


def test_two_workers_make_the_same_bytes(city, two):
    run, expected = city
    for merge in (job.heights, job.city):
        merge(run, 2)
    assert hashes(run) == expected
    assert not list(run.folder.rglob("*.tmp*"))


def test_the_order_in_which_tiles_end_is_not_seen(city, monkeypatch):
    run, expected = city

    @contextmanager
    def last_first(*_: Any) -> Iterator[Workers]:
        yield LastFirst()

    monkeypatch.setattr(job, "open_workers", last_first)
    for merge in (job.heights, job.city):
        merge(run, 2)
    assert hashes(run) == expected


def test_records_say_who_worked(city, two):
    run, _ = city
    job.heights(run, 2)
    record = json.loads((run.folder / "city" / "merge_heights.run.json").read_text())
    assert record["workers"]["count"] == 2
    assert record["workers"]["beside"] is True
    assert record["work_cpu_s"] > record["workers"]["cpu_s"] > 0
    assert record["peak_rss_mb"] > 2 * record["workers"]["peak_rss_mb"] > 0


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_damaged_tile_is_named_and_nothing_is_delivered(city, two, cpus):
    run, expected = city
    tile = city_tiles(run.config)[2]
    product = Manifest.read(run.manifest_path("dsm", tile)).product("dsm")
    hidden = product.rename(product.with_name("hidden"))
    with pytest.raises(DataError, match=f"^{tile.name}: .*is gone or damaged; rerun with"):
        job.heights(run, cpus)
    assert not (run.folder / "city_dsm.tif").exists()
    assert not run.manifest_path("merge_heights").exists()
    hidden.rename(product)
    job.heights(run, cpus)
    job.city(run)
    assert hashes(run) == expected


def test_a_raster_waits_for_shards_that_are_not_to_be_seen(city, monkeypatch):
    """A cell that isn't there must not become nodata in silence."""
    run, _ = city
    monkeypatch.setattr(workers.await_files, "__defaults__", (0.1,))
    cut = job._cut

    def lost(task: Any) -> list[str]:
        written = cut(task)
        (Path(task.store) / written[0]).unlink()
        return written

    monkeypatch.setattr(job, "_cut", lost)
    with pytest.raises(DataError, match=r"3 files that workers wrote can't be seen here .* such as dsm/c/"):
        job.heights(run)
