"""The height model of a small city in one process: the workflow's own jobs, without the start of each.

What it leaves is what the workflow would: jobs whose manifests are there aren't done again, by either of them.
"""

from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cityweave import cores
from cityweave.config import Config
from cityweave.errors import ConfigError
from cityweave.grid import Tile
from cityweave.manifest import Manifest, Run
from cityweave.packs import work_through
from cityweave.plan import city_tiles


def make_heights(config: Config, cpus: int) -> Run:
    """Measured in views: survey, tiles side by side, merge."""
    if config.synth is not None or config.workflow.adopt is not None or config.dsm.method != "stereo":
        raise ConfigError(
            "only the workflow makes these heights: snakemake --cores all --configfile FILE -- heights; accepted "
            "here: dsm.method: stereo, sources that are files, nothing adopted"
        )
    run = replace(Run.begin(config), resume=True)
    tiles = city_tiles(config)
    cores.use(cpus)
    with ThreadPoolExecutor(1) as beside:  # the survey's kernels leave the interpreter alone half of the time
        loading = beside.submit(_load)
        importlib.import_module("cityweave.survey.job").run(run)
        loading.result()
    at_once = max(1, min(cpus, len(tiles)))
    cores.use(cpus // at_once)
    work_through(lambda tile: _measure(run, tile), tiles, at_once)
    for tile in tiles:
        if reason := Manifest.read(run.manifest_path("dsm", tile)).quarantined:
            print(f"quarantined: {reason}", file=sys.stderr)
    importlib.import_module("cityweave.merge.job").heights(run)
    return run


def _load() -> None:
    """What comes after the survey."""
    for stage in ("ingest", "dsm", "merge"):
        module = importlib.import_module(f"cityweave.{stage}.job")
        if stage != "merge":
            module.warm_up()


def _measure(run: Run, tile: Tile) -> None:
    for stage in ("ingest", "dsm"):
        importlib.import_module(f"cityweave.{stage}.job").run(run, tile)
