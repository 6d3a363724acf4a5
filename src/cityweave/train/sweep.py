"""A sweep: values of dotted keys, times seeds. Every combination is one run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from cityweave.config import Section
from cityweave.errors import ConfigError
from cityweave.train.settings import NOT_PART_OF_IDENTITY, read_yaml, validated

MOST_RUNS = 1000


class Sweep(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="folder below training/")
    grid: dict[str, list[Any]] = Field({}, description="dotted keys with values: every combination")
    runs: list[dict[str, Any]] = Field([], description="dotted keys with one value each: one entry after the other")
    seeds: list[int] = Field([], description="each of the above with each seed")


def read_sweep(path: Path) -> Sweep:
    return validated(Sweep, read_yaml(path), str(path))


def expand(sweep: Sweep) -> list[dict[str, Any]]:
    """The changes of each run: entries of `runs` outermost, seeds innermost."""
    axes = {key: list(values) for key, values in sweep.grid.items()}
    if sweep.seeds:
        axes["seed"] = list(sweep.seeds)
    if empty := [key for key, values in axes.items() if not values]:
        raise ConfigError(f"sweep {sweep.name}: {', '.join(empty)} has no value; accepted: a list with one or more")
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    changes = [_joined(sweep.name, entry, combination) for entry in sweep.runs or [{}] for combination in combinations]
    if not 1 <= len(changes) <= MOST_RUNS:
        raise ConfigError(f"sweep {sweep.name} has {len(changes)} runs; accepted: 1 to {MOST_RUNS}")
    for change in changes:
        for key in change:
            if key.partition(".")[0] in NOT_PART_OF_IDENTITY or key == "data.folder":
                raise ConfigError(f"sweep {sweep.name}: {key} is one for all runs and can't be swept")
    if twice := [change for number, change in enumerate(changes) if change in changes[:number]]:
        raise ConfigError(f"sweep {sweep.name} holds {twice[0]} twice; accepted: every run once")
    return changes


def _joined(name: str, entry: Mapping[str, Any], combination: Mapping[str, Any]) -> dict[str, Any]:
    if both := sorted(entry.keys() & combination.keys()):
        raise ConfigError(f"sweep {name}: {', '.join(both)} stands in `runs` and in `grid` or `seeds`; accepted: one")
    return {**entry, **combination}
