"""Heights of stereo and of a picture together, and of a picture alone, really run. The network is random: no judge of
quality, but of what runs, who reads whom, and what repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="make setup EXTRAS=models")

from cityweave.grid import CellGrid, Tile
from cityweave.lattice import Window
from cityweave.manifest import Manifest, Run
from cityweave.operations.upkeep import Unit, Upkeep
from cityweave.plan import city_tiles, dsm_box
from tests.cityscale.tiny import marigold_weights, small_weights

from .conftest import Workflow
from .test_mini_city import product_hashes

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def values(mini_values: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    weights = small_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    cityscale = {"weights": str(weights), "window_m": 64}
    return mini_values | {"dsm": {"method": "fused", "align_m": 16}, "cityscale": cityscale}


@pytest.fixture(scope="module")
def fused(values: dict, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = Workflow(tmp_path_factory.mktemp("fused"), values)
    workflow.succeed("--", "heights")
    return workflow


def layers(city: Path, tile: str, name: str = "dsm") -> dict[str, np.ndarray]:
    import zarr

    root = zarr.open_group(Manifest.read(city / "tiles" / tile / f"{name}.json").product(name), mode="r")
    return {layer: root[layer][:] for layer in ("dsm", "dtm", "sigma", "source")}


def cores(workflow: Workflow, tile: Tile, name: str) -> dict[str, np.ndarray]:
    """Without the halo, which a fused tile takes from its neighbours."""
    config = Run.open(workflow.city).config
    window = CellGrid.covering(dsm_box(config, tile), 0.5).window_of(CellGrid.covering(tile.core, 0.5))
    return {layer: values[window] for layer, values in layers(workflow.city, tile.name, name).items()}


def test_the_source_layer_says_which_height_is_which(fused: Workflow) -> None:
    for tile in city_tiles(Run.open(fused.city).config):
        both, measured = (cores(fused, tile, name) for name in ("dsm", "stereo"))
        kept = both["source"] != 3
        assert 0.5 < kept.mean() < 1
        assert (both["dsm"][kept] == measured["dsm"][kept]).all() and (measured["source"][~kept] == 2).all()
        assert (both["source"][kept] == measured["source"][kept]).all()
        assert ((both["source"] == 2) & kept).mean() < 0.1  # what a roof hides in the picture stays filled
        notes = Manifest.read(fused.city / "tiles" / tile.name / "dsm.json").values["notes"]
        assert notes["terrain"] == "estimated" and notes["predicted_share"] == pytest.approx(1 - kept.mean(), abs=0.02)


def test_every_window_is_predicted_once_and_neighbours_agree(fused: Workflow) -> None:
    tiles = city_tiles(Run.open(fused.city).config)
    names = [
        name
        for tile in tiles
        for name in Manifest.read(fused.city / "tiles" / tile.name / "cityscale.json").values["notes"]["windows"]
    ]
    assert len(names) == len(set(names)) > 16
    assert Window(0, 0, 128, 0.5).name == "0,0"


def test_who_reads_whom_is_what_the_manifests_say(fused: Workflow) -> None:
    upkeep = Upkeep(Run.open(fused.city))
    tiles, checked = {tile.name: tile for tile in upkeep.tiles}, 0
    for unit in upkeep.units():
        if unit.name not in ("stereo", "cityscale", "dsm"):
            continue
        for key in Manifest.read(upkeep.manifest(unit)).values["inputs"]:
            name, _, tile = key.partition("/")
            if tile or name == "ingest":
                assert unit in upkeep.readers(Unit(name, tiles.get(tile, unit.tile))), f"{unit} reads {key}"
                checked += 1
    assert checked > 30


def test_same_bytes_in_another_folder_and_a_second_run_does_nothing(
    fused: Workflow, values: dict, tmp_path: Path
) -> None:
    assert fused.planned("--", "heights") == {}
    other = Workflow(tmp_path, values)
    other.succeed("--", "heights", cores=1)
    assert product_hashes(other.city) == product_hashes(fused.city)


def test_a_city_of_one_picture_on_given_ground(fused: Workflow, values: dict, tmp_path: Path) -> None:
    """No view at all: an orthophoto and a terrain are enough. It shows roofs and ground, and no wall. Its heights are
    said by a network of Marigold's classes and folders."""
    pytest.importorskip("diffusers", reason="make setup EXTRAS=pipelines")
    folder = fused.city / "sources"
    city = {key: value for key, value in values.items() if key != "synth"} | {
        "sources": {
            "ortho": [{"name": "photo", "path": str(folder / "ortho.tif")}],
            "terrain": {"path": str(folder / "terrain.tif")},
        },
        "dsm": {"method": "cityscale"},
        "cityscale": values["cityscale"] | {"weights": str(marigold_weights(tmp_path))},
    }
    workflow = Workflow(tmp_path, city)
    workflow.succeed()
    metrics = json.loads((workflow.city / "metrics.json").read_text())
    assert metrics["mesh"]["boundary_edges"] == metrics["mesh"]["nonmanifold_edges"] == 0
    for tile in city_tiles(Run.open(workflow.city).config):
        textured = Manifest.read(workflow.city / "tiles" / tile.name / "texture.json").values["notes"]
        assert textured["views"] == ["photo"] and textured["observed_share"] > 0.3
        found = layers(workflow.city, tile.name)
        assert (found["source"] == 3).all() and (found["dsm"] >= found["dtm"]).all() and (found["sigma"] > 0).all()
        assert json.loads((workflow.city / "tiles" / tile.name / "dsm.json").read_text())["notes"]["terrain"] == "given"
