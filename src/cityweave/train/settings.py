"""What a training depends on, checked before anything starts. Loads neither torch nor numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from cityweave.config import Section
from cityweave.errors import ConfigError
from cityweave.plan import canonical_json

# Nothing in these changes a weight: they may differ when a training is gone on with.
NOT_PART_OF_IDENTITY = ("name", "wandb", "checkpoints", "local", "slurm")


class LoopSettings(Section):
    """Of the loop that every model is trained by."""

    steps: int = Field(2000, ge=1, description="updates of the weights")
    batch: int = Field(8, ge=1, description="samples in one pass through the network")
    accumulate: int = Field(1, ge=1, description="passes whose gradients make one update")
    learning_rate: float = Field(1e-3, gt=0, description="highest, reached after the warm-up")
    final_rate: float = Field(0.02, ge=0, le=1, description="learning rate at the last step, as a share of the highest")
    warmup_steps: int = Field(100, ge=0, description="updates over which the learning rate rises from 0")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW, on matrices and kernels only")
    clip_norm: float = Field(1.0, gt=0, description="longest gradient; longer ones are scaled down to it")
    ema: float = Field(0.998, ge=0, lt=1, description="how much of the averaged weights an update keeps")
    precision: Literal["float32", "bf16"] = Field("float32", description="bf16: mixed precision")
    validate_every: int = Field(200, ge=1, description="updates between two validations")
    patience: int | None = Field(None, ge=1, description="validations without a better figure before it ends early")
    log_every: int = Field(20, ge=1, description="updates between two lines of the log")
    threads: int = Field(1, ge=1, le=64, description="of torch on a CPU; sums depend on it, so it is fixed")


class CheckpointSettings(Section):
    every: int = Field(200, ge=1, description="updates between two checkpoints: what a hard kill can cost")
    keep: int = Field(2, ge=1, description="checkpoints that stay")


class LocalSettings(Section):
    """For --executor local: processes on this machine."""

    parallel: int = Field(1, ge=1, description="runs at once")
    time_min: int = Field(7 * 24 * 60, ge=1, description="minutes after which a run is stopped and started again")


class SlurmSettings(Section):
    """For --executor slurm: what each run asks for."""

    partition: str | None = Field(None, description="default: the cluster's")
    account: str | None = Field(None, description="where accounting is enforced")
    qos: str | None = None
    constraint: str | None = Field(None, description="features a node must have")
    gpus: int = Field(0, ge=0, description="GPUs of a run; the loop uses one")
    cpus: int = Field(1, ge=1, description="cores of a run")
    mem_gb: float = Field(8.0, gt=0, description="memory of a run")
    time_min: int = Field(240, ge=1, description="minutes until a run is stopped and requeued")
    signal_delay_s: int = Field(90, ge=1, description="seconds before that limit at which a run saves and leaves")
    max_timeouts: int = Field(20, ge=0, description="how often a run may reach its time limit and be requeued")
    parallel: int = Field(64, ge=1, description="runs of a sweep at once")
    setup: tuple[str, ...] = Field((), description="shell lines before the work, such as module load")
    extra: dict[str, str | int | bool] = Field({}, description="other options of sbatch, by their long names")


class TrainSettings(Section):
    """What all trainings have in common; a task adds its model, data and loss."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="folder below training/")
    seed: int = Field(0, ge=0, description="every random draw derives from it")
    wandb: str | None = Field(None, description="project of Weights & Biases that figures are sent to, beside the log")
    loop: LoopSettings = LoopSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    local: LocalSettings = LocalSettings()
    slurm: SlurmSettings = SlurmSettings()


Settings = TypeVar("Settings", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; accepted: keys with values")
    return values


def validated(model: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        complaints = []
        for detail in error.errors():
            place = ".".join(str(part) for part in detail["loc"])
            said = "unknown key" if detail["type"] == "extra_forbidden" else f"{detail['msg']}, got {detail['input']!r}"
            complaints.append(f"{place}: {said}")
        raise ConfigError(f"{where}: " + "; ".join(complaints)) from None


def with_value(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with one dotted key set; a number is an entry of a list, from 0."""
    return dict(_with_value(values, key, value))


def _with_value(values: Any, key: str, value: Any) -> Any:
    head, _, rest = key.partition(".")
    if isinstance(values, list):
        if not head.isdecimal() or int(head) >= len(values):
            raise ConfigError(f"{key}: {head} is no entry of the list; accepted: a number from 0 to {len(values) - 1}")
        changed = _with_value(values[int(head)], rest, value) if rest else value
        return [changed if number == int(head) else entry for number, entry in enumerate(values)]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key}: what is to hold it is {values!r}, which has no keys")
    return {**values, head: _with_value(values.get(head, {}), rest, value) if rest else value}


def parse_assignment(text: str) -> tuple[str, Any]:
    """`loop.steps=200` as key and value; the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {text}: accepted: KEY=VALUE, such as loop.steps=200")
    return key, yaml.safe_load(value)


def identity(settings: TrainSettings, data_digest: str) -> dict[str, Any]:
    """What weights depend on, as plain values: where the data lie doesn't matter, what they hold does."""
    values = settings.model_dump(mode="json", exclude=set(NOT_PART_OF_IDENTITY))
    values["data"] = {"sha256": data_digest} | {k: v for k, v in values.get("data", {}).items() if k != "folder"}
    return values


def digest_of(values: Any) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, as `loop.steps: 100 -> 200`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]
