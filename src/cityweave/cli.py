"""The command line: parse, open the run, call one stage. Every stage is imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cityweave import cores, gpu
from cityweave.bench.commands import add_bench
from cityweave.config import Config
from cityweave.errors import CityweaveError, ConfigError, say
from cityweave.fetched import use_compiled_kernels
from cityweave.gpu import DEVICE_VARIABLE, DEVICES
from cityweave.grid import Tile, parse_tile
from cityweave.machine import keep_freed_memory, usable_cores
from cityweave.manifest import Run
from cityweave.operations.commands import add_commands
from cityweave.packs import work_through
from cityweave.plan import city_tiles

# Stage command -> module and function, and what it wants beside the run: nothing, how many processors it may use,
# tiles, tiles and divisions, or tiles and a round of refinement.
STAGES: dict[str, tuple[str, str, str]] = {
    "synth": ("cityweave.synth.job", "run", "city"),
    "survey": ("cityweave.survey.job", "run", "city"),
    "ingest": ("cityweave.ingest.job", "run", "tiles"),
    "stereo": ("cityweave.dsm.job", "stereo", "tiles"),
    "cityscale": ("cityweave.cityscale.job", "run", "tiles"),
    "dsm": ("cityweave.dsm.job", "run", "tiles"),
    "fit": ("cityweave.geometry.job", "fit", "divisions"),
    "mesh": ("cityweave.geometry.job", "mesh", "tiles"),
    "texture": ("cityweave.texture.job", "run", "rounds"),
    "novel": ("cityweave.texture.novel_job", "run", "rounds"),
    "merge-heights": ("cityweave.merge.job", "heights", "cpus"),
    "merge-city": ("cityweave.merge.job", "city", "cpus"),
    "evaluate": ("cityweave.evaluate.job", "run", "city"),
    "report": ("cityweave.report.job", "run", "city"),
}
ON_CORES = ("survey", "stereo", "dsm", "texture", "novel")  # stages whose compiled loops run on several cores
AT_ONCE = ("ingest", "stereo", "dsm")  # stages that may work on several tiles of a pack at once; they have a `warm_up`


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 config, 3 data, 4 missing capability; anything else is a defect (1)."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.call(arguments) or 0)
    except CityweaveError as error:
        return say(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cityweave",
        description="Pictures of a city taken from above to one height model and one textured 3D city. "
        "The workflow calls one sub-command a job; the ones for people are check, heights, plan, fetch, doctor, "
        "status, prune, bench, deliver, retry, border, where and train.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, _, wants) in STAGES.items():
        command = commands.add_parser(name, help=f"job of the workflow ({wants})")
        _add_run(command)
        if wants == "cpus" or name in ON_CORES:
            command.add_argument("--cpus", type=int, default=1, metavar="N", help="processors it may use here")
        command.set_defaults(at_once=1)
        if name in AT_ONCE:
            command.add_argument("--at-once", type=int, default=1, metavar="N", help="tiles worked on side by side")
        if wants in ("tiles", "divisions", "rounds"):
            command.add_argument("--tile", action="append", required=True, metavar="NAME", dest="tiles")
        if wants == "divisions":
            command.add_argument(
                "--division", action="append", type=int, required=True, choices=range(4), dest="divisions"
            )
        if wants == "rounds":
            command.add_argument("--round", type=int, required=name == "novel", metavar="N", help="default: the last")
        command.add_argument(
            "--device",
            choices=DEVICES,
            default=os.environ.get(DEVICE_VARIABLE, "auto"),
            help=f"cuda: fail where no GPU is visible; default: ${DEVICE_VARIABLE}, or auto",
        )
        command.set_defaults(call=_stage)
    adopt = commands.add_parser("adopt", help="job of the workflow: take stages over from another run")
    _add_run(adopt)
    adopt.set_defaults(call=_adopt)
    _add_people_commands(commands)
    add_commands(commands)
    add_bench(commands)
    return parser


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="such as results/demo")


def _add_people_commands(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    check = commands.add_parser("check", help="check a configuration and its sources")
    check.add_argument("--config", type=Path, required=True)
    check.set_defaults(call=_check)
    heights = commands.add_parser("heights", help="measure the heights of a small city in one process")
    heights.add_argument("--config", type=Path, required=True)
    heights.add_argument("--cpus", type=int, default=usable_cores(), metavar="N", help="processors; default: all")
    heights.set_defaults(call=_heights)
    where = commands.add_parser("where", help="say where the products of a configuration are")
    where.add_argument("--config", type=Path, required=True)
    where.set_defaults(call=_where)
    schema = commands.add_parser("schema", help="print the JSON schema of the configuration")
    schema.set_defaults(call=_schema)
    status = commands.add_parser("status", help="tile x stage: done, failed, missing, quarantined, with cost")
    _add_run(status)
    status.add_argument(
        "--fix", action="store_true", help="after a purge: forget what is gone and needed, and say what to run"
    )
    status.set_defaults(call=_status)
    verdict = commands.add_parser("verdict", help="fail when a tile is quarantined or missing")
    _add_run(verdict)
    verdict.add_argument("--output", type=Path, help="written when the verdict is good")
    verdict.set_defaults(call=_verdict)
    border = commands.add_parser("border", help="fill border_ratio in metrics.json from the run with shifted tiles")
    border.add_argument("--config", type=Path, required=True)
    border.set_defaults(call=_border)
    deliver = commands.add_parser("deliver", help="quarantine a tile on purpose, so that the rest can be delivered")
    _add_run(deliver)
    deliver.add_argument("--without", required=True, metavar="TILE")
    deliver.add_argument("--reason", required=True)
    deliver.set_defaults(call=_deliver)
    retry = commands.add_parser("retry", help="take a quarantine back: the next run does the tile again")
    _add_run(retry)
    retry.add_argument("tile", metavar="TILE")
    retry.set_defaults(call=_retry)


def _tiles(run: Run, names: Sequence[str]) -> list[Tile]:
    city, sizes = city_tiles(run.config), run.config.tiles
    tiles = [parse_tile(name, sizes.size_m, sizes.shift_m) for name in names]
    for tile in tiles:
        if tile not in city:
            raise ConfigError(f"{tile.name} is not in the city; its {len(city)} tiles go from {city[0].name} on")
    return tiles


def _settle() -> None:
    """What a process that does the work of jobs begins with."""
    # Before numpy is loaded: sums of its linear algebra must not depend on how many cores there are.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    use_compiled_kernels()
    keep_freed_memory()


def _stage(arguments: argparse.Namespace) -> None:
    module, function, wants = STAGES[arguments.command]
    gpu.use(arguments.device)
    _settle()
    run = Run.open(arguments.run)
    stage = importlib.import_module(module)
    call = getattr(stage, function)
    if arguments.command in ON_CORES:
        cores.use(max(1, arguments.cpus // arguments.at_once))
    if wants in ("city", "cpus"):
        call(run) if wants == "city" else call(run, arguments.cpus)
        return
    tiles = _tiles(run, arguments.tiles)
    parts = {"divisions": lambda: arguments.divisions, "rounds": lambda: [arguments.round]}.get(wants, lambda: [None])()
    units = [(tile, part) for tile in tiles for part in parts]
    if min(arguments.at_once, len(units)) > 1:
        stage.warm_up()
    with _pack(run, arguments.command, units) as run:
        work_through(lambda unit: call(run, *(each for each in unit if each is not None)), units, arguments.at_once)


@contextmanager
def _pack(run: Run, command: str, units: Sequence[tuple[Tile, int | None]]) -> Iterator[Run]:
    """Several jobs in one process. After a death the next attempt takes over what is finished, or redoes all."""
    if len(units) == 1:
        yield run
        return
    (first, _), (last, _) = units[0], units[-1]
    marker = run.folder / "packs" / f"{command}.{first.name}.{last.name}.{len(units)}.open"
    resume = marker.exists()
    marker.parent.mkdir(exist_ok=True)
    marker.touch()
    yield replace(run, resume=resume)
    marker.unlink()


def _checked(file: Path) -> Config:
    """A configuration that this machine can run on sources that are there."""
    from cityweave.cityscale.weights import require_cityscale
    from cityweave.geometry.solvers import require_solver
    from cityweave.ingest.preflight import check_sources
    from cityweave.plan import read_config
    from cityweave.texture.restorer import require_restorer

    config = read_config(file)
    require_solver(config.geometry)
    require_restorer(config.texture.refine)
    require_cityscale(config)
    check_sources(config)
    return config


def _heights(arguments: argparse.Namespace) -> None:
    from cityweave.operations.heights import make_heights

    _settle()
    print(make_heights(_checked(arguments.config), arguments.cpus).folder / "city_dsm.tif")


def _check(arguments: argparse.Namespace) -> None:
    from cityweave.plan import halos_m

    config = _checked(arguments.config)
    halos = ", ".join(f"{stage} {metres:.0f} m" for stage, metres in halos_m(config).items())
    print(f"{config.city.name}: {len(city_tiles(config))} tiles of {config.tiles.size_m} m; halos: {halos}")


def _where(arguments: argparse.Namespace) -> None:
    from cityweave.plan import read_config, run_folder
    from cityweave.status import describe_products

    print(describe_products(run_folder(read_config(arguments.config))))


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from cityweave.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2, sort_keys=True))


def _status(arguments: argparse.Namespace) -> None:
    from cityweave.operations.costs import gpu_report
    from cityweave.operations.upkeep import mend
    from cityweave.status import status_table

    run = Run.open(arguments.run)
    if arguments.fix:
        mend(run)
        return
    print("\n".join([status_table(run), *gpu_report(run)]))


def _adopt(arguments: argparse.Namespace) -> None:
    from cityweave.adopt import adopt

    print(f"{adopt(Run.open(arguments.run))} manifests taken over")


def _verdict(arguments: argparse.Namespace) -> None:
    from cityweave.status import check_verdict

    check_verdict(Run.open(arguments.run), arguments.output)


def _border(arguments: argparse.Namespace) -> None:
    from cityweave.evaluate.job import border
    from cityweave.plan import read_config, run_folder

    config = read_config(arguments.config)
    tiles = config.tiles.model_copy(update={"shift_m": config.tiles.size_m // 2})
    shifted = config.model_copy(update={"tiles": tiles})
    border(Run.open(run_folder(config)), Run.open(run_folder(shifted)))


def _deliver(arguments: argparse.Namespace) -> None:
    from cityweave.status import deliver_without

    run = Run.open(arguments.run)
    deliver_without(run, _tiles(run, [arguments.without])[0], arguments.reason)


def _retry(arguments: argparse.Namespace) -> None:
    from cityweave.status import retry_tile

    run = Run.open(arguments.run)
    retry_tile(run, _tiles(run, [arguments.tile])[0])


if __name__ == "__main__":
    sys.exit(main())
