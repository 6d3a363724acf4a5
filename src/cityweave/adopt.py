"""Stages taken over from another run: the same manifests and products, by hard link where the file system allows.

For runs of the same city that differ only in what comes later. A manifest is taken over when its parameters and seed
are those that this run's own job would have.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cityweave.errors import ConfigError, DataError
from cityweave.manifest import Manifest, Run, drop_stale, recorded, remove, write_json
from cityweave.plan import CITY_MANIFESTS, city_tiles, stage_params, tile_manifests


def adopt(run: Run) -> int:
    """Take over what the configuration says; how many manifests that were."""
    wanted = run.config.workflow.adopt
    if wanted is None:
        raise ConfigError(f"{run.folder}: workflow.adopt is empty; accepted: {{run: FOLDER, stages: [synth, ...]}}")
    other = Run.open(wanted.run)
    _take_benchmarks(other, run, wanted.stages)
    count = 0
    for stage, path in adopted_manifests(run, wanted.stages):
        _take(other.folder.parent / path.relative_to(run.folder.parent), path, stage, run, other)
        count += 1
    return count


def adopted_manifests(run: Run, stages: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """(stage, manifest) in the order of work."""
    for name, stage in CITY_MANIFESTS.items():
        if stage in stages:
            folder = run.folder.with_name(run.config.city.name) if stage == "synth" else run.folder
            yield stage, folder / "city" / f"{name}.json"
    for tile in city_tiles(run.config):
        for name, stage in tile_manifests(run.config).items():
            if stage in stages:
                yield stage, run.manifest_path(name, tile)


def _take(source: Path, target: Path, stage: str, run: Run, other: Run) -> None:
    manifest = Manifest.read(source)
    own = json.loads(json.dumps(stage_params(run.config, stage)))
    if (manifest.values["parameters"], manifest.values["seed"]) != (own, run.config.seed):
        raise DataError(
            f"{source} was made with other parameters of {stage} or another seed than {run.folder} has; "
            "accepted: an up-to-date run whose configuration agrees up to that stage"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    record = target.with_name(f"{target.stem}.run.json")
    old = recorded(record)
    for entry in manifest.values["products"]:
        product, place = manifest.product(entry["name"]), target.parent / entry["path"]
        aside = place.with_name(f".{place.name}.{target.stem}.tmp")
        place.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        link(product, aside)
        remove(place)
        aside.rename(place)
    cost = json.loads(source.with_name(f"{source.stem}.run.json").read_text())
    write_json(record, cost | {"adopted_from": cost.get("adopted_from", str(other.folder))})
    write_json(target, manifest.values)
    drop_stale(target.parent, old, manifest.values)


def _take_benchmarks(other: Run, run: Run, stages: tuple[str, ...]) -> None:
    """What the jobs took, so that the cost of the run counts them."""
    units = CITY_MANIFESTS | tile_manifests(run.config) | {"fit": "geometry"}
    for name in (name for name, stage in units.items() if stage in stages):
        for path in sorted((other.folder / "benchmarks").glob(f"{name}*")):
            if path.name.removesuffix(".jsonl") == name:
                target = run.folder / "benchmarks" / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                remove(target)
                link(path, target)


def link(source: Path, target: Path) -> None:
    """A file or a folder by hard links, or by copy across file systems. Nothing here writes into a file that is there:
    products are written aside and renamed, so a link never changes under its other name."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link_file)
    else:
        link_file(str(source), str(target))


def link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
