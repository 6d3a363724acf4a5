"""The workflow on images that are simply files, as a user's are; one of them damaged over one tile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cityweave.cameras import RPC, geodetic_transform
from cityweave.plan import city_tiles, load_config
from tests.pictures import write_view

from .conftest import Workflow

pytestmark = pytest.mark.workflow


def with_nan_at(source: Path, target: Path, crs: str, ground_m: tuple[float, float, float]) -> None:
    """A float copy of a view whose pixels around one point on the ground are NaN."""
    with rasterio.open(source) as image:
        rpc, tags = RPC.from_tags(image.tags(ns="RPC")), image.tags()
        pixels = image.read().astype(np.float32)
    u, v = rpc.project(*geodetic_transform(crs)(*(np.array([value]) for value in ground_m)))
    row, column = int(v[0]), int(u[0])
    pixels[:, row - 4 : row + 4, column - 4 : column + 4] = np.nan
    write_view(target, pixels, rpc, tags, nodata=0)


def of_files(mini: Workflow, values: dict, **instead: Path) -> dict:
    """The mini city's configuration with its pictures and heights as files."""
    sources = mini.city / "sources"
    paths = {name: sources / "views" / f"{name}.tif" for name in ("v1", "v2", "v3", "v4")} | instead
    return {key: value for key, value in values.items() if key != "synth"} | {
        "sources": {
            "views": [{"name": name, "path": str(path)} for name, path in paths.items()],
            "terrain": {"path": str(sources / "terrain.tif")},
            "reference": {"path": str(sources / "reference.tif")},
        }
    }


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # views have RPCs instead
def test_a_view_with_nan_quarantines_its_tile_alone(mini: Workflow, mini_values: dict, tmp_path: Path) -> None:
    sources = mini.city / "sources"
    tile = city_tiles(load_config(mini_values))[0]
    centre = ((tile.core.xmin + tile.core.xmax) / 2, (tile.core.ymin + tile.core.ymax) / 2, 562.0)
    damaged = tmp_path / "damaged.tif"
    with_nan_at(sources / "views" / "v1.tif", damaged, mini_values["city"]["crs"], centre)
    values = of_files(mini, mini_values, v1=damaged)
    workflow = Workflow(tmp_path, values)
    result = workflow.run()
    assert result.returncode != 0
    assert f"{tile.name} is quarantined" in result.stdout + result.stderr
    metrics = json.loads((workflow.city / "metrics.json").read_text())
    assert metrics["tiles"] == {"expected": 4, "done": 3, "quarantined": [tile.name]}
    assert metrics["mesh"]["boundary_edges"] == metrics["mesh"]["nonmanifold_edges"] == 0
    assert metrics["dsm"]["mae_m"] < 1.5
    assert metrics["texture"]["psnr"] is None and metrics["reasons"]["texture.psnr"]


def test_a_source_that_is_gone_is_refused_before_any_job(mini_values: dict, tmp_path: Path) -> None:
    values = {key: value for key, value in mini_values.items() if key != "synth"}
    values["sources"] = {"views": [{"name": "a", "path": "a.tif"}, {"name": "b", "path": "b.tif"}]}
    workflow = Workflow(tmp_path, values)
    result = workflow.run()
    assert result.returncode == 3
    assert "a.tif" in result.stderr and not workflow.city.exists()


def heights_in_one_process(workflow: Workflow) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("cityweave")), "heights", "--config", workflow.config.name]
    return subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True, check=False)


def test_heights_in_one_process_are_those_of_the_workflow(mini: Workflow, mini_values: dict, tmp_path: Path) -> None:
    values = of_files(mini, mini_values)
    alone, other = Workflow(tmp_path / "alone", values), Workflow(tmp_path / "other", values)
    result = heights_in_one_process(alone)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "results/mini/city_dsm.tif"
    other.succeed("--", "heights")
    for file in ("city_dsm.tif", "city_dtm.tif", "city/merge_heights.json", "city/survey.json"):
        assert (alone.city / file).read_bytes() == (other.city / file).read_bytes(), file

    assert alone.planned("--", "heights") == {}
    before = {file: file.stat().st_ino for file in alone.city.glob("tiles/*/*.zarr")}
    assert heights_in_one_process(alone).returncode == 0
    assert {file: file.stat().st_ino for file in alone.city.glob("tiles/*/*.zarr")} == before


def test_heights_in_one_process_say_what_they_cannot_make(mini_values: dict, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, mini_values)
    result = heights_in_one_process(workflow)
    assert result.returncode == 2
    assert "only the workflow makes these heights" in result.stderr and not workflow.city.exists()
