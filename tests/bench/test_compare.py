from __future__ import annotations

import json
from pathlib import Path

import pytest

from cityweave.bench.compare import compare, verify
from cityweave.cli import main
from cityweave.errors import ConfigError

CITIES = {1: 0.30, 2: 0.45, 3: 0.62}  # easy and hard ones: their own spread is far above the differences below


def series(make, variant: str, worse_by: tuple[float, float, float] = (0, 0, 0)) -> list[dict]:
    return [make(variant, seed, mae=mae + d) for (seed, mae), d in zip(CITIES.items(), worse_by, strict=True)]


def verdicts(before: list[dict], after: list[dict]) -> dict[str, str]:
    (comparison,) = compare(before, after)
    return {change.metric["key"]: change.verdict for change in comparison.changes}


def test_two_runs_of_the_same_variant_are_the_same(make) -> None:
    (comparison,) = compare(series(make, "default"), series(make, "default"))
    assert {change.verdict for change in comparison.changes} == {"same"} and not comparison.worse
    assert "every figure is the same to the bit" in comparison.as_text()


def test_a_change_in_one_direction_is_told_from_noise(make) -> None:
    assert verdicts(series(make, "default"), series(make, "coarse", (0.05, 0.06, 0.055)))["dsm.mae_m"] == "worse"
    assert verdicts(series(make, "coarse", (0.05, 0.06, 0.055)), series(make, "default"))["dsm.mae_m"] == "better"


def test_an_effect_that_is_large_in_one_city_and_small_in_another_counts(make) -> None:
    assert verdicts(series(make, "default"), series(make, "coarse", (0.01, 0.08, 0.05)))["dsm.mae_m"] == "worse"


def test_changes_both_ways_are_noise(make) -> None:
    assert verdicts(series(make, "default"), series(make, "other", (0.05, -0.04, 0.06)))["dsm.mae_m"] == "noise"


def test_a_change_below_the_tolerance_is_noise(make) -> None:
    assert verdicts(series(make, "default"), series(make, "other", (0.002, 0.002, 0.002)))["dsm.mae_m"] == "noise"


def test_one_seed_is_judged_by_the_tolerance(make) -> None:
    assert verdicts([make(mae=0.4)], [make(mae=0.42)])["dsm.mae_m"] == "worse"
    assert verdicts([make(mae=0.4)], [make(mae=0.404)])["dsm.mae_m"] == "noise"


def test_a_figure_that_is_gone_is_worse(make) -> None:
    assert verdicts([make()], [make(mae=None)])["dsm.mae_m"] == "worse"
    assert verdicts([make(mae=None)], [make()])["dsm.mae_m"] == "changed"


def test_a_figure_without_a_better_is_only_changed(make) -> None:
    after = make()
    after["metrics"] = after["metrics"] | {"mesh": {"f1": {"1": 0.9}, "triangles": 1500}}
    assert verdicts([make()], [after])["mesh.triangles"] == "changed"


def test_causes_are_named(make) -> None:
    after = make(config={"dsm": {"gsd_m": 1.0}}, versions={"numpy": "3"})
    after["source"] = after["source"] | {"code": {"dsm": "d"}}
    (comparison,) = compare([make()], [after])
    assert comparison.causes == ("dsm.gsd_m: 0.5 -> 1.0", "code of dsm", "numpy 2 -> 3")


def test_a_slower_job_is_said_and_decides_nothing(make) -> None:
    after = make()
    job = after["stages"]["dsm"]["timed"]
    after["stages"] = {
        "dsm": after["stages"]["dsm"] | {"timed": job | {"seconds": 3.0, "all_seconds": [2.9, 3.0, 3.1]}}
    }
    (comparison,) = compare([make()], [after])
    assert comparison.times == ("dsm 2.00 s -> 3.00 s a job",) and not comparison.worse


def test_nothing_in_common_is_refused(make) -> None:
    with pytest.raises(ConfigError, match="no variant is on both sides"):
        compare([make("a"), make("b")], [make("c")])
    with pytest.raises(ConfigError, match="share no seed"):
        compare([make(seed=1)], [make(seed=2)])


def write(folder: Path, records: list[dict]) -> Path:
    folder.mkdir(parents=True)
    for record in records:
        (folder / f"{record['variant']}-s{record['seed']}.json").write_text(json.dumps(record))
    return folder


def test_exit_codes_and_the_choice_of_a_variant(make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "r", series(make, "default") + series(make, "coarse", (0.05, 0.06, 0.055)))
    assert main(["bench", "compare", f"{folder}:default", f"{folder}:coarse"]) == 1
    assert main(["bench", "compare", f"{folder}:coarse", f"{folder}:default"]) == 0
    assert main(["bench", "compare", str(folder), str(folder)]) == 0
    assert main(["bench", "compare", f"{folder}:nix", str(folder)]) == 2
    assert "accepted: default, coarse" in capsys.readouterr().err


def test_verify_asks_for_the_bit_on_the_same_cpu(make) -> None:
    reference = [make(mae=0.4)]
    assert verify([make(mae=0.4)], reference) == (["default-s1: equal to the bit"], [])
    _, unequal = verify([make(mae=0.4000001)], reference)
    assert unequal == ["default-s1: dsm.mae_m is 0.4000001, the reference has 0.4"]


def test_verify_takes_the_tolerance_on_another_cpu(make) -> None:
    other = {"cpu": "B", "cpu_kind": "y", "cpu_features": ["neon"]}
    verified, unequal = verify([make(mae=0.404, machine=other)], [make(mae=0.4)])
    assert not unequal and "within tolerance: another CPU" in verified[0]
    assert verify([make(mae=0.41, machine=other)], [make(mae=0.4)])[1]


def test_verify_refuses_another_configuration_and_a_lost_reference(make) -> None:
    assert "the configuration is another one" in verify([make(config={})], [make()])[1][0]
    assert verify([make("new")], [make()])[1] == ["new-s1: there is no reference"]
