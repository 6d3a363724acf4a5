"""Figures of a training sent to Weights & Biases, beside its log; only where a configuration asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cityweave.errors import MissingCapability

Send = Callable[[Mapping[str, Any]], None]


def require_watching(project: str | None) -> None:
    if project is not None and find_spec("wandb") is None:
        raise MissingCapability(
            "`wandb` names a project, but the package wandb is not installed: pip install wandb; accepted without it: "
            "wandb: null (log.jsonl holds the same)"
        )


def sender(project: str | None, folder: Path, key: str, settings: Mapping[str, Any]) -> Send | None:
    """A run that is gone on with is the same run there."""
    if project is None:
        return None
    require_watching(project)
    import wandb

    run = wandb.init(project=project, id=key[:16], name=folder.name, dir=folder, config=dict(settings), resume="allow")

    def send(values: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in _flat(values).items() if isinstance(value, int | float)}
        if "event" not in values:
            run.log(numbers, step=values["step"])

    return send


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}/") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat
