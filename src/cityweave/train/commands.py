"""`cityweave train ...`: parse and call, no more."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from cityweave.gpu import DEVICE_VARIABLE, DEVICES

TRAINING = Path("training")
EXECUTOR_NAMES = ("none", "local", "slurm")
TASK_HELP = {
    "heights": "height above ground from one RGB window, by a small U-Net",
    "height_vae": "the autoencoder of pictures and relative heights that cityscale is made on",
    "cityscale": "height above ground from one RGB window, by latent diffusion and a head for the scale",
    "restorer": "pictures of a textured city made to look like the city, by a small U-Net",
}


def add_train(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    train = commands.add_parser("train", help="train a model, here or on a cluster")
    what = train.add_subparsers(dest="what", required=True, metavar="WHAT")
    data = what.add_parser("data", help="make the training data of a configuration, once")
    _add_config(data)
    data.add_argument("--task", choices=TASK_HELP, default="heights", help="whose configuration it is")
    data.set_defaults(call=_data)
    for task, text in TASK_HELP.items():
        command = what.add_parser(task, help=text)
        _add_config(command)
        command.add_argument("--sweep", type=Path, metavar="FILE", help="values of dotted keys, each a run")
        command.add_argument("--executor", choices=EXECUTOR_NAMES, default="none", help="none: in this process")
        command.add_argument("--wait", action="store_true", help="slurm: stay until all runs have ended")
        command.add_argument("--to", type=Path, default=TRAINING, metavar="FOLDER", help="default: training")
        command.add_argument(
            "--device",
            choices=DEVICES,
            default=os.environ.get(DEVICE_VARIABLE, "auto"),
            help=f"default: ${DEVICE_VARIABLE}, or auto",
        )
        command.set_defaults(call=_train, task=task)
    regions = what.add_parser("regions", help="score trained heights in cities of several regions")
    regions.add_argument("--config", type=Path, default=Path("config/train/regions.yaml"), metavar="FILE")
    regions.add_argument("--to", type=Path, default=TRAINING / "regions", metavar="FOLDER")
    regions.set_defaults(call=_regions)
    results = what.add_parser("results", help="gather the figures of all runs into one table")
    results.add_argument("folder", type=Path, metavar="FOLDER", help="such as training/heights")
    results.set_defaults(call=_results)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="such as config/train/heights.yaml")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments", help="such as loop.steps=200"
    )


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    from cityweave.train.settings import parse_assignment, read_yaml, with_value

    values = read_yaml(arguments.config)
    for text in arguments.assignments:
        values = with_value(values, *parse_assignment(text))
    return values


def _data(arguments: argparse.Namespace) -> None:
    from cityweave.fetched import use_compiled_kernels
    from cityweave.train.tasks import make_data, settings_of

    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    use_compiled_kernels()
    settings: Any = settings_of(arguments.task, _values(arguments), str(arguments.config))
    print(make_data(arguments.task, settings))


def _train(arguments: argparse.Namespace) -> None:
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from cityweave.train.launch import launch
    from cityweave.train.results import gather
    from cityweave.train.runs import plan_training, prepare
    from cityweave.train.sweep import expand, read_sweep
    from cityweave.train.tasks import open_data, settings_of
    from cityweave.train.watching import require_watching

    values = _values(arguments)
    sweep = read_sweep(arguments.sweep) if arguments.sweep else None
    if sweep:
        values |= {"name": sweep.name}
    settings: Any = settings_of(arguments.task, values, str(arguments.config))
    require_watching(settings.wandb)
    data = open_data(arguments.task, settings)
    folder = arguments.to / settings.name
    training = plan_training(arguments.task, values, expand(sweep) if sweep else [{}], folder, data.digest)
    prepare(training)
    try:
        launch(training, arguments.executor, arguments.device, wait=arguments.wait)
    finally:
        text = gather(folder)
    print(text)


def _regions(arguments: argparse.Namespace) -> None:
    from cityweave.fetched import use_compiled_kernels

    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    use_compiled_kernels()
    from cityweave.train.regions import evaluate, read_regions, write

    print(write(evaluate(read_regions(arguments.config)), arguments.to))


def _results(arguments: argparse.Namespace) -> None:
    from cityweave.train.results import gather

    print(gather(arguments.folder))
