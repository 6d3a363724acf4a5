"""One rendered town for all tests of the stage: rendering it is what takes time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cityweave.dsm.views import SweepView
from cityweave.grid import Box, CellGrid
from tests.dsm.scene import SIX, town, views


@dataclass(frozen=True)
class Town:
    views: list[SweepView]
    grid: CellGrid
    truth: np.ndarray
    heights_m: tuple[float, float] = (-12.0, 150.0)


@pytest.fixture(scope="session")
def small_town() -> Town:
    """64 m x 64 m with a tower, six views; the pictures show 20 m more on every side."""
    scene = town(Box(-36, -36, 100, 100), seed=5)
    grid = CellGrid.covering(Box(-8, -8, 72, 72), 0.5)
    return Town(views(scene, SIX), grid, scene.truth(grid))
