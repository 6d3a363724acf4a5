"""Figures that go to Weights & Biases as well: through a stand-in for its package."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from cityweave.errors import MissingCapability
from cityweave.train.watching import require_watching, sender


class Told:
    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []

    def init(self, **asked: Any) -> Told:
        self.begun.append(asked)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told, module = Told(), types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = told.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_off_by_default_and_refused_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sender(None, tmp_path, "abc", {}) is None
    require_watching(None)
    monkeypatch.setattr("cityweave.train.watching.find_spec", lambda name: None)
    with pytest.raises(MissingCapability, match="wandb is not installed"):
        require_watching("heights")


def test_what_the_log_says_is_sent(train, told: Told, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert train("--set", "wandb=cities") == 0
    (begun,) = told.begun
    assert begun["project"] == "cities" and begun["resume"] == "allow" and begun["config"]["loop"]["steps"] == 12
    (log,) = tmp_path.rglob("log.jsonl")
    lines = [values for values in map(json.loads, log.read_text().splitlines()) if "event" not in values]
    assert [step for step, _ in told.logged] == [values["step"] for values in lines]
    assert told.logged[0][1]["loss"] == lines[0]["loss"]
    assert any("validation/mae_m" in values for _, values in told.logged)
