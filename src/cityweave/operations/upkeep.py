"""What a run keeps on disk: dropping what no missing product needs, and mending what a file system has purged.

Both ask the same question of the same graph: which jobs are still to be done, and which products do they read?
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cityweave.config import Config
from cityweave.grid import DIVISIONS, Tile, rings_for
from cityweave.manifest import Run, is_whole, pruned_marker, remove, write_json
from cityweave.plan import (
    CITY_MANIFESTS,
    city_tiles,
    cityscale_halo_m,
    novel_name,
    novel_rings,
    pictured_tiles,
    predicting_tiles,
    rendered_rings,
    stereo_rings,
    texture_name,
    texture_rings,
    tile_manifests,
)

PRUNED_STAGES = ("ingest", "stereo", "cityscale", "dsm", *(f"sdf_{division}" for division in DIVISIONS))
_Reads = Callable[[Config, Tile, Collection[Tile]], list[Tile]]
# Only these may go: everything else is handed over, or named by what is handed over.
_INTERMEDIATE = {*PRUNED_STAGES, "synth"}


@dataclass(frozen=True, order=True)
class Unit:
    """One job's manifest."""

    name: str
    tile: Tile | None = None


@dataclass(frozen=True)
class Drop:
    path: Path
    bytes: int
    inodes: int


class Upkeep:
    """The jobs of one run, who reads whom, and the state of each."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tiles = city_tiles(run.config)
        self.members = set(self.tiles)
        self.textures = [texture_name(run.config, number) for number in range(run.config.texture.refine.rounds + 1)]

    def units(self) -> Iterator[Unit]:
        """Every job before those that it reads from."""
        of_tiles = reversed(tile_manifests(self.run.config))
        for name in ("report", "evaluate", "merge_city", "merge_heights", *of_tiles, "survey", "synth"):
            if name == "synth" and not self.manifest(Unit(name)).is_file():
                continue  # real sources, or those of the run beside it
            yield from [Unit(name)] if name in CITY_MANIFESTS else [Unit(name, tile) for tile in self.tiles]

    def manifest(self, unit: Unit) -> Path:
        return self.run.manifest_path(unit.name, unit.tile)

    def readers(self, unit: Unit) -> Iterator[Unit]:
        """Jobs that open products of this one."""
        tile = unit.tile
        if tile is None:
            names: dict[str, tuple[str, ...]] = {
                "synth": ("survey", "ingest", "evaluate"),
                "survey": ("ingest", *self.textures, "merge_heights", "merge_city", "report"),
                "merge_heights": ("evaluate", "report"),
                "merge_city": ("evaluate", "report"),
                "evaluate": ("report",),
            }
            for name in names.get(unit.name, ()):
                yield from [Unit(name)] if name in CITY_MANIFESTS else [Unit(name, other) for other in self.tiles]
        elif unit.name == "ingest":
            method = self.run.config.dsm.method
            if method != "stereo":
                yield from self._who("cityscale", tile, pictured_tiles)
            yield from [Unit("stereo", tile)] if method == "fused" else []
            yield from (Unit("dsm", tile), *(Unit(name, tile) for name in self.textures), Unit("evaluate"))
        elif unit.name == "stereo":
            yield from self._around("dsm", tile, stereo_rings(self.run.config))
        elif unit.name == "cityscale":
            yield from self._who("dsm", tile, predicting_tiles)
        elif unit.name == "dsm":
            yield from (Unit(f"sdf_{division}", tile) for division in DIVISIONS)
            yield Unit("merge_heights")
        elif unit.name.startswith("sdf_"):
            yield from (Unit("mesh", other) for other in tile.ring(1) if other in self.members)
        elif unit.name == "mesh":
            for name in self.textures:
                yield from self._around(name, tile, texture_rings(self.run.config))
            for number in range(1, len(self.textures)):
                yield from self._around(novel_name(number), tile, rendered_rings(self.run.config))
            yield from (Unit("merge_city"), Unit("evaluate"))
        elif unit.name in self.textures[:-1]:
            following = novel_name(self.textures.index(unit.name) + 1)
            yield from self._around(following, tile, rendered_rings(self.run.config))
        elif unit.name.startswith("novel_"):
            yield from self._around(
                texture_name(self.run.config, int(unit.name[6:])), tile, novel_rings(self.run.config)
            )
        elif unit.name == "texture":
            yield from (Unit("merge_city"), Unit("evaluate"))

    def _who(self, name: str, tile: Tile, read: _Reads) -> Iterator[Unit]:
        """Of the tiles that may, those that do read this one."""
        config = self.run.config
        rings = rings_for(2 * (config.cityscale.window_m + cityscale_halo_m(config)), config.tiles.size_m)
        yield from (u for u in self._around(name, tile, rings) if u.tile and tile in read(config, u.tile, self.members))

    def _around(self, name: str, tile: Tile, rings: int) -> Iterator[Unit]:
        yield from (Unit(name, other) for other in tile.ring(rings) if other in self.members)

    @cached_property
    def states(self) -> dict[Unit, str]:
        """missing (no manifest), whole, pruned (dropped on purpose) or gone (taken by somebody else)."""
        return {unit: self._state(unit) for unit in self.units()}

    def _state(self, unit: Unit) -> str:
        path = self.manifest(unit)
        if not path.is_file():
            return "missing"
        if all(is_whole(path.parent / product["path"], product["bytes"]) for product in _values(path)["products"]):
            return "whole"
        return "pruned" if pruned_marker(path).is_file() else "gone"

    @cached_property
    def to_do(self) -> set[Unit]:
        """What is missing, and whatever those jobs read that isn't there any more."""
        todo: set[Unit] = set()
        for unit, state in self.states.items():
            needed = unit.name not in _INTERMEDIATE or any(reader in todo for reader in self.readers(unit))
            if state == "missing" or (state in ("gone", "pruned") and needed):
                todo.add(unit)
        return todo

    def droppable(self) -> dict[Unit, list[Drop]]:
        """Intermediates whose every reader is done."""
        found = {}
        for unit, state in self.states.items():
            if unit.name not in PRUNED_STAGES or state != "whole":
                continue
            path = self.manifest(unit)
            products = _values(path)["products"]
            if products and not any(reader in self.to_do for reader in self.readers(unit)):
                found[unit] = [_drop(path.parent / product["path"], product["bytes"]) for product in products]
        return found


