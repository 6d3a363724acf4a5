from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cityweave.bench.record import figures, make_record, publish, read_records
from cityweave.bench.source import source_state
from cityweave.bench.suite import Suite, read_suite
from cityweave.cli import main
from cityweave.errors import ConfigError, DataError, Quarantine
from cityweave.machine import describe
from cityweave.manifest import Products, Run, run_job, write_json
from cityweave.plan import CITY_MANIFESTS, TILE_MANIFESTS, city_tiles

CLEAN = {"commit": "a" * 40, "clean": True, "changed": []}


@pytest.fixture
def suite(tmp_path: Path, city_values: dict) -> Suite:
    for view in city_values["sources"]["views"]:
        view["path"] = str(tmp_path / f"{view['name']}.tif")
        Path(view["path"]).write_text(view["name"])
    metric = {"key": "dsm.mae_m", "label": "error", "unit": "m", "better": "lower", "tolerance": 0.005}
    values = {"description": "d", "config": city_values, "seeds": [0], "variants": {"default": {}}, "metrics": [metric]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return read_suite(str(tmp_path / "mine.yaml"), tmp_path)


def heights(products: Products) -> None:
    products.notes["steps"] = 10
    with products.path("layer", ".txt") as path:
        path.write_text("h")


@pytest.fixture
def run(tmp_path: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that pretends to be done."""
    monkeypatch.setattr("cityweave.bench.record.pixels_and_km2", lambda kind, config: (1e6, 0.01))
    monkeypatch.setattr("cityweave.bench.record.physical_floor", lambda *_: None)
    folder = tmp_path / "results" / "test"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(suite.runs[0].config.model_dump(mode="json")))
    run = Run.open(folder)
    for name, stage in CITY_MANIFESTS.items():
        if name != "synth":
            run_job(run, stage, heights, name=name)
    for tile in city_tiles(run.config):
        for name, stage in TILE_MANIFESTS.items():
            run_job(run, stage, heights, name=name, tile=tile)
    write_json(folder / "metrics.json", {"dsm": {"mae_m": 0.4}, "cost": {"wall_s": 3.0}})
    write_json(folder / "timing.json", {"machine": describe(), "calibration": {"copy_gb_s": 10.0}, "stages": {}})
    return run


def refusals(suite: Suite, run: Run, source: dict = CLEAN) -> str:
    return "; ".join(make_record(suite, suite.runs[0], run, source)["refused"])


def test_a_complete_run_from_a_clean_tree_is_a_reference(suite: Suite, run: Run, tmp_path: Path) -> None:
    record = make_record(suite, suite.runs[0], run, CLEAN)
    assert record["refused"] == []
    assert record["inputs"][str(tmp_path / "a.tif")]["sha256"] and record["metrics"]["dsm"]["mae_m"] == 0.4
    assert record["stages"]["fit"]["units"] == 16 and record["stages"]["dsm"]["units"] == 4
    assert len(record["products"]) == 5 + 4 * 7 - 0 or record["products"]
    assert record["machine"]["cpu"] and record["versions"]["numpy"]
    (file,) = publish([record], tmp_path / "bench")
    assert file == tmp_path / "bench" / "mine" / "default-s0.json" and read_records([file])[0]["seed"] == 0


def test_a_dirty_tree_is_refused(suite: Suite, run: Run, tmp_path: Path) -> None:
    dirty = {"commit": "a" * 40, "clean": False, "changed": ["src/x.py"]}
    assert refusals(suite, run, dirty) == "the tree was not clean: src/x.py"
    with pytest.raises(DataError, match=r"default-s0: the tree was not clean: src/x\.py"):
        publish([make_record(suite, suite.runs[0], run, dirty)], tmp_path / "bench")
    assert not (tmp_path / "bench").exists()


def test_an_unknown_commit_is_refused(suite: Suite, run: Run) -> None:
    assert "commit is not known" in refusals(suite, run, {"commit": None, "clean": False, "changed": []})


def test_missing_and_changed_inputs_are_refused(suite: Suite, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.tif").unlink()
    assert "a.tif is missing" in refusals(suite, run)
    pinned = Suite(
        suite.name, suite.file, suite.plan.model_copy(update={"data": {tmp_path / "b.tif": "0"}}), suite.runs
    )
    assert "b.tif is not the one that the suite pins" in refusals(pinned, run)


def test_a_quarantined_and_a_missing_tile_are_refused(suite: Suite, run: Run) -> None:
    first, second = city_tiles(run.config)[:2]

    def clouds(products: Products) -> None:
        raise Quarantine("clouds")

    run_job(run, "texture", clouds, tile=first)
    run.manifest_path("texture", second).unlink()
    said = refusals(suite, run)
    assert f"tile {first.name} is quarantined: clouds" in said
    assert f"tile {second.name}: texture is missing" in said


def test_a_job_of_every_kind_is_looked_up(suite: Suite, run: Run) -> None:
    values = run.config.model_dump(mode="json")
    values["dsm"] = {"method": "fused"}
    values["sources"]["ortho"] = [{"name": "ortho", "path": "ortho.tif"}]
    (run.folder / "config.json").write_text(json.dumps(values))
    fused = Run.open(run.folder)
    for name, stage in (("stereo", "dsm"), ("cityscale", "cityscale")):
        run_job(fused, stage, heights, name=name, tile=city_tiles(fused.config)[0])
    record = make_record(suite, suite.runs[0], fused, CLEAN)
    assert {"cityscale", "dsm", "fuse"} <= set(record["stages"])
    assert not any("made by other code" in reason for reason in record["refused"])


def test_an_unfinished_run_is_refused(suite: Suite, run: Run) -> None:
    (run.folder / "metrics.json").unlink()
    (run.folder / "timing.json").unlink()
    said = refusals(suite, run)
    assert "there is no metrics.json" in said and "the machine was not measured" in said


def test_other_code_and_another_machine_are_refused(suite: Suite, run: Run) -> None:
    path = run.manifest_path("survey").with_name("survey.run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "old", "cpu": "another CPU"}))
    said = refusals(suite, run)
    assert "survey was made by other code" in said and "stages ran on" in said


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no record"):
        read_records([tmp_path])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="no record of format"):
        read_records([tmp_path])


def test_figures_leave_the_cost_out() -> None:
    assert figures({"dsm": {"mae_m": 1.0}, "mesh": {"f1": {"1": 0.5}}, "cost": {"wall_s": 1}}) == {
        "dsm.mae_m": 1.0,
        "mesh.f1.1": 0.5,
    }


def git(folder: Path, *arguments: str) -> None:
    name = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_state_of_a_clone(tmp_path: Path) -> None:
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    assert source_state(package)["commit"] is None
    git(tmp_path, "init")
    (package / "__init__.py").write_text("")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-m", "one")
    assert source_state(package)["clean"] is True
    (tmp_path / "bench" / "records").mkdir(parents=True)
    (tmp_path / "bench" / "records" / "new.json").write_text("{}")
    assert source_state(package)["clean"] is True
    (package / "new.py").write_text("")
    assert source_state(package) | {"commit": ""} == {"commit": "", "clean": False, "changed": ["src/package/new.py"]}


def test_a_record_by_hand_of_a_run_that_is_not_done(suite: Suite, run: Run, tmp_path: Path) -> None:
    (run.folder / "metrics.json").unlink()
    output = tmp_path / "out.json"
    arguments = ["bench", "record", "default-s0", "--suite", str(suite.file), "--run", str(run.folder)]
    assert main([*arguments, "--output", str(output)]) == 0
    assert any("metrics.json" in reason for reason in json.loads(output.read_text())["refused"])
