"""Where unseen views from the street stand, and what is before them."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.grid import Box, CellGrid
from cityweave.synth.scene import Scene
from cityweave.synth.street_level import EYE_M, street_cameras
from cityweave.synth.truth import true_heights
from tests.synth.conftest import BOX


@pytest.fixture(scope="module")
def core() -> Box:
    return BOX.grow(-20)


def test_one_stands_on_open_ground_and_sees_far(scene: Scene, core: Box) -> None:
    grid = CellGrid.covering(core, 1.0)
    heights = true_heights(scene, grid)
    above = heights.dsm - heights.dtm
    cameras = street_cameras(scene, core, 5, 64)
    assert [name for name, _ in cameras] == [f"street_{n:02d}" for n in range(5)]
    for _, camera in cameras:
        x, y, z = camera.position
        row = int((grid.box.ymax - y - scene.origin_m[1]) // 1)
        col = int((x + scene.origin_m[0] - grid.box.xmin) // 1)
        assert above[row - 2 : row + 3, col - 2 : col + 3].max() < 0.5
        assert z - scene.ground(np.array([x]), np.array([y]))[0] == pytest.approx(EYE_M)
        ahead = camera.rotation[2] / np.hypot(*camera.rotation[2, :2])
        assert 0 < ahead[2] < 0.2  # a little upwards
        steps = np.arange(1, 11)
        rows, cols = np.rint(row - steps * ahead[1]).astype(int), np.rint(col + steps * ahead[0]).astype(int)
        assert above[rows, cols].max() < 0.5


def test_they_are_apart_and_the_first_don_t_depend_on_how_many(scene: Scene, core: Box) -> None:
    few, many = (street_cameras(scene, core, count, 64) for count in (2, 4))
    assert all((a.position == b.position).all() for (_, a), (_, b) in zip(few, many, strict=False))
    places = np.array([camera.position[:2] for _, camera in many])
    away = np.hypot(*(places[:, None] - places[None, :]).transpose(2, 0, 1))
    assert away[~np.eye(4, dtype=bool)].min() > 20


def test_no_street_no_view(scene: Scene, core: Box) -> None:
    x, y = (core.xmin + core.xmax) // 2, (core.ymin + core.ymax) // 2
    assert street_cameras(scene, Box(x, y, x + 2, y + 2), 3, 64) == []  # one can't stand 4 m from its edge
    assert street_cameras(scene, core, 0, 64) == []
