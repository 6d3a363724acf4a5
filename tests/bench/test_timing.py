from __future__ import annotations

import json
from pathlib import Path

import pytest

from cityweave.bench.calibrate import calibrate
from cityweave.bench.suite import read_suite
from cityweave.bench.timing import _command, _label, _run_at_once, _typical_tile, measure
from cityweave.bench.work import physical_floor, pixels_and_km2
from cityweave.errors import DataError
from cityweave.machine import describe
from cityweave.manifest import Run
from cityweave.plan import load_config

ROOT = Path(__file__).resolve().parent.parent.parent
RATES = {"copy_gb_s": 10.0, "float32_gop_s": 10.0, "int16_gop_s": 20.0, "popcount_gop_s": 5.0}


@pytest.fixture
def run(tmp_path: Path, city_values: dict) -> Run:
    (tmp_path / "config.json").write_text(json.dumps(load_config(city_values).model_dump(mode="json")))
    return Run.open(tmp_path)


class Job:
    kind, arguments = "where", ("where", "--config", "nix.yaml")


def test_a_job_that_fails_while_it_is_timed_says_what_it_said(run: Run) -> None:
    assert _command(Job, run)[1:4] == ["-m", "cityweave", "where"]
    with pytest.raises(DataError, match=r"where failed when it was timed: usage: cityweave"):
        _run_at_once(Job, [run])


def test_no_tile_done_no_times(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cityweave.bench.timing._calibration", lambda: {"copy_gb_s": 1.0})
    suite = read_suite("synthetic", ROOT / "config" / "bench")
    assert _typical_tile(run) is None
    found = measure(suite, suite.runs[0], run)
    assert found["stages"] == {} and found["note"] == "no tile is done" and found["machine"]["cpu"]
    other = measure(suite, next(run for run in suite.runs if not run.timed), run)
    assert "the suite doesn't time" in other["note"]


def test_functions_are_named_as_they_are_imported() -> None:
    assert _label(("/x/src/cityweave/dsm/sgm.py", 3, "aggregate")) == "cityweave.dsm.sgm.aggregate"
    assert _label(("/v/lib/python3/site-packages/numba/core/caching.py", 3, "load")) == "numba.core.caching.load"
    assert _label(("~", 0, "<built-in method marshal.loads>")) == "<built-in method marshal.loads>"


def test_the_machine_and_what_it_can_do() -> None:
    machine, rates = describe(), calibrate()
    assert machine["cores"] >= 1 and machine["memory_mb"] > 500 and machine["cpu_features"]
    assert all(rates[name] > 0 for name in RATES) and rates["workload_s"] > 0
    json.dumps([machine, rates])


def test_floors_grow_with_the_work_and_shrink_with_the_machine(city_values: dict) -> None:
    values = {key: part for key, part in city_values.items() if key != "sources"} | {"synth": {}}
    small, large = (load_config(values | {"tiles": {"size_m": size}}) for size in (128, 256))
    for kind in ("ingest", "dsm", "fit", "mesh", "texture"):
        floors = [physical_floor(kind, config, RATES)["seconds"] for config in (small, large)]
        assert 0 < floors[0] < floors[1]
        assert pixels_and_km2(kind, large)[1] == 4 * pixels_and_km2(kind, small)[1]
        twice = {name: 2 * rate for name, rate in RATES.items()}
        assert physical_floor(kind, large, twice)["seconds"] == pytest.approx(floors[1] / 2, rel=0.01)
    assert physical_floor("report", small, RATES) is None
    assert physical_floor("dsm", small, {})["seconds"] is None


def test_the_floor_of_the_matching_by_hand(city_values: dict) -> None:
    """256 m tile, halo of 26 m, 58 m for what hides it, 7 views: 21 pairs; 8 paths of 5 operations."""
    values = {key: part for key, part in city_values.items() if key != "sources"} | {"synth": {}}
    config = load_config(values | {"geometry": {"pitch_m": 0.5}})
    floor = physical_floor("dsm", config, RATES)
    entries = (256 + 2 * 58) ** 2 * 260 / 1.0 + (256 + 2 * 26) ** 2 * 3 * (8 + 10) / 0.5 / 0.25
    assert floor["operations"]["popcount_gop_s"] == pytest.approx(21 * entries)
    assert floor["operations"]["int16_gop_s"] == pytest.approx(40 * entries)
