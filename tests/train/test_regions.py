"""Scores of regions: figures against plain sums, and what is said of tall buildings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="make setup EXTRAS=models")

from cityweave.errors import ConfigError
from cityweave.train.cities import City
from cityweave.train.regions import Regions, Score, curve, evaluate, predicted, read_regions, saturated, slope, table
from tests.cityscale.tiny import small_weights

SIDE = 150


def city(rng: np.random.Generator) -> City:
    height = np.zeros((SIDE, SIDE), np.float32)
    height[20:60, 20:60], height[80:140, 30:90] = 12.0, 90.0
    height[80:140, 60:90] = 150.0
    valid = np.ones(height.shape, bool)
    valid[:5] = False
    return City(rng.integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8), height, valid, 255.0)


def test_figures_are_what_plain_sums_say() -> None:
    rng = np.random.default_rng(0)
    place = city(rng)
    said = place.height_m * 0.8 + 1
    said[:5] = 1e6  # not valid: no matter
    score = Score()
    score.add("place", said, place, 1000.0)
    figures = score.figures()
    off = (said - place.height_m)[5:]
    assert figures["mae_m"] == pytest.approx(np.abs(off).mean())
    assert figures["rmse_m"] == pytest.approx(np.sqrt((off**2).mean()))
    assert figures["median_bias_m"] == pytest.approx(1.0, abs=1e-6)
    assert figures["slope_above_60m"] == pytest.approx(0.8)
    assert figures["bands"]["10 to 25 m"]["bias_m"] == pytest.approx(0.2 * -12 + 1, abs=1e-5)
    assert figures["curve"][-1] == pytest.approx([150.0, 121.0], abs=1e-3)


def test_a_curve_that_saturates_is_flat_at_its_end() -> None:
    true = np.repeat(np.arange(5.0, 200.0, 0.5), 50)
    ends = [point[1] for point in curve(np.minimum(true, 70.0), true)][-3:]
    assert ends == [70.0] * 3
    assert slope(np.minimum(true, 70.0), true) < 0.1
    assert slope(true, true) == pytest.approx(1.0)
    assert slope(true[:10], true[:10]) is None


def test_a_prediction_at_the_top_of_what_was_trained_on_is_flagged() -> None:
    said = np.zeros((100, 100))
    assert not saturated(said, 100.0)
    said[:2, :2] = 95.0
    assert saturated(said, 100.0) and not saturated(said, 200.0)


def test_a_city_is_covered_whatever_its_size() -> None:
    rng = np.random.default_rng(0)
    place = city(rng)
    for size_px in (64, 128, 512):
        metres, _ = predicted(place, lambda rgb, _: (rgb[0], rgb[0]), size_px, 0.5)
        assert np.allclose(metres, place.rgb[0] * (2 / 255) - 1, atol=1e-4)


def test_regions_are_scored_beside_answers_that_need_no_network(tmp_path: Path) -> None:
    weights = small_weights(tmp_path / "w.safetensors")
    regions = Regions.model_validate({
        "mean_height_m": 4.0,
        "highest_m": 100.0,
        "window_m": 32,
        "cityscale": {"ours": weights},
        "regions": {"here": {"synthetic": [{"first_seed": 7, "count": 1, "side_m": 64, "styles": ["estate"]}]}},
    })  # fmt: skip
    figures = evaluate(regions)
    assert list(figures["here"]) == ["flat ground", "mean height", "ours", "ours, shadows"]
    assert table(figures).count("\n") == 6
    assert figures["here"]["flat ground"]["median_bias_m"] <= 0


def test_a_style_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "regions.yaml"
    file.write_text(
        "{mean_height_m: 4, highest_m: 9, regions: {a: {synthetic: [{first_seed: 1, count: 1, styles: [gothic]}]}}}"
    )
    with pytest.raises(ConfigError, match="there is no style gothic; accepted: mixed, garden"):
        read_regions(file)
