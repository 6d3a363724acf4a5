"""The mini city, really run: its figures, its bytes, and what faults do to it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cityweave.cli import main
from cityweave.manifest import Run, content_hash

from .conftest import Workflow

pytestmark = pytest.mark.workflow

UNREPEATABLE = ("run.json", "report.html")


def product_hashes(city: Path) -> dict[str, str]:
    """Every product and manifest that must be equal to the byte; the cost within metrics.json aside."""
    hashes = {}
    for file in sorted(city.rglob("*")):
        name = file.relative_to(city).as_posix()
        if not file.is_file() or name.endswith(UNREPEATABLE) or name.split("/")[0] in ("logs", "benchmarks", "packs"):
            continue
        if name == "metrics.json":
            hashes[name] = json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "cost"})
        else:
            hashes[name] = content_hash(file)
    return hashes


def test_every_product_is_there(mini: Workflow) -> None:
    names = "city_dsm.tif city_dtm.tif city.zarr city.glb tiles3d/tileset.json tiles.geojson metrics.json"
    for name in (*names.split(), "report.html", "run.json"):
        assert (mini.city / name).exists(), name


def test_figures_of_the_mini_city(mini: Workflow) -> None:
    """Bounds well above what was measured, low enough to notice a broken stage."""
    metrics = json.loads((mini.city / "metrics.json").read_text())
    assert metrics["tiles"] == {"expected": 4, "done": 4, "quarantined": []}
    assert metrics["dsm"]["mae_m"] < 1.0
    assert abs(metrics["dsm"]["median_m"]) < 0.2
    assert metrics["dsm"]["completeness"] > 0.85
    assert metrics["mesh"]["f1"]["1"] > 0.75
    assert metrics["mesh"]["boundary_edges"] == 0
    assert metrics["mesh"]["nonmanifold_edges"] == 0
    assert metrics["texture"]["psnr"] is None or metrics["texture"]["psnr"] > 14


def test_pairs_for_the_restorer_show_one_place(mini: Workflow, tmp_path: Path) -> None:
    """Our picture and the true one, from the same cameras: alike, and not the same."""
    pytest.importorskip("torch", reason="make setup EXTRAS=models")
    from cityweave.train.pairs import PairData, city_pairs

    data = PairData(folder=tmp_path, train=(mini.city,), validation=(tmp_path,), views=2, size_px=128, window_px=64)
    for ours, truth in city_pairs(Run.open(mini.city), data):
        apart = (ours.rgb.astype(float) - truth)[ours.drawn]
        turned = (ours.rgb[:, ::-1].astype(float) - truth)[ours.drawn & ours.drawn[:, ::-1]]
        assert ours.drawn.mean() > 0.2 and 2 < abs(apart).mean() < 0.7 * abs(turned).mean()
        assert abs(ours.beyond_m[ours.drawn]).max() < 400


def test_a_second_run_does_nothing(mini: Workflow) -> None:
    assert mini.planned() == {}
    assert "Nothing to be done" in mini.succeed()


def test_same_bytes_in_another_folder_on_one_core(mini: Workflow, mini_values: dict, tmp_path: Path) -> None:
    other = Workflow(tmp_path, mini_values)
    other.succeed(cores=1)
    assert product_hashes(other.city) == product_hashes(mini.city)


def test_an_identical_redo_reruns_nothing_after_it(mini: Workflow) -> None:
    tile = next((mini.city / "tiles").iterdir())
    target = (tile / "dsm.json").relative_to(mini.folder).as_posix()
    before = (tile / "dsm.json").read_bytes()
    mini.succeed("--forcerun", target, "--", target)
    assert (tile / "dsm.json").read_bytes() == before
    assert mini.planned() == {}


def test_killed_in_the_middle_and_started_again(mini: Workflow, mini_values: dict, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, mini_values)
    process = subprocess.Popen(
        workflow.command(), cwd=workflow.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not list((workflow.city / "tiles").glob("*/dsm.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((workflow.city / "tiles").glob("*/dsm.json")), "it was killed before the first height model"
    time.sleep(5)  # jobs that were running end on their own or stay incomplete
    workflow.succeed("--unlock")
    workflow.succeed()
    assert product_hashes(workflow.city) == product_hashes(mini.city)


def test_a_quarantined_tile_costs_only_itself(mini: Workflow, mini_values: dict, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, mini_values)
    workflow.succeed("--until", "ingest")
    tile = sorted((workflow.city / "tiles").iterdir())[0]
    (tile / "dsm.json").unlink(missing_ok=True)
    assert main(["deliver", "--run", str(workflow.city), "--without", tile.name, "--reason", "clouds"]) == 0
    result = workflow.run()
    assert result.returncode != 0
    assert f"{tile.name} is quarantined: on purpose: clouds" in result.stdout + result.stderr
    metrics = json.loads((workflow.city / "metrics.json").read_text())
    assert metrics["tiles"]["done"] == 3
    assert metrics["tiles"]["quarantined"] == [tile.name]
    assert metrics["mesh"]["boundary_edges"] == 0
    assert metrics["mesh"]["nonmanifold_edges"] == 0
    assert (workflow.city / "report.html").is_file()
    assert main(["retry", "--run", str(workflow.city), tile.name]) == 0
    workflow.succeed()
    assert product_hashes(workflow.city) == product_hashes(mini.city)
