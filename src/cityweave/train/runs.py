"""Folders of a training, and the work of one run.

training/{name}/
  config.json                what was asked for; a rerun with anything else is refused
  jobs.json                  run -> job, for --executor slurm
  submitit/                  logs of jobs, and submitit's own files
  results.csv, results.md    gathered from the runs
  run-00-1a2b3c4d/
    config.json, log.jsonl, checkpoints/, weights.safetensors
    result.json              last: the run is finished
    failed.txt               why the last attempt failed, until the next begins
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityweave.errors import ConfigError, DataError
from cityweave.gpu import require
from cityweave.manifest import content_hash, write_json
from cityweave.train.settings import TrainSettings, differences, digest_of, identity, with_value
from cityweave.train.tasks import settings_of, task_of

if TYPE_CHECKING:
    from cityweave.train.loop import Requests

CONFIG, RESULT, FAILED, WEIGHTS, JOBS = "config.json", "result.json", "failed.txt", "weights.safetensors", "jobs.json"


@dataclass(frozen=True)
class PlannedRun:
    changes: dict[str, Any]  # what tells it from the others
    settings: TrainSettings
    identity: dict[str, Any]
    folder: Path

    @property
    def digest(self) -> str:
        return digest_of(self.identity)

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()


@dataclass(frozen=True)
class Training:
    folder: Path
    task: str
    settings: TrainSettings
    runs: list[PlannedRun]


def plan_training(
    task: str, values: Mapping[str, Any], changes: Sequence[dict[str, Any]], folder: Path, data_digest: str
) -> Training:
    """Check every run's configuration; nothing is written."""
    runs = []
    for index, change in enumerate(changes):
        changed: Mapping[str, Any] = values
        for key, value in change.items():
            changed = with_value(changed, key, value)
        where = " ".join(f"{key}={value}" for key, value in change.items()) or "the configuration"
        settings = settings_of(task, changed, where)
        own = {"task": task, **identity(settings, data_digest)}
        runs.append(PlannedRun(change, settings, own, folder / f"run-{index:02d}-{digest_of(own)[:8]}"))
    return Training(folder, task, settings_of(task, values, "the configuration"), runs)


def prepare(training: Training) -> None:
    """Write the configurations, or refuse: a folder belongs to what it was started with."""
    config = training.folder / CONFIG
    new = {
        "task": training.task,
        "runs": {run.folder.name.split("-")[1]: run.identity | {"changes": run.changes} for run in training.runs},
    }
    if config.is_file():
        old = json.loads(config.read_text())
        if changed := differences(old, json.loads(json.dumps(new))):
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise ConfigError(
                f"{training.folder} was started with another configuration ({'; '.join(changed[:5])}{more}); accepted: "
                "the one before, or another name"
            )
    training.folder.mkdir(parents=True, exist_ok=True)
    write_json(config, new)
    for run in training.runs:
        run.folder.mkdir(exist_ok=True)
        values = {
            "task": training.task,
            "changes": run.changes,
            "hash": run.digest,
            "data_sha256": run.identity["data"]["sha256"],
            "settings": run.settings.model_dump(mode="json"),
        }
        write_json(run.folder / CONFIG, values)


def work(folder: Path, device: str, requests: Requests) -> None:
    """One run, from its last checkpoint on; nothing to do when it is finished."""
    from cityweave.train.loop import Interrupted

    if (folder / RESULT).is_file():
        return
    (folder / FAILED).unlink(missing_ok=True)
    try:
        _train(folder, device, requests)
    except Interrupted:
        raise
    except Exception:
        (folder / FAILED).write_text(traceback.format_exc())
        raise


def _train(folder: Path, device: str, requests: Requests) -> None:
    from cityweave.io.weights import save_tensors
    from cityweave.train.loop import Loop
    from cityweave.train.watching import sender

    require(device)
    config = read_run(folder)
    settings = settings_of(config["task"], config["settings"], f"{folder / CONFIG}")
    task = task_of(config["task"], settings)
    if task.data.digest != config["data_sha256"]:
        raise DataError(f"{folder}: the training data were made anew since it was planned; accepted: another name")
    loop = Loop(
        task,
        settings.loop,
        settings.checkpoints,
        folder,
        config["hash"],
        settings.seed,
        _torch_device(device),
        requests,
        sender(settings.wandb, folder, config["hash"], config["settings"]),
    )
    outcome = loop.run()
    figures = {name: round(value, 4) for name, value in outcome.figures.items()}
    baselines = {name: {key: round(value, 4) for key, value in each.items()} for name, each in task.baselines().items()}
    card = task.card() | {"parameters": outcome.parameters, "config_hash": config["hash"], "figures": figures}
    save_tensors(folder / WEIGHTS, outcome.weights, card)
    weights = folder / WEIGHTS
    write_json(
        folder / RESULT,
        {
            "task": config["task"],
            "changes": config["changes"],
            "config_hash": config["hash"],
            "watch": task.watch,
            "figures": figures,
            "baselines": baselines,
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "stopped": outcome.stopped,
            "parameters": outcome.parameters,
            "weights": {"file": WEIGHTS, "bytes": weights.stat().st_size, "sha256": content_hash(weights)},
            "cost": {"seconds": round(outcome.seconds, 1), "starts": outcome.starts, "device": loop.device},
        },
    )


def read_run(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is no run of a training ({error})") from None
    return config


def _torch_device(device: str) -> str:
    import torch

    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
