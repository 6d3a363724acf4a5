from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cityweave.bench.suite import read_suite
from cityweave.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
COMMITTED = sorted((ROOT / "config" / "bench").glob("*.yaml"))


@pytest.fixture
def values(city_values: dict) -> dict:
    city = {key: part for key, part in city_values.items() if key != "sources"}
    return {
        "description": "A suite.",
        "config": city | {"synth": {}, "geometry": {"pitch_m": 0.5}},
        "seeds": [1, 2],
        "variants": {
            "default": {},
            "few": {"config": {"dsm": {"visibility_rounds": 0}}},
            "loose": {"config": {"geometry": {"level_errors_m": [1.0]}}},
            "few_loose": {"config": {"dsm": {"visibility_rounds": 0}, "geometry": {"level_errors_m": [1.0]}}},
            "blurred": {"config": {"synth": {"blur_px": 1.0}}},
        },
    }


def written(folder: Path, values: dict) -> str:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(file)


def test_every_variant_with_every_seed(tmp_path: Path, values: dict) -> None:
    suite = read_suite(written(tmp_path, values), tmp_path)
    assert [run.name for run in suite.runs[:3]] == ["default-s1", "few-s1", "loose-s1"] and len(suite.runs) == 10
    run = suite.runs[1]
    assert run.config.seed == 1 and run.config.dsm.visibility_rounds == 0 and run.config.geometry.pitch_m == 0.5
    assert run.folder == Path("results/bench/mine/few-s1/test")


def test_a_variant_takes_over_the_longest_common_start(tmp_path: Path, values: dict) -> None:
    runs = {run.name: run for run in read_suite(written(tmp_path, values), tmp_path).runs}
    taken = {name: run.config.workflow.adopt for name, run in runs.items()}
    assert taken["default-s1"] is None and taken["default-s2"] is None and taken["blurred-s1"] is None
    assert taken["few-s1"].stages == ("synth", "survey", "ingest")
    assert taken["loose-s1"].stages == ("synth", "survey", "ingest", "dsm")
    assert taken["few_loose-s1"].run == runs["few-s1"].folder and "dsm" in taken["few_loose-s1"].stages
    assert taken["loose-s2"].run == runs["default-s2"].folder


def test_real_sources_are_shared_without_a_synth_stage(tmp_path: Path, values: dict, city_values: dict) -> None:
    values = values | {"config": city_values, "variants": {k: values["variants"][k] for k in ("default", "few")}}
    runs = read_suite(written(tmp_path, values), tmp_path).runs
    assert runs[1].config.workflow.adopt.stages == ("survey", "ingest")


def test_a_city_file_beside_the_suite(tmp_path: Path, values: dict) -> None:
    (tmp_path / "city.yaml").write_text(yaml.safe_dump(values.pop("config")))
    values["city"] = "city.yaml"
    assert read_suite(written(tmp_path, values), tmp_path).runs[0].config.city.name == "test"
    values["city"] = "gone.yaml"
    with pytest.raises(ConfigError, match=r"gone\.yaml is not there"):
        read_suite(written(tmp_path, values), tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": []}, "seeds"),
        ({"variants": {}}, "variants"),
        ({"variants": {"a b": {}}}, "accepted are letters"),
        ({"variants": {"s1": {}}}, "accepted are letters"),
        ({"colour": 1}, "colour"),
        ({"timing": {"variants": ["nix"]}}, "nix not among default, few"),
        ({"variants": {"x": {"config": {"dsm": {"nix": 1}}}}}, "nix"),
    ],
)
def test_a_wrong_suite_says_what_is_wrong(tmp_path: Path, values: dict, change: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_suite(written(tmp_path, values | change), tmp_path)


def test_an_unknown_suite_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"accepted: .*synthetic"):
        read_suite("nix", ROOT / "config" / "bench")


def test_what_lies_over_every_run(tmp_path: Path, values: dict) -> None:
    suite = read_suite(written(tmp_path, values), tmp_path, {"workflow": {"pack": {"tiles": 4}}})
    assert {run.config.workflow.pack.tiles for run in suite.runs} == {4}
    assert suite.runs[1].config.workflow.results == Path("results/bench/mine/few-s1")


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_the_committed_suites_are_valid(file: Path) -> None:
    suite = read_suite(file.stem, file.parent)
    assert suite.runs and suite.plan.metrics
