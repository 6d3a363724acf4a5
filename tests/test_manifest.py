from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cityweave.errors import DataError, Quarantine
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import city_tiles, load_config


@pytest.fixture
def run(tmp_path: Path, city_values: dict) -> Run:
    config = load_config(city_values)
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    return Run.open(tmp_path)


def write(text: str):  # type: ignore[no-untyped-def]
    def work(products: Products) -> None:
        with products.path("heights", ".txt") as path:
            path.write_text(text)
        products.notes["length"] = len(text)

    return work


def test_a_redone_job_writes_the_same_bytes(run: Run) -> None:
    tile = city_tiles(run.config)[0]
    first = run_job(run, "dsm", write("a"), tile=tile).path.read_bytes()
    second = run_job(run, "dsm", write("a"), tile=tile).path.read_bytes()
    assert first == second
    assert str(run.folder).encode() not in first


def test_a_changed_result_replaces_the_old_product(run: Run) -> None:
    tile = city_tiles(run.config)[0]
    old = run_job(run, "dsm", write("a"), tile=tile).product("heights")
    new = run_job(run, "dsm", write("b"), tile=tile).product("heights")
    assert old != new and not old.exists() and new.read_text() == "b"


def test_redoing_a_job_mends_a_damaged_product(run: Run) -> None:
    tile = city_tiles(run.config)[0]
    manifest = run_job(run, "dsm", write("whole"), tile=tile)
    manifest.product("heights").write_text("broken off")
    with pytest.raises(DataError, match="gone or damaged"):
        manifest.product("heights")
    assert run_job(run, "dsm", write("whole"), tile=tile).product("heights").read_text() == "whole"


def test_a_job_that_dies_leaves_nothing_that_looks_finished(run: Run) -> None:
    tile = city_tiles(run.config)[0]

    def dies(products: Products) -> None:
        with products.path("heights", ".txt") as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(run, "dsm", dies, tile=tile)
    left = sorted(path.name for path in run.tile_folder(tile).iterdir())
    assert left == ["dsm.attempt", "heights.dsm.tmp"]
    (run.tile_folder(tile) / "heights.0123456789ab.txt").write_text("renamed, then killed")
    manifest = run_job(run, "dsm", write("whole"), tile=tile)
    left = sorted(path.name for path in run.tile_folder(tile).iterdir())
    assert left == sorted(["dsm.json", "dsm.run.json", manifest.product("heights").name])


def test_a_lost_product_is_named_with_the_way_to_mend_it(run: Run) -> None:
    tile = city_tiles(run.config)[0]
    manifest = run_job(run, "dsm", write("a"), tile=tile)
    manifest.product("heights").unlink()
    with pytest.raises(DataError, match=r"snakemake --force .*dsm\.json"):
        Manifest.read(manifest.path).product("heights")


def test_quarantine_is_written_and_not_an_error(run: Run) -> None:
    tile = city_tiles(run.config)[0]

    def refuses(products: Products) -> None:
        raise Quarantine("no view sees it")

    manifest = run_job(run, "dsm", refuses, tile=tile)
    assert manifest.quarantined == "no view sees it"
    assert manifest.values["products"] == []


def test_a_resumed_pack_takes_over_what_is_finished(run: Run) -> None:
    tile = city_tiles(run.config)[0]
    path = run_job(run, "dsm", write("a"), tile=tile).path
    text = path.read_bytes()
    path.unlink()  # as the workflow does before it runs a job again
    calls: list[int] = []

    def counts(products: Products) -> None:
        calls.append(1)
        write("a")(products)

    run_job(replace(run, resume=True), "dsm", counts, tile=tile)
    assert not calls and path.read_bytes() == text
    (run.tile_folder(tile) / json.loads(text)["products"][0]["path"]).unlink()
    path.unlink()
    run_job(replace(run, resume=True), "dsm", counts, tile=tile)
    assert calls and path.read_bytes() == text


def test_a_folder_product_is_hashed_by_names_and_contents(run: Run) -> None:
    def folder(name: str):  # type: ignore[no-untyped-def]
        def work(products: Products) -> None:
            with products.path("store", ".zarr") as path:
                path.mkdir()
                (path / name).write_text("x")

        return work

    one = run_job(run, "survey", folder("a")).product("store")
    two = run_job(run, "survey", folder("b")).product("store")
    assert one.name != two.name and not one.exists()
