from __future__ import annotations

import numpy as np
import pytest

from cityweave.geometry.direct import FitSettings, fit
from cityweave.geometry.field import FieldShape, heights
from cityweave.geometry.target import pixel_weights
from tests.geometry import city

SHAPE = FieldShape(1.0, 0.5, 2.0)


def fitted(x0, nodes, noise_m, holes, reading="nodes", seed=1):
    """Errors of a fit against the truth at pixels, and which pixels are near a jump."""
    shape = FieldShape(1.0, 0.5, 2.0, reading)
    target = city.raster(x0, x0, 2 * nodes, 2 * nodes, 0.5, noise_m, holes, seed)
    lattice, steps = fit(target, pixel_weights(None, None, target), x0, x0, shape, 0.5, FitSettings())
    x = x0 + (np.arange(2 * nodes) + 0.5) * 0.5
    error = np.abs(heights(lattice, shape, x[None, :], x[:, None]) - city.raster(x0, x0, 2 * nodes, 2 * nodes, 0.5))
    return error, city.near_edge(x0, x0, 2 * nodes, 2 * nodes, 0.5), np.isfinite(target), steps


def test_noisy_raster_with_holes_gives_flat_roofs_and_sharp_walls():
    error, edge, known, steps = fitted(80, 96, 0.2, 0.2)
    assert steps <= 60
    assert error[~edge].mean() < 0.06  # a quarter of the noise, holes included
    assert np.percentile(error[~edge], 99) < 0.4
    assert np.mean(error[edge & known] < 1.0) > 0.9


def test_nodes_keep_walls_better_than_centred():
    share = {}
    for reading in ("nodes", "centred"):
        error, edge, known, _ = fitted(80, 64, 0.1, 0.0, reading)
        share[reading] = np.mean(error[edge & known] < 1.0)
    assert share["nodes"] > share["centred"] + 0.1


def test_outliers_are_ignored():
    rng = np.random.default_rng(2)
    target = np.full((64, 64), 7.0, np.float32)
    target[rng.random(target.shape) < 0.05] += 30.0
    lattice, _ = fit(target, pixel_weights(None, None, target), 0, 0, SHAPE, 0.5, FitSettings())
    assert np.abs(lattice.h - 7.0).max() < 0.05


def test_same_input_same_bytes_and_early_stop():
    target = city.raster(40, 40, 64, 64, 0.5, 0.3, 0.1)
    weight = pixel_weights(None, None, target)
    first, second = (fit(target, weight, 40, 40, SHAPE, 0.5, FitSettings())[0].h for _ in range(2))
    assert first.tobytes() == second.tobytes()
    _, steps = fit(np.zeros((32, 32), np.float32), np.ones((32, 32)), 0, 0, SHAPE, 0.5, FitSettings())
    assert steps < 5


def test_weights_fall_with_uncertainty_and_vanish_without_data():
    target = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    sigma = np.array([[0.2, 4.0], [np.nan, 0.2]], np.float32)
    weight = pixel_weights(sigma, np.array([[False, False], [True, False]]), target)
    assert weight.tolist() == [[1.0, 0.5], [0.25, 0.0]]


def test_what_cannot_be_fitted_is_refused():
    ones = np.ones((8, 8), np.float32)
    with pytest.raises(ValueError, match="no value"):
        fit(ones * np.nan, ones, 0, 0, SHAPE, 0.5, FitSettings())
    with pytest.raises(ValueError, match="multiple"):
        fit(ones, ones, 0, 0, SHAPE, 0.3, FitSettings())
    with pytest.raises(ValueError, match="multiples of 2"):
        fit(ones[:7], ones[:7], 0, 0, SHAPE, 0.5, FitSettings())
