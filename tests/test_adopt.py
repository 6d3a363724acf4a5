from __future__ import annotations

import json
from pathlib import Path

import pytest

from cityweave.adopt import adopt
from cityweave.errors import ConfigError, DataError
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import TILE_MANIFESTS, city_tiles, load_config


def opened(folder: Path, values: dict) -> Run:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(load_config(values).model_dump(mode="json")))
    return Run.open(folder)


def make(products: Products) -> None:
    with products.path(f"store_{products.prefix}") as path:
        path.mkdir()
        (path / "a").write_text(products.prefix)


@pytest.fixture
def other(tmp_path: Path, city_values: dict) -> Run:
    run = opened(tmp_path / "first" / "test", city_values)
    run_job(run, "survey", make)
    for tile in city_tiles(run.config):
        for name in ("ingest", "dsm", "mesh"):
            run_job(run, TILE_MANIFESTS[name], make, name=name, tile=tile)
    (run.folder / "benchmarks" / "dsm").mkdir(parents=True)
    (run.folder / "benchmarks" / "dsm" / "x.jsonl").write_text('{"s": 1}')
    (run.folder / "benchmarks" / "survey.jsonl").write_text('{"s": 1}')
    return run


def adopting(values: dict, other: Run, *stages: str, **over: dict) -> dict:
    return values | over | {"workflow": {"adopt": {"run": str(other.folder), "stages": list(stages)}}}


def test_manifests_and_products_are_taken_over_by_link(tmp_path: Path, city_values: dict, other: Run) -> None:
    values = adopting(city_values, other, "survey", "ingest", "dsm", geometry={"level_errors_m": [1.0]})
    run = opened(tmp_path / "second" / "test", values)
    assert adopt(run) == 9
    tile = city_tiles(run.config)[2]
    assert run.manifest_path("dsm", tile).read_bytes() == other.manifest_path("dsm", tile).read_bytes()
    ours, theirs = (Manifest.read(r.manifest_path("dsm", tile)).product("store_dsm") / "a" for r in (run, other))
    assert ours.stat().st_ino == theirs.stat().st_ino
    record = json.loads(run.manifest_path("dsm", tile).with_name("dsm.run.json").read_text())
    assert record["adopted_from"] == str(other.folder) and record["work_s"] >= 0
    assert not run.manifest_path("mesh", tile).exists()
    taken = sorted(path.relative_to(run.folder).as_posix() for path in (run.folder / "benchmarks").rglob("*.jsonl"))
    assert taken == ["benchmarks/dsm/x.jsonl", "benchmarks/survey.jsonl"]


def test_the_other_run_keeps_its_own_when_this_one_goes_on(tmp_path: Path, city_values: dict, other: Run) -> None:
    run = opened(tmp_path / "second" / "test", adopting(city_values, other, "survey"))
    adopt(run)

    def change(products: Products) -> None:
        with products.path("store_survey") as path:
            path.mkdir()
            (path / "a").write_text("else")

    run_job(run, "survey", change)
    assert (Manifest.read(other.manifest_path("survey")).product("store_survey") / "a").read_text() == "survey"
    adopt(run)
    assert (Manifest.read(run.manifest_path("survey")).product("store_survey") / "a").read_text() == "survey"
    assert len(list((run.folder / "city").glob("store_survey.*"))) == 1


def test_other_parameters_are_refused(tmp_path: Path, city_values: dict, other: Run) -> None:
    values = adopting(city_values, other, "survey", "ingest", "dsm", dsm={"visibility_rounds": 0})
    with pytest.raises(DataError, match="other parameters of dsm"):
        adopt(opened(tmp_path / "second" / "test", values))
    with pytest.raises(DataError, match="or another seed"):
        adopt(opened(tmp_path / "third" / "test", adopting(city_values, other, "survey", seed=5)))


def test_nothing_to_adopt_is_said(other: Run) -> None:
    with pytest.raises(ConfigError, match=r"workflow\.adopt is empty"):
        adopt(other)
