"""The whole evaluation of a small made-up city whose figures are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cityweave.errors import DataError
from cityweave.evaluate import job
from cityweave.manifest import Manifest, Run
from tests.evaluate import fake_city

SCHEMA = {
    "dsm": "mae_m rmse_m median_m nmad_m within_1m completeness measured_share predicted_share predicted_mae_m "
    "building_mae_m border_ratio",
    "mesh": "precision recall f1 chamfer_m boundary_edges nonmanifold_edges vertical_wall_share riser_share triangles",
    "texture": "psnr ssim st_lpips sharpness true_sharpness scored_share observed_share "
    "source_psnr restored_psnr generated_share "
    "street_psnr street_ssim street_st_lpips street_sharpness street_true_sharpness street_observed_share "
    "seam_step",
    "cost": "wall_s cpu_s peak_rss_mb per_km2_s overhead_share",
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = fake_city.make_run(tmp_path_factory.mktemp("results"))
    job.run(run)
    return run


def metrics_of(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "metrics.json").read_text())


def test_every_figure_is_there_or_has_a_reason(evaluated: Run) -> None:
    metrics = metrics_of(evaluated)
    assert metrics["city"] == "fake"
    assert metrics["tiles"] == {"expected": 4, "done": 4, "quarantined": []}
    for section, names in SCHEMA.items():
        for name in names.split():
            value = metrics[section][name]
            assert (value is None) == (f"{section}.{name}" in metrics["reasons"]), (section, name)
    for name in ("precision", "recall", "f1"):
        assert list(metrics["mesh"][name]) == ["0.5", "1", "2", "3.6"]
        assert set(metrics["mesh"]["by_class"]["roof"]) == {"precision", "recall", "f1"}
    assert metrics["dsm"]["border_ratio"] is None
    assert "second run" in metrics["reasons"]["dsm.border_ratio"]


def test_height_figures(evaluated: Run) -> None:
    dsm = metrics_of(evaluated)["dsm"]
    assert dsm["mae_m"] == dsm["rmse_m"] == dsm["median_m"] == dsm["building_mae_m"] == 0.25
    assert dsm["nmad_m"] == 0.0
    assert dsm["within_1m"] == 1.0
    rows = 2 * fake_city.SIZE_M / fake_city.GSD_M
    assert dsm["completeness"] == dsm["measured_share"] == pytest.approx(1 - int(rows / 10) / rows, abs=1e-5)


def test_mesh_figures(evaluated: Run) -> None:
    mesh = metrics_of(evaluated)["mesh"]
    assert mesh["boundary_edges"] == 0
    assert mesh["nonmanifold_edges"] == 0
    # two draws of 4 points a square metre on one surface: 1 - exp(-4 pi r²) of them are within r
    assert mesh["f1"]["0.5"] == pytest.approx(1 - math.exp(-math.pi), abs=0.015)
    assert mesh["f1"]["1"] > 0.999
    assert mesh["chamfer_m"] == pytest.approx(0.25, abs=0.02)
    for name in ("roof", "ground", "facade"):
        assert mesh["by_class"][name]["f1"]["1"] > 0.995
    assert mesh["riser_share"] == 0.0
    assert mesh["vertical_wall_share"] > 0.8


def test_texture_figures(evaluated: Run) -> None:
    metrics = metrics_of(evaluated)
    texture = metrics["texture"]
    assert texture["psnr"] > 50 and texture["ssim"] > 0.999
    assert texture["source_psnr"] == pytest.approx(30.0) and texture["generated_share"] == 0.0
    assert 0.5 < texture["scored_share"] <= 1.0
    assert texture["observed_share"] == pytest.approx(0.75, abs=0.08)
    assert 0.2 < texture["seam_step"] < 2.0


def test_pictures_leave_out_the_view_that_sees_too_little(evaluated: Run) -> None:
    folder = Manifest.read(evaluated.manifest_path("evaluate")).product("pictures")
    assert sorted(path.name for path in folder.iterdir()) == ["maps.npz", "near.jpg"]


def test_cost_counts_only_what_makes_the_city(evaluated: Run) -> None:
    cost = metrics_of(evaluated)["cost"]
    jobs = 3 + 4 * 8
    assert cost["wall_s"] == 100.0
    assert cost["cpu_s"] == 1.5 * jobs
    assert cost["peak_rss_mb"] == 300.0
    assert cost["per_km2_s"] == pytest.approx(100 / 0.004096, rel=1e-5)
    assert cost["overhead_share"] == pytest.approx(1 - 2.0 * jobs / 100)


def test_second_time_gives_the_same_bytes(evaluated: Run) -> None:
    path = evaluated.manifest_path("evaluate")
    before, figures = path.read_bytes(), (evaluated.folder / "metrics.json").read_bytes()
    job.run(evaluated)
    assert path.read_bytes() == before
    assert (evaluated.folder / "metrics.json").read_bytes() == figures


def test_quarantined_tile_lowers_recall(tmp_path: Path) -> None:
    run = fake_city.make_run(tmp_path, quarantined="E320_N640")
    job.run(run)
    metrics = metrics_of(run)
    assert metrics["tiles"] == {"expected": 4, "done": 3, "quarantined": ["E320_N640"]}
    assert metrics["mesh"]["boundary_edges"] == 0
    assert metrics["mesh"]["precision"]["1"] > 0.99
    assert 0.7 < metrics["mesh"]["recall"]["1"] < 0.8


class TestBorder:
    def shifted(self, folder: Path, bias_m: float) -> Run:
        run = Run(folder, fake_city.config(shift_m=fake_city.SIZE_M // 2))
        folder.mkdir()
        fake_city.write_heights(run, bias_m)
        return run

    def test_fills_the_ratio_and_its_interval(self, evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
        job.border(evaluated, self.shifted(evaluated.folder.parent / "fake_shift16", 0.25))
        metrics = metrics_of(evaluated)
        assert metrics["dsm"]["border_ratio"] == 0.5  # 0.25 m beside borders, 0.5 m in the shifted run
        assert metrics["dsm"]["border_ratio_interval"] == [0.5, 0.5]
        assert "dsm.border_ratio" not in metrics["reasons"]
        assert "border_ratio 0.5000" in capsys.readouterr().out

    def test_refuses_another_shift(self, evaluated: Run, tmp_path: Path) -> None:
        other = Run(tmp_path, fake_city.config(shift_m=8))
        with pytest.raises(DataError, match="accepted: half a tile, 16 m"):
            job.border(evaluated, other)


def test_a_real_city_is_measured_against_its_reference_heights(tmp_path: Path) -> None:
    run = fake_city.make_real_run(tmp_path)
    job.run(run)
    metrics = metrics_of(run)
    assert metrics["dsm"]["mae_m"] == metrics["dsm"]["median_m"] == 0.25
    assert metrics["dsm"]["building_mae_m"] is None
    assert metrics["mesh"]["boundary_edges"] == 0 and metrics["mesh"]["triangles"] > 0
    for figure, reason in (
        ("dsm.building_mae_m", "no building mask"),
        ("mesh.f1", "not synthetic"),
        ("mesh.riser_share", "not synthetic"),
        ("texture.psnr", "not synthetic"),
    ):
        section, name = figure.split(".")
        assert metrics[section][name] is None
        assert reason in metrics["reasons"][figure]
    assert metrics["texture"]["seam_step"] > 0


def test_a_city_without_any_reference(tmp_path: Path) -> None:
    run = fake_city.make_real_run(tmp_path, with_reference=False)
    job.run(run)
    metrics = metrics_of(run)
    assert metrics["dsm"]["mae_m"] is None
    assert metrics["reasons"]["dsm.mae_m"] == "there is no reference height in the city"
