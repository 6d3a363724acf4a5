from __future__ import annotations

import numpy as np
import pytest

from cityweave.dsm.decks import may_be_decks

GSD_M = 0.5


def scene(size_m: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat ground with noise of 5 cm, x and y in metres from the upper-left corner."""
    y, x = (np.indices((round(size_m / GSD_M),) * 2) + 0.5) * GSD_M
    return x, y, 0.05 * np.random.default_rng(4).standard_normal(x.shape)


def overpass(x: np.ndarray, top_m: float) -> np.ndarray:
    """Up from 20 to 60 m, level to 100, down to 140."""
    return np.clip(np.minimum((x - 20) / 40, (140 - x) / 40), 0, 1) * top_m


def test_a_deck_is_flagged_and_roofs_are_not() -> None:
    x, y, heights = scene()
    road = (abs(y - 80) < 5) & (x > 20) & (x < 140)
    heights = heights + np.where(road, overpass(x, 7), 0)
    roofs = (x > 30) & (x < 130) & (abs(y - 120) < 6) | (abs(x - 60) < 10) & (abs(y - 30) < 15)
    found = may_be_decks(heights + np.where(roofs, 7, 0), np.zeros_like(heights), GSD_M)
    level = road & (abs(y - 80) < 3) & (x > 60) & (x < 100)
    assert found[level].all()
    assert not found[~road].any()
    assert not found[road & (overpass(x, 7) < 2)].any()  # the foot of the ramp


@pytest.mark.parametrize("turn", [0, 1])
def test_a_bridge_level_with_its_banks(turn: int) -> None:
    x, y, heights = scene()
    river, road = abs(x - 80) < 15, abs(y - 80) < 6
    heights = heights - np.where(river & ~road, 6, 0)
    terrain = np.where(river, -6.0, 0.0)
    found = np.rot90(may_be_decks(np.rot90(heights, turn), np.rot90(terrain, turn), GSD_M), -turn)
    assert found[river & (abs(y - 80) < 4)].all()
    assert not found[~road | (abs(x - 80) > 19)].any()


def test_a_ramp_that_leads_up_a_hill_is_ground() -> None:
    x, _, heights = scene()
    hill = np.clip((x - 40) / 40, 0, 1) * 8
    assert not may_be_decks(heights + hill, hill, GSD_M).any()


def test_missing_heights_and_odd_sizes_are_no_obstacle() -> None:
    _, _, heights = scene()
    heights[100:140, 100:140] = np.nan
    assert may_be_decks(heights[:-1, :-3], np.zeros_like(heights)[:-1, :-3], GSD_M).shape == (319, 317)
