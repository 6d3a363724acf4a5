"""What a workflow profile grants: jobs at once, packing, and the requests of each rule. Plain YAML, no engine."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cityweave.errors import ConfigError

_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}


@dataclass(frozen=True)
class Requests:
    """Of one rule on its first attempt; None where the profile says nothing that can be read here."""

    partition: str | None = None
    gpus: int = 0
    gpu_model: str | None = None
    mem_mb: float | None = None
    runtime_min: float | None = None


@dataclass(frozen=True)
class Profile:
    folder: Path
    values: Mapping[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)  # of the configuration, nested

    @property
    def slurm(self) -> bool:
        return self.values.get("executor") == "slurm"

    @property
    def jobs(self) -> int | None:
        """Jobs at once, when the profile names a number."""
        number = self.values.get("jobs" if self.slurm else "cores")
        return int(str(number)) if str(number).isdigit() else None

    @property
    def jobs_per_minute(self) -> float | None:
        match = re.fullmatch(r"(\d+)/(\d*)([smhd])", str(self.values.get("max-jobs-per-timespan", "")))
        return int(match[1]) / (int(match[2] or 1) * _MINUTES[match[3]]) if match else None

    @property
    def status_command(self) -> str:
        return str(self.values.get("slurm-status-command", "sacct"))

    def rules(self) -> list[str]:
        return list(self.values.get("set-resources") or {})

    def requests(self, rule: str) -> Requests:
        values = dict(self.values.get("default-resources") or {})
        values |= (self.values.get("set-resources") or {}).get(rule) or {}
        gpu, model = values.get("gpu", 0), values.get("gpu_model")
        gres = re.fullmatch(r"gpu(?::([A-Za-z_]\w*))?:(\d+)", str(values.get("gres", "")))
        if gres:
            gpu, model = int(gres[2]), gres[1]
        return Requests(
            partition=values.get("slurm_partition"),
            gpus=round(_number(gpu) or 0),
            gpu_model=model,
            mem_mb=_number(values.get("mem_mb")),
            runtime_min=_minutes(values.get("runtime")),
        )


def read_profile(folder: Path) -> Profile:
    names = ("config.v9+.yaml", "config.yaml")
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise ConfigError(
            f"{folder} is no profile: it has none of {', '.join(names)}; accepted: such as profiles/slurm"
        )
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not readable YAML: {error}") from error
    return Profile(folder, values, _overrides(values.get("config")))


def _overrides(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    found: dict[str, Any] = {}
    for item in given or []:
        key, _, value = str(item).partition("=")
        found[key] = yaml.safe_load(value)
    return found


def merged(values: Any, over: Any) -> Any:
    """Nested mappings laid over each other, as the workflow does with a profile's `config`."""
    if isinstance(values, Mapping) and isinstance(over, Mapping):
        return {**values, **{key: merged(values.get(key), value) for key, value in over.items()}}
    return over


def read_values(file: Path, profile: Profile | None = None) -> dict[str, Any]:
    """Plain values of a configuration, with what a profile lays over them."""
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not a readable YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no mapping; config/config.yaml shows what is accepted")
    laid: dict[str, Any] = merged(values, profile.overrides if profile else {})
    return laid


def _minutes(value: Any) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", str(value))
    return float(match[1]) * _MINUTES[match[2]] if match else _number(value)


def _number(value: Any) -> float | None:
    """A number, or an expression of `attempt` for the first attempt; None for anything else."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return _evaluated(ast.parse(str(value), mode="eval").body)
    except (SyntaxError, ValueError):
        return None


def _evaluated(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in ("attempt", "threads"):
        return 1.0
    if isinstance(node, ast.BinOp):
        left, right = _evaluated(node.left), _evaluated(node.right)
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Pow):
            return float(left**right)
        if isinstance(node.op, ast.Div) and right:
            return left / right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        values = [_evaluated(argument) for argument in node.args]
        return min(values) if node.func.id == "min" else max(values)
    raise ValueError(ast.dump(node))
