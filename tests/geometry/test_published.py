"""The published fit on a small block: it comes closer, and its field is the one that `direct` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from cityweave.config import PublishedConfig  # noqa: E402
from cityweave.geometry.field import FieldShape, Lattice, values  # noqa: E402
from cityweave.geometry.published import PublishedSettings, _Field, fit  # noqa: E402
from cityweave.grid import CellGrid  # noqa: E402
from cityweave.plan import city_tiles, load_config  # noqa: E402
from cityweave.profiles import merged  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

SIZE_M = 64.0


def block() -> np.ndarray:
    """Ground that rises a little, a house of 12 m on it, a hole in the data."""
    y, x = np.mgrid[0:64, 0:64] + 0.5
    ground = 100 + 0.02 * x
    heights = np.where((x > 20) & (x < 44) & (y > 16) & (y < 40), ground + 12, ground)
    heights[50:55, 50:60] = np.nan
    return heights


@pytest.mark.parametrize("reading", ["nodes", "centred"])
def test_the_field_is_that_of_the_numba_code(reading: str) -> None:
    draw = np.random.default_rng(1)
    nodes, points = 12, 24  # no point as far from two nodes
    h = draw.normal(0, 2, (nodes, nodes)).astype(np.float32)
    shape = FieldShape(1.0, 0.7, 2.0, reading)  # type: ignore[arg-type]
    z = torch.linspace(-3, 3, 5)
    found = _Field(nodes, points, shape, 0.7, z)(torch.from_numpy(h)).numpy()
    place = np.linspace(0, nodes, points)
    inner = slice(4, -4)  # towards the rim the one repeats nodes, the other the place
    x, y, zz = np.meshgrid(place, place, z.numpy(), indexing="ij")
    expected = values(Lattice(h, 0, 0, 1.0), shape, x, y, zz)
    assert np.allclose(found[inner, inner], expected[inner, inner], atol=1e-4)


def test_the_fit_comes_closer_to_the_heights() -> None:
    target = block()
    shape = FieldShape(2.0, 0.4, 2.0, "centred")
    found = fit(target, SIZE_M, 32, shape, PublishedSettings(cells=24, unit_m=32, steps=25, lr=0.002))
    assert np.mean(found.loss[-5:]) < 0.8 * found.loss[0]
    assert np.isfinite(found.h).all()
    inside = found.h[9:19, 11:21]
    assert np.median(np.abs(inside - 112.6)) < 1.0  # cubes of 2.7 m
    assert abs(np.median(found.h[:5]) - 100.6) < 0.5
    assert found.vertices_m[:, :2].min() > -0.1 and found.vertices_m[:, :2].max() < SIZE_M + 0.1


def test_what_cannot_be_fitted_says_so() -> None:
    shape = FieldShape(2.0, 0.4, 2.0)
    with pytest.raises(ValueError, match="multiple of the 30 nodes"):
        fit(block(), SIZE_M, 30, shape, PublishedSettings())
    with pytest.raises(ValueError, match="no value"):
        fit(np.full((64, 64), np.nan), SIZE_M, 32, shape, PublishedSettings())


def test_the_preset_has_the_published_sizes(city_values: dict[str, Any]) -> None:
    preset = yaml.safe_load((ROOT / "config" / "presets" / "published.yaml").read_text())
    config = load_config(merged(city_values, preset))
    (tile, *_) = city_tiles(config)
    geometry, side_m = config.geometry, tile.division(0).width
    assert side_m / config.dsm.gsd_m == 1024 and CellGrid.covering(tile.core, config.dsm.gsd_m).shape == (2048, 2048)
    assert (side_m / geometry.pitch_m, side_m / geometry.resolution_m) == (256, 128)
    assert side_m / 2 / geometry.softness_m == 80 and geometry.published == PublishedConfig()
    paper = PublishedSettings()
    assert (paper.steps, paper.lr, paper.laplacian, paper.normal_tv, paper.regulariser) == (2000, 0.01, 0.5, 0.01, 0.1)
