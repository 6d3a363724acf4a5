"""What can be trained: command -> module, settings, task. A task is imported when it is asked for, as torch is slow."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cityweave.errors import ConfigError, MissingCapability
from cityweave.train.settings import TrainSettings, validated

if TYPE_CHECKING:
    from pathlib import Path

    from cityweave.train.loop import Data, Task

TASKS: dict[str, tuple[str, str, str]] = {
    "heights": ("cityweave.train.heights", "HeightSettings", "HeightTask"),
    "height_vae": ("cityweave.train.height_vae", "VaeSettings", "VaeTask"),
    "cityscale": ("cityweave.train.cityscale", "CityScaleSettings", "CityScaleTask"),
    "restorer": ("cityweave.train.restorer", "RestorerSettings", "RestorerTask"),
}


def _module(name: str) -> Any:
    if name not in TASKS:
        raise ConfigError(f"there is no task {name!r}; accepted: {', '.join(TASKS)}")
    try:
        return importlib.import_module(TASKS[name][0])
    except ModuleNotFoundError as error:
        raise MissingCapability(
            f"training needs {error.name}, which is not installed; accepted: make setup EXTRAS=models "
            "(pip install 'cityweave[models]')"
        ) from None


def settings_of(name: str, values: Mapping[str, Any], where: str) -> TrainSettings:
    model: type[TrainSettings] = getattr(_module(name), TASKS[name][1])
    return validated(model, values, where)


def make_data(name: str, settings: Any) -> Path:
    path: Path = _module(name).make_data(settings.data)
    return path


def open_data(name: str, settings: Any) -> Data:
    """Every checksum compared."""
    data: Data = _module(name).open_data(settings.data, thorough=True)
    return data


def task_of(name: str, settings: TrainSettings) -> Task:
    task: Task = getattr(_module(name), TASKS[name][2])(settings)
    return task