def _values(manifest: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(manifest.read_text())
    return values


def _drop(path: Path, size: int) -> Drop:
    return Drop(path, size, 1 + (sum(1 for _ in path.rglob("*")) if path.is_dir() else 0))


def prune(run: Run, *, really: bool, say: Callable[[str], None] = print) -> int:
    """Drop intermediates that nothing missing needs, or only list them; the bytes that go."""
    upkeep = Upkeep(run)
    found = upkeep.droppable()
    kinds: dict[str, list[Drop]] = {}
    for unit, drops in found.items():
        kinds.setdefault(unit.name.split("_")[0], []).extend(drops)
    for kind, drops in kinds.items():
        say(f"{kind:8} {len(drops):6} products {_mb(drops):10.1f} MB {sum(drop.inodes for drop in drops):8} inodes")
    every = [drop for drops in kinds.values() for drop in drops]
    waiting = sum(unit.name in PRUNED_STAGES and state == "whole" for unit, state in upkeep.states.items()) - len(found)
    if waiting:
        say(f"{waiting} more stay: jobs that aren't done yet read them")
    if not really:
        say(f"{_mb(every):.1f} MB would go; nothing was touched. Do it: cityweave prune --run {run.folder} --yes")
        return 0
    for unit, drops in found.items():
        path = upkeep.manifest(unit)
        # The marker first: whoever dies in between leaves products that look pruned, never ones that look lost.
        write_json(pruned_marker(path), {"products": [drop.path.name for drop in drops], "bytes": _bytes(drops)})
        for drop in drops:
            remove(drop.path)
    say(f"{_mb(every):.1f} MB are gone. The manifests stay; bring one back with: snakemake --force MANIFEST")
    return _bytes(every)


def _bytes(drops: list[Drop]) -> int:
    return sum(drop.bytes for drop in drops)


def _mb(drops: list[Drop]) -> float:
    return _bytes(drops) / 1e6


def mend(run: Run, say: Callable[[str], None] = print) -> list[Path]:
    """After a purge: forget the manifests whose products are gone and needed; the manifests to make again.

    What is gone and read by nobody any more is marked as pruned.
    """
    upkeep = Upkeep(run)
    again: list[Path] = []
    idle = 0
    for unit, state in upkeep.states.items():
        path = upkeep.manifest(unit)
        if state in ("gone", "pruned") and unit in upkeep.to_do:
            again.append(path)
        elif state == "gone":
            names = [product["path"] for product in _values(path)["products"]]
            write_json(pruned_marker(path), {"products": names, "bytes": 0})
            idle += 1
    for path in again:
        path.unlink()
    if idle:
        say(f"{idle} jobs lost products that nothing needs any more: marked as pruned")
    if not again:
        say("nothing that is needed is gone")
        return again
    again.sort()
    say(f"{len(again)} jobs lost products that are needed; their manifests are removed. Make just these again with:")
    say(f"  {remake_command(run, again)}")
    return again


def remake_command(run: Run, manifests: list[Path]) -> str:
    """They have to be named: a workflow whose last products exist doesn't ask for what came before.

    What comes after isn't run: it finds the same content and has nothing to do.
    """
    listed = run.folder / "remake.txt"
    listed.write_text("".join(f"{path}\n" for path in manifests))
    targets = " ".join(map(str, manifests)) if len(manifests) <= 4 else f"$(cat {listed})"
    return f"snakemake [YOUR OPTIONS] -- {targets}"
