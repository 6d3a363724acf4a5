from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.dsm.ground import ground_heights
from cityweave.dsm.holes import fill_holes, spread_smoothly
from cityweave.dsm.surface import drop_small_components, smooth


def test_small_patches_go_large_ones_and_slopes_stay() -> None:
    surface = np.tile(np.arange(40, dtype=np.float32) * 0.8, (40, 1))
    surface[5:8, 5:8] += 20
    surface[20:30, 20:30] += 20
    kept = drop_small_components(surface, 2.0, 50)
    assert np.isnan(kept[5:8, 5:8]).all()
    assert np.isfinite(kept).sum() == 1600 - 9


def test_smoothing_keeps_the_step_and_calms_the_noise() -> None:
    truth = np.where(np.arange(60) < 30, 0, 12) * np.ones((60, 1))
    noisy = (truth + np.random.default_rng(1).normal(0, 0.3, truth.shape)).astype(np.float32)
    noisy[10, 10] = 50
    calm = smooth(noisy, 2, 1.0)
    assert np.abs(calm - truth)[3:-3, 3:-3].max() < 0.7
    assert np.std((calm - truth)[:, 5:25]) < 0.12
    assert np.array_equal(smooth(noisy, 0, 1.0), noisy)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]))
@settings(max_examples=25, deadline=None)
def test_smoothing_is_the_mean_near_the_median_of_what_is_known(seed: int, radius: int) -> None:
    draw = np.random.default_rng(seed)
    rows, cols = (int(size) for size in draw.integers(1, 12, 2))
    layer = np.where(draw.random((rows, cols)) < 0.8, draw.normal(0, 2, (rows, cols)), np.nan).astype(np.float32)
    expected = np.full(layer.shape, np.nan)
    for r, c in zip(*np.nonzero(np.isfinite(layer)), strict=True):
        window = layer[max(0, r - radius) : r + radius + 1, max(0, c - radius) : c + radius + 1]
        values = np.sort(window[np.isfinite(window)])
        near = values[np.abs(values - values[len(values) // 2]) <= 1]
        expected[r, c] = near.mean()
    assert np.allclose(smooth(layer, radius, 1.0), expected, atol=1e-5, equal_nan=True)


def test_unknown_ground_beside_a_wall_belongs_to_the_ground() -> None:
    surface = np.full((60, 60), 3.0, np.float32)
    surface[:, 30:] = 25
    surface[20:40, 20:30] = np.nan
    filled = fill_holes(surface, 20, 2.0)
    assert np.abs(filled[20:40, 20:30] - 3).max() < 0.5
    assert np.array_equal(filled[:, 30:], surface[:, 30:])


def test_a_pinhole_takes_the_median_around_it() -> None:
    surface = np.full((20, 20), 7.0, np.float32)
    surface[10, 10] = np.nan
    surface[10, 11] = 30
    assert fill_holes(surface, 20, 2.0)[10, 10] == 7


def test_nothing_known_stays_unknown() -> None:
    assert np.isnan(fill_holes(np.full((5, 5), np.nan, np.float32), 20, 2.0)).all()


@pytest.mark.parametrize("shape", [(1, 9), (17, 31), (64, 64)])
def test_spreading_keeps_what_is_known_and_stays_between(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(2)
    values = draw.uniform(5, 9, shape).astype(np.float32)
    known = draw.random(shape) < 0.2
    known.flat[0] = True
    out = spread_smoothly(values, known)
    assert np.array_equal(out[known], values[known])
    assert out.min() >= values[known].min() - 1e-4 and out.max() <= values[known].max() + 1e-4


def test_ground_under_blocks_a_tower_and_trees_on_a_slope() -> None:
    y, x = np.mgrid[0:480, 0:480] * 0.5
    ground = 20 * np.sin(x / 90) + 0.1 * y
    surface = ground + np.random.default_rng(3).normal(0, 0.1, ground.shape)
    surface[40:220, 60:200] = ground[40:220, 60:200].max() + 18  # a block of 90 m x 70 m
    surface[300:340, 300:340] = ground[320, 320] + 200
    surface[400:480, 430:480] = ground[440, 450] + 25  # cut by the border
    for row, col in np.random.default_rng(4).integers(10, 470, (60, 2)):
        surface[row - 4 : row + 4, col - 4 : col + 4] += 8
    found = ground_heights(surface.astype(np.float32), 0.5, 140.0, 0.3, 1.0)
    error = found - ground
    assert abs(np.median(error)) < 0.2
    assert np.abs(error).mean() < 0.5
    assert np.percentile(np.abs(error), 99) < 4
    assert (found <= surface + 1e-3).all()


def test_ground_of_nothing() -> None:
    assert np.isnan(ground_heights(np.full((8, 8), np.nan, np.float32), 0.5, 100.0, 0.3, 1.0)).all()
