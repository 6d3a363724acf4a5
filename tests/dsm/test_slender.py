from __future__ import annotations

import numpy as np
import pytest

from cityweave.dsm.slender import needles

GSD_M, JUMP_M = 0.5, 2.0


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rolling ground, a house, all measured and alike; a tower of 4 m x 4 m, 30 m high."""
    x = np.indices((160, 160))[1] * GSD_M
    heights = 2 * np.sin(x / 15)
    heights[20:60, 20:60] = 12
    heights[100:108, 100:108] = 30
    return heights.astype(np.float32), np.ones(heights.shape, bool), np.full(heights.shape, 6, np.float32)


def test_a_slender_tower_is_believed_when_it_matches_well() -> None:
    heights, measured, unlike = scene()
    assert not needles(heights, measured, unlike, 6.0, JUMP_M, GSD_M).any()


def test_one_that_matches_badly_is_a_needle_and_a_house_is_not() -> None:
    heights, measured, unlike = scene()
    unlike[:] = 14
    found = needles(heights, measured, unlike, 6.0, JUMP_M, GSD_M)
    assert found[100:108, 100:108].all() and found.sum() == 64


@pytest.mark.parametrize(("side", "unlike_bits", "wrong"), [(4, 9, True), (8, 9, True), (16, 9, False), (16, 15, True)])
def test_the_more_slender_the_better_it_must_match(side: int, unlike_bits: float, wrong: bool) -> None:
    heights, measured, unlike = scene()
    heights[100:108, 100:108] = heights[90, 90]
    heights[100 : 100 + side, 100 : 100 + side] = 40
    unlike[100 : 100 + side, 100 : 100 + side] = unlike_bits
    assert needles(heights, measured, unlike, 6.0, JUMP_M, GSD_M).any() == wrong


def test_holes_and_nothing_at_all_are_no_needles() -> None:
    heights, measured, unlike = scene()
    measured[90:120, 90:120] = False
    assert not needles(heights, measured, unlike * 3, 6.0, JUMP_M, GSD_M).any()
    assert not needles(heights, np.zeros_like(measured), unlike, 6.0, JUMP_M, GSD_M).any()
