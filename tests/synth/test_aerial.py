"""Orthophoto and heights of a city without its satellite views."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.grid import Box
from cityweave.synth.aerial import EDGE_M, GROUND_M, Aerial, AerialLook, _leaning_plan, aerial_city
from cityweave.synth.city import build_city
from cityweave.synth.layout import Layout
from cityweave.synth.scene import Scene


def scene_of(seed: int, box: Box) -> Scene:
    return build_city(box, (box.xmin, box.ymin, GROUND_M), Layout(seed, GROUND_M, 14.0), 60.0)


@pytest.fixture(scope="module")
def aerial() -> Aerial:
    return aerial_city(5, 96.0, 0.5, AerialLook())


def test_same_seed_same_city(aerial: Aerial) -> None:
    again = aerial_city(5, 96.0, 0.5, AerialLook())
    for name in ("rgb", "dsm", "dtm", "seen"):
        np.testing.assert_array_equal(getattr(again, name), getattr(aerial, name))


def test_everything_is_seen_and_known(aerial: Aerial) -> None:
    assert aerial.rgb.shape == (3, 192, 192)
    assert aerial.seen.all() and np.isfinite(aerial.dsm).all() and np.isfinite(aerial.dtm).all()
    height = aerial.dsm - aerial.dtm
    assert height.min() > -0.05
    assert 0.05 < (height > 2.5).mean() < 0.95


def test_roofs_lean_by_their_height() -> None:
    look = AerialLook(off_nadir_deg=10.0, lean_azimuth_deg=90.0)
    box = Box(500_000, 4_000_000, 500_096, 4_000_096)
    scene = scene_of(5, box)
    from cityweave.grid import CellGrid

    grid = CellGrid.covering(box.grow(-EDGE_M), 0.5)
    moved = _leaning_plan(scene, grid, look) - _leaning_plan(scene, grid, AerialLook())
    x, y, z = scene.vertices.T
    above = z - scene.ground(x, y)
    np.testing.assert_allclose(moved[:, 0], above * np.tan(np.radians(10.0)) / 0.5, atol=1e-6)
    np.testing.assert_allclose(moved[:, 1], 0.0, atol=1e-6)
    assert above.max() > 5


def test_leaning_picture_is_another() -> None:
    plain = aerial_city(5, 64.0, 0.5, AerialLook(noise_dn=0.0))
    leaning = aerial_city(5, 64.0, 0.5, AerialLook(noise_dn=0.0, off_nadir_deg=12.0))
    height = plain.dsm - plain.dtm
    np.testing.assert_array_equal(leaning.dsm, plain.dsm)
    changed = np.abs(leaning.rgb.astype(int) - plain.rgb).max(axis=0) > 8
    assert changed[height > 3].mean() > 2 * changed[height < 0.2].mean()


def test_house_on_a_shallow_plot() -> None:
    """Some seeds have plots that end right behind the house."""
    x, y = 500_000 - EDGE_M, 4_000_000 - EDGE_M
    assert len(scene_of(1004, Box(x, y, x + 384 + 2 * EDGE_M, y + 384 + 2 * EDGE_M)).faces)
