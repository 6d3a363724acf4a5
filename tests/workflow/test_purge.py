"""A pruned run, of which a file system then takes a mesh: only what is lost is made again, to the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cityweave.manifest import Manifest, Run
from cityweave.operations.upkeep import Unit, Upkeep, mend, prune

from .conftest import Workflow
from .test_mini_city import product_hashes

pytestmark = pytest.mark.workflow


def test_only_what_a_purge_took_is_made_again(
    mini: Workflow, mini_values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = Workflow(tmp_path / "copy", mini_values)
    shutil.copytree(mini.folder, workflow.folder, dirs_exist_ok=True)
    monkeypatch.chdir(workflow.folder)
    run = Run.open(workflow.city.relative_to(workflow.folder))
    before = product_hashes(mini.city)

    assert prune(run, really=True, say=lambda _: None) > 0
    assert workflow.planned() == {}
    (lost,) = run.folder.glob("tiles/E315456_N4161600/mesh.*.npz")
    lost.unlink()
    again = [str(path) for path in mend(run, lambda _: None)]
    assert workflow.planned("--", *again) == {"ingest": 4, "dsm": 4, "fit": 4, "mesh": 1}
    workflow.succeed("--", *again)
    assert workflow.planned() == {}
    assert lost.is_file()
    after = product_hashes(workflow.city)
    assert {name: after[name] for name in before} == before


def test_who_reads_whom_is_what_the_manifests_say(mini: Workflow) -> None:
    """The graph in upkeep.py against the inputs that real jobs recorded."""
    upkeep = Upkeep(Run.open(mini.city))
    tiles = {tile.name: tile for tile in upkeep.tiles}
    checked = 0
    for unit in upkeep.units():
        inputs = Manifest.read(upkeep.manifest(unit)).values["inputs"]
        for parts in (key.split("/") for key in inputs):
            tile = next((tiles[part] for part in parts if part in tiles), None)
            name = next(part for part in parts if part not in tiles)
            if tile is None and name not in ("synth", "survey", "evaluate") and not name.startswith("merge"):
                tile = unit.tile
            if name in {other.name for other in upkeep.units()}:
                assert unit in upkeep.readers(Unit(name, tile)), f"{unit} reads {name} of {tile}"
                checked += 1
    assert checked > 60
