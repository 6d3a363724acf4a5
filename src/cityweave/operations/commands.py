"""The commands for whoever runs a city on a cluster: plan, fetch, doctor, prune, train. Parse and call, no more."""

from __future__ import annotations

import argparse
from pathlib import Path

from cityweave.manifest import Run
from cityweave.train.commands import add_train


def add_commands(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    plan = commands.add_parser(
        "plan", help="jobs, hours, memory, disk and time of a city, before anything is submitted"
    )
    plan.add_argument("--config", type=Path, required=True)
    plan.add_argument("--profile", type=Path, metavar="FOLDER", help="such as profiles/slurm: what it grants and packs")
    plan.add_argument(
        "--from", type=Path, metavar="RUN", dest="from_run", help="an earlier run to learn the costs from"
    )
    plan.add_argument("--slots", type=int, metavar="N", help="jobs at once; default: the profile's, or this machine's")
    plan.add_argument("--start-s", type=float, metavar="S", help="seconds a job costs before it works")
    plan.add_argument("--json", action="store_true", help="print numbers for a program")
    plan.set_defaults(call=_plan)
    prune = commands.add_parser("prune", help="drop intermediates that no missing product needs")
    prune.add_argument("--run", type=Path, required=True, metavar="FOLDER")
    prune.add_argument("--yes", action="store_true", help="do it; without, only say what would go")
    prune.set_defaults(call=_prune)
    fetch = commands.add_parser("fetch", help="bring what nodes without a network need into one folder")
    fetch.add_argument("--config", type=Path, required=True)
    fetch.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    fetch.set_defaults(call=_fetch)
    doctor = commands.add_parser("doctor", help="check a site: Slurm, partitions, GPUs, shared files, environment")
    doctor.add_argument("--profile", type=Path, default=Path("profiles/slurm"), metavar="FOLDER")
    doctor.add_argument("--gpu", action="store_true", help="try a job with a GPU, too")
    doctor.add_argument("--no-job", action="store_true", help="submit nothing")
    doctor.add_argument("--timeout-s", type=float, default=180.0, help="how long to wait for a trial job")
    doctor.set_defaults(call=_doctor)
    add_train(commands)


def _plan(arguments: argparse.Namespace) -> None:
    from cityweave.operations.costs import reference_table, table_of
    from cityweave.operations.forecast import forecast
    from cityweave.plan import load_config
    from cityweave.profiles import read_profile, read_values

    profile = read_profile(arguments.profile) if arguments.profile else None
    config = load_config(read_values(arguments.config, profile))
    table = table_of(Run.open(arguments.from_run)) if arguments.from_run else reference_table()
    result = forecast(config, table, profile, slots=arguments.slots, start_s=arguments.start_s)
    print(result.as_json() if arguments.json else result.as_text())


def _prune(arguments: argparse.Namespace) -> None:
    from cityweave.operations.upkeep import prune

    prune(Run.open(arguments.run), really=arguments.yes)


def _fetch(arguments: argparse.Namespace) -> None:
    from cityweave.operations.fetch import fetch

    fetch(arguments.config, arguments.to)


def _doctor(arguments: argparse.Namespace) -> int:
    from cityweave.operations.doctor import examine

    return examine(arguments.profile, gpu=arguments.gpu, submit=not arguments.no_job, timeout_s=arguments.timeout_s)
