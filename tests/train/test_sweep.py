"""Sweeps: expansion, refusal of another configuration, the table, waiting for jobs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cityweave.errors import ConfigError, MissingCapability
from cityweave.train.commands import TASK_HELP
from cityweave.train.launch import GONE_S, POLL_S, wait_for_jobs
from cityweave.train.regions import read_regions
from cityweave.train.runs import PlannedRun
from cityweave.train.settings import parse_assignment, with_value
from cityweave.train.sweep import Sweep, expand, read_sweep
from cityweave.train.tasks import TASKS, settings_of

ROOT = Path(__file__).resolve().parent.parent.parent
SWEEP = {"name": "two", "grid": {"loop.learning_rate": [0.001, 0.002]}, "seeds": [0, 1]}


def test_grid_times_seeds() -> None:
    sweep = Sweep.model_validate({**SWEEP, "runs": [{"model.width": 4}, {"model.width": 6, "loss.log": 0}]})
    changes = expand(sweep)
    assert len(changes) == 8
    assert changes[0] == {"model.width": 4, "loop.learning_rate": 0.001, "seed": 0}
    assert changes[1] == {"model.width": 4, "loop.learning_rate": 0.001, "seed": 1}
    assert changes[-1] == {"model.width": 6, "loss.log": 0, "loop.learning_rate": 0.002, "seed": 1}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"grid": {"loss.log": []}}, "loss.log has no value"),
        ({"grid": {"slurm.mem_gb": [1, 2]}}, "slurm.mem_gb is one for all runs"),
        ({"grid": {"data.folder": ["a", "b"]}}, "data.folder is one for all runs"),
        ({"seeds": [1, 1]}, "twice"),
        ({"runs": [{"seed": 1}], "seeds": [2]}, "seed stands in `runs` and in"),
        ({"seeds": list(range(1001))}, "1001 runs; accepted: 1 to 1000"),
    ],
)
def test_bad_sweeps(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        expand(Sweep.model_validate({"name": "bad", **values}))


def test_dotted_keys() -> None:
    values = {"loop": {"steps": 1, "batch": 2}}
    assert with_value(values, "loop.steps", 5) == {"loop": {"steps": 5, "batch": 2}}
    assert values == {"loop": {"steps": 1, "batch": 2}}
    assert with_value(values, "slurm.gpus", 1)["slurm"] == {"gpus": 1}
    assert parse_assignment("loop.learning_rate=1.0e-3") == ("loop.learning_rate", 1e-3)
    for text in ("loop.steps", "=3"):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            parse_assignment(text)
    with pytest.raises(ConfigError, match="has no keys"):
        with_value(values, "loop.steps.more", 1)
    listed = {"cities": [{"weight": 1.0}, {"weight": 2.0}]}
    assert with_value(listed, "cities.1.weight", 0.5) == {"cities": [{"weight": 1.0}, {"weight": 0.5}]}
    assert listed["cities"][1] == {"weight": 2.0}
    for key in ("cities.2.weight", "cities.last.weight", "cities.-1.weight"):
        with pytest.raises(ConfigError, match="accepted: a number from 0 to 1"):
            with_value(listed, key, 1)


def write_sweep(tmp_path: Path, **changes: Any) -> str:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({**SWEEP, **changes}))
    return str(file)


def test_a_sweep_and_its_table(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    short = ("--set", "loop.steps=3")
    assert train("--sweep", write_sweep(tmp_path), *short) == 0
    folder = tmp_path / "training/two"
    runs = sorted(folder.glob("run-*"))
    assert [run.name.split("-")[1] for run in runs] == ["00", "01", "02", "03"]
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["done"] * 4
    assert [(row["loop.learning_rate"], row["seed"]) for row in rows] == [
        ("0.001", "0"), ("0.001", "1"), ("0.002", "0"), ("0.002", "1")
    ]  # fmt: skip
    assert len({row["mae_m"] for row in rows}) > 1
    table = (folder / "results.md").read_text()
    assert "Over seeds" in table and "flat_ground" in table
    dots, courses = ((folder / name).read_text() for name in ("results.svg", "courses.svg"))
    figures = len(json.loads((runs[0] / "result.json").read_text())["figures"])
    assert dots.count("<circle") == 4 * figures and dots.count("learning_rate 0.002") == figures
    assert courses.count("<polyline") == 2 and "mae_m" in courses
    results = {run: (run / "result.json").stat().st_mtime_ns for run in runs}
    logs = {run: (run / "log.jsonl").read_text() for run in runs}

    # Again: what is finished stays; what lost its result is gone on with.
    (runs[2] / "result.json").unlink()
    assert train("--sweep", write_sweep(tmp_path), *short) == 0
    assert "3 of 4 runs are finished" in capsys.readouterr().out
    changed = [run for run in runs if (run / "result.json").stat().st_mtime_ns != results[run]]
    assert changed == [runs[2]]
    assert all((run / "log.jsonl").read_text() == logs[run] for run in runs if run != runs[2])

    # Anything that changes weights is refused, in the base and in the sweep, before anything is touched.
    for more in (("--set", "loop.steps=4"), ("--set", "loss.log=2.0", *short)):
        assert train("--sweep", write_sweep(tmp_path), *more) == ConfigError.exit_code
        said = capsys.readouterr().err
        assert "started with another configuration" in said and "->" in said
    assert train("--sweep", write_sweep(tmp_path, seeds=[0, 2]), *short) == ConfigError.exit_code
    assert sorted(folder.glob("run-*")) == runs
    # What changes none may change.
    assert train("--sweep", write_sweep(tmp_path), *short, "--set", "slurm.mem_gb=4") == 0


def test_a_failed_run_lets_the_others_go_on(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    sweep = write_sweep(tmp_path, grid={"loop.learning_rate": [1e30, 0.001]}, seeds=[])
    assert train("--sweep", sweep, "--set", "loop.steps=3", "--set", "loop.warmup_steps=0") == 1
    assert "has no result (cityweave.train.loop.TrainingDiverged" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "training/two/results.csv").read_text().splitlines()))
    assert [row["state"].split(":")[0] for row in rows] == ["failed", "done"]


def test_processes_of_submitit(train, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """--executor local, two at once: the same bytes as in this process."""
    pytest.importorskip("submitit")
    sweep = write_sweep(tmp_path, grid={}, seeds=[0, 1])
    assert train("--sweep", sweep, to="here") == 0
    assert train("--sweep", sweep, "--executor", "local", "--set", "local.parallel=2") == 0
    for run in (tmp_path / "training/two").glob("run-*"):
        there = tmp_path / "here/two" / run.name
        assert (run / "weights.safetensors").read_bytes() == (there / "weights.safetensors").read_bytes()
    assert len(list((tmp_path / "training/two/submitit").glob("*_log.out"))) == 2


def test_no_cluster(train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert train("--executor", "slurm") == MissingCapability.exit_code
    assert "no sbatch and srun on PATH" in capsys.readouterr().err


class FakeRun(PlannedRun):
    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").exists()


def runs_in(folder: Path, *names: str) -> list[PlannedRun]:
    for name in names:
        (folder / name).mkdir()
    return [FakeRun({}, None, {}, folder / name) for name in names]  # type: ignore[arg-type]


def test_waiting_judges_by_results_and_queue(tmp_path: Path) -> None:
    """A silent controller proves nothing; a requeued job counts as there; a lost one is given up after a while."""
    runs = runs_in(tmp_path, "a", "b", "c")
    jobs = {"a": "7_0", "b": "7_1", "c": "7_2"}
    answers = [
        {"7_0": "RUNNING", "7_1": "RUNNING", "7_2": "PENDING"},
        None,
        {"7_1": "PENDING", "7_2": "PENDING"},  # b was preempted, a is finishing
        *[None] * 40,
        {"7_1": "RUNNING", "7_2": "RUNNING"},
    ]
    calls = []

    def asked() -> dict[str, str] | None:
        calls.append(len(calls))
        if len(calls) == 4:
            (runs[0].folder / "result.json").touch()
        if len(calls) == len(answers) + 3:
            (runs[1].folder / "result.json").touch()
        return answers[len(calls) - 1] if len(calls) <= len(answers) else {}

    wait_for_jobs(runs, jobs, asked, lambda _: None)
    assert [run.finished for run in runs] == [True, True, False]
    assert len(calls) == len(answers) + GONE_S / POLL_S + 1


# The files that are handed out.


def test_committed_configurations_are_valid() -> None:
    for file in sorted((ROOT / "config/train").glob("*.yaml")):
        if file.stem.endswith("_sweep"):
            task = file.stem.partition("_")[0]
            base = yaml.safe_load(file.with_name(f"{task}.yaml").read_text())
            for change in expand(read_sweep(file)):
                values = base
                for key, value in change.items():
                    values = with_value(values, key, value)
                settings_of(task, values, str(file))
        elif file.stem == "regions":
            read_regions(file)
        else:
            task = "heights" if file.stem.endswith("_unet") else file.stem
            settings_of(task, yaml.safe_load(file.read_text()), str(file))


@pytest.mark.parametrize("name", ["heights", "height_vae", "cityscale"])
def test_configuration_names_every_key(name: str) -> None:
    given = yaml.safe_load((ROOT / f"config/train/{name}.yaml").read_text())
    settings = settings_of(name, given, name)
    for section, values in settings.model_dump().items():
        if isinstance(values, dict):
            assert set(given[section]) == set(values), section


def test_unknown_keys_and_tasks() -> None:
    values = yaml.safe_load((ROOT / "config/train/heights.yaml").read_text())
    with pytest.raises(ConfigError, match=r"here: loop\.step: unknown key"):
        settings_of("heights", with_value(values, "loop.step", 1), "here")
    with pytest.raises(ConfigError, match="accepted: heights"):
        settings_of("depths", values, "here")
    assert set(TASKS) == set(TASK_HELP)


def test_a_result_names_its_weights(train, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from cityweave.manifest import content_hash
    from cityweave.train.heights import load_height_unet

    assert train("--set", "loop.steps=2") == 0
    (run,) = (tmp_path / "training/tiny").glob("run-*")
    result = json.loads((run / "result.json").read_text())
    assert result["weights"]["sha256"] == content_hash(run / "weights.safetensors")
    model, card = load_height_unet(run / "weights.safetensors")
    assert card["parameters"] == result["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["config_hash"] == result["config_hash"]
