"""A training that is killed and gone on with ends in the same bytes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.optim.adamw import adamw as adamw_of_torch

from cityweave.errors import ConfigError, DataError
from cityweave.train.adamw import AdamW
from cityweave.train.checkpoint import latest_checkpoint, saved_steps
from cityweave.train.loop import Requests
from cityweave.train.runs import WEIGHTS


def the_run(folder: Path, name: str = "tiny") -> Path:
    (run,) = (folder / name).glob("run-*")
    return run


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def steps_of(run: Path) -> list[int]:
    return [line["step"] for line in log_of(run) if "loss" in line]


def starts(run: Path) -> list[int]:
    return [line["step"] for line in log_of(run) if line.get("event") == "start"]


@pytest.fixture
def whole(train, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    assert train(to="whole") == 0
    return the_run(tmp_path / "whole")


def test_stopped_at_any_step_and_gone_on_with(train, whole: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """By a signal after each of these steps, one after the other; the periodic checkpoints are at 5 and 10."""
    stops = iter([1, 2, 4, 5, 11])
    asked = {"at": 0}
    noted = Requests.__init__

    def armed(self: Requests, *arguments: object, **named: object) -> None:
        noted(self, *arguments, **named)
        asked["at"] = next(stops, 10**6)

    from cityweave.train import state

    update = state.TrainState.update

    def counted(self):  # type: ignore[no-untyped-def]
        norm = update(self)
        if self.step == asked["at"]:
            signal.raise_signal(signal.SIGTERM)
        return norm

    monkeypatch.setattr(Requests, "__init__", armed)
    monkeypatch.setattr(state.TrainState, "update", counted)
    for _ in range(5):
        with pytest.raises(SystemExit) as left:
            train()
        assert left.value.code == 128 + signal.SIGTERM
    assert train() == 0
    run = the_run(tmp_path / "training")
    assert starts(run) == [0, 1, 2, 4, 5, 11]
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert (run / "checkpoints/step-0000012/tensors.safetensors").read_bytes() == (
        whole / "checkpoints/step-0000012/tensors.safetensors"
    ).read_bytes()
    assert json.loads((run / "result.json").read_text())["cost"]["starts"] == 6


def test_killed_outright(config: Path, train, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """SIGKILL at any moment: the last periodic checkpoint is gone on from."""
    more = ("--set", "checkpoints.every=5", "--set", "loop.steps=100")
    command = [sys.executable, "-m", "cityweave", "train", "heights", "--config", str(config), *more]
    process = subprocess.Popen([*command, "--to", str(tmp_path / "training")], stdout=subprocess.DEVNULL)
    folder = tmp_path / "training" / "tiny"
    deadline = time.monotonic() + 60
    while not any(saved_steps(run / "checkpoints") for run in folder.glob("run-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = the_run(tmp_path / "training")
    assert not (run / "result.json").exists()
    assert train(*more) == 0
    first, second = starts(run)
    assert first == 0 and second in range(5, 100, 5)
    assert train(*more, to="whole") == 0
    assert (run / WEIGHTS).read_bytes() == (the_run(tmp_path / "whole") / WEIGHTS).read_bytes()


def test_damaged_checkpoint_falls_back(train, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    folder = whole / "checkpoints"
    assert saved_steps(folder) == [10, 12], "the last two, the last step among them"
    identity = json.loads((whole / "config.json").read_text())["hash"]
    tensors = folder / "step-0000012/tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    found = latest_checkpoint(folder, identity)
    assert found and found.numbers["step"] == 10
    assert "step-0000012 is damaged" in capsys.readouterr().out
    before = (whole / WEIGHTS).read_bytes()
    (whole / "result.json").unlink()
    (whole / WEIGHTS).unlink()
    assert train(to="whole") == 0
    assert (whole / WEIGHTS).read_bytes() == before
    with pytest.raises(ConfigError, match="another configuration"):
        latest_checkpoint(folder, "0" * 64)


def test_log_holds_every_step_once(whole: Path, train, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert steps_of(whole) == [3, 6, 9, 12]
    assert [line["step"] for line in log_of(whole) if "validation" in line] == [4, 8, 12]
    (whole / "result.json").unlink()
    for step in (12,):
        (whole / f"checkpoints/step-{step:07d}/state.json").unlink()
    with (whole / "log.jsonl").open("a") as file:
        file.write('{"step": 13, "los')  # cut off
    assert train(to="whole") == 0
    assert steps_of(whole) == [3, 6, 9, 12]
    assert starts(whole) == [0, 10]


def test_adamw_is_torchs() -> None:
    """Its functional form: the class loads a compiler first."""
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)).double()
    named = dict(ours.named_parameters())
    theirs = {name: p.detach().clone() for name, p in named.items()}
    first = {name: torch.zeros_like(p) for name, p in theirs.items()}
    second = {name: torch.zeros_like(p) for name, p in theirs.items()}
    counts = {name: torch.tensor(0.0) for name in theirs}
    adamw = AdamW(named, 0.1)
    for step in range(1, 6):
        ours(torch.randn(4, 5, dtype=torch.float64)).square().sum().backward()
        for name, parameter in named.items():
            adamw_of_torch(
                [theirs[name]], [parameter.grad], [first[name]], [second[name]], [], [counts[name]],
                foreach=False, amsgrad=False, beta1=0.9, beta2=0.999, lr=0.1 / step,
                weight_decay=0.1 if parameter.ndim > 1 else 0.0, eps=1e-8, maximize=False,
            )  # fmt: skip
        adamw.update(0.1 / step, step)
    for name, mine in named.items():
        torch.testing.assert_close(mine.detach(), theirs[name], rtol=1e-12, atol=1e-14)


def test_patience_ends_early(train, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    early = ("--set", "loop.patience=2", "--set", "loop.validate_every=1", "--set", "loop.learning_rate=1e-30")
    assert train(*early) == 0
    result = json.loads((the_run(tmp_path / "training") / "result.json").read_text())
    assert result["stopped"] == "patience"
    assert result["steps"] == 3 and result["best_step"] == 1


def test_diverged_training_says_so(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert train("--set", "loop.learning_rate=1e30", "--set", "loop.warmup_steps=0") == 1
    assert "learning_rate" in capsys.readouterr().err
    assert "failed: " in (tmp_path / "training/tiny/results.md").read_text()


def test_it_learns(train, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Brightness tells the height here: far better than either constant."""
    more = ("--set", "loop.steps=150", "--set", "loop.learning_rate=0.003", "--set", "data.brightness=0")
    assert train(*more, "--set", "loop.validate_every=50", "--set", "loop.ema=0.9", "--set", "model.width=8") == 0
    result = json.loads((the_run(tmp_path / "training") / "result.json").read_text())
    baselines = result["baselines"]
    for name in ("mae_m", "rmse_m"):
        assert result["figures"][name] < 0.5 * min(each[name] for each in baselines.values())


def test_data_made_anew_are_noticed(train, values, tmp_path: Path, whole: Path) -> None:  # type: ignore[no-untyped-def]
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"data_sha256": "0"}))
    (whole / "result.json").unlink()
    from cityweave.train.runs import work

    with pytest.raises(DataError, match="made anew"):
        work(whole, "cpu", Requests())
