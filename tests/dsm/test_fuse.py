"""Predicted heights beside measured ones: blending, alignment, and which of both is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cityweave.codes import FILLED, MEASURED, PREDICTED
from cityweave.config import DsmConfig
from cityweave.dsm.fuse import Predicted, aligned, blended, fused, mosaic
from cityweave.grid import Box, CellGrid
from cityweave.io.predictions import Prediction, write_predictions
from cityweave.lattice import Window, fade, windows_over

GRID = CellGrid(-40, 24, 480, 400, 0.5)
HIGHEST_M = 40.0


def test_windows_blend_to_what_they_agree_on(tmp_path: Path) -> None:
    """What differs between windows counts as error; where no window knows, nothing is said."""
    x, _ = np.meshgrid(GRID.x_centres, GRID.y_centres)
    every = list(windows_over(GRID.box, 128, 0.5))
    made = []
    for window in every:
        own = window.grid
        metres = (10 + 0.05 * own.x_centres[None] + 0 * own.y_centres[:, None]).astype(np.float32)
        made.append(Prediction(window, metres, np.full(own.shape, 2, np.float32)))
    write_predictions(tmp_path / "a.zarr", made[::2])
    write_predictions(tmp_path / "b.zarr", made[1::2])
    found = blended([tmp_path / "a.zarr", tmp_path / "b.zarr"], GRID)
    assert np.allclose(found.metres, 10 + 0.05 * x, atol=1e-3) and np.allclose(found.sigma, 2, atol=1e-2)
    other_way = blended([tmp_path / "b.zarr", tmp_path / "a.zarr"], GRID)
    assert (other_way.metres == found.metres).all()
    write_predictions(tmp_path / "one.zarr", made[:1])
    alone = blended([tmp_path / "one.zarr"], GRID)
    shown = made[0].window.grid.overlap(GRID)
    assert shown is not None and np.isfinite(alone.metres).sum() == shown.rows * shown.cols


def test_what_windows_differ_by_counts_as_error(tmp_path: Path) -> None:
    """Each as much as it fades there, and as a mixture of both."""
    low, high = Window(0, 0, 128, 0.5), Window(1, 0, 128, 0.5)
    made = [
        Prediction(window, np.full(window.grid.shape, metres, np.float32), np.full(window.grid.shape, 1, np.float32))
        for window, metres in ((low, 5), (high, 15))
    ]
    write_predictions(tmp_path / "w.zarr", made)
    both = low.grid.overlap(high.grid)
    assert both is not None
    found = blended([tmp_path / "w.zarr"], both)
    weights = [fade(128)[window.grid.window_of(both)] for window in (low, high)]
    share = weights[1] / (weights[0] + weights[1])
    assert 0 < share.min() < 0.1 and 0.9 < share.max() < 1
    assert np.allclose(found.metres, 5 + 10 * share, atol=1e-3)
    assert np.allclose(found.sigma**2, 1 + 100 * share * (1 - share), rtol=1e-3)


def test_windows_of_other_cells(tmp_path: Path) -> None:
    grid = CellGrid(0, 0, 40, 40, 1.0)
    window = Window(0, 0, 128, 0.5)
    heights = np.repeat(np.repeat(np.arange(64 * 64).reshape(64, 64) % 7, 2, 0), 2, 1).astype(np.float32)
    write_predictions(tmp_path / "w.zarr", [Prediction(window, heights, np.ones_like(heights))])
    found = blended([tmp_path / "w.zarr"], grid).metres
    assert np.allclose(found, (np.arange(64 * 64).reshape(64, 64) % 7)[-40:, :40], atol=1e-4)


def city(rng: np.random.Generator, grid: CellGrid = GRID) -> dict[str, np.ndarray]:
    height = np.zeros(grid.shape, np.float32)
    for _ in range(60):
        top, left = (int(rng.integers(0, n - 40)) for n in grid.shape)
        height[top : top + 30, left : left + 30] = rng.uniform(5, 30)
    ground = np.full(grid.shape, 100, np.float32)
    return {
        "dsm": ground + height,
        "dtm": ground,
        "sigma": np.full(grid.shape, 0.2, np.float32),
        "source": np.full(grid.shape, MEASURED, np.uint8),
    }


def test_predictions_are_brought_to_the_measured_scale() -> None:
    layers = city(np.random.default_rng(0))
    truth = layers["dsm"] - layers["dtm"]
    found = aligned(Predicted(truth * 0.7, np.ones_like(truth)), layers, GRID, DsmConfig(), HIGHEST_M)
    assert np.abs(found.metres - truth).mean() < 0.02 * truth.mean()
    assert np.allclose(found.sigma, 1 / 0.7, rtol=0.05)


def test_flat_ground_that_is_predicted_too_high_comes_down() -> None:
    layers = city(np.random.default_rng(0))
    truth = layers["dsm"] - layers["dtm"]
    found = aligned(Predicted(truth + 1, np.ones_like(truth)), layers, GRID, DsmConfig(), HIGHEST_M)
    flat = truth == 0
    assert np.abs(found.metres[flat]).mean() < 0.15  # of 1 m


def test_a_roof_that_is_missed_says_nothing_about_the_scale() -> None:
    layers = city(np.random.default_rng(0))
    truth = layers["dsm"] - layers["dtm"]
    said = truth.copy()
    said[np.isin(truth, np.unique(truth[truth > 0])[::3])] = 2.5  # a third of what stands is taken for bushes
    found = aligned(Predicted(said, np.ones_like(said)), layers, GRID, DsmConfig(), HIGHEST_M)
    seen = (truth > 11) & (said == truth)
    assert np.abs(found.metres[seen] / truth[seen] - 1).mean() < 0.02


def test_without_anything_sure_predictions_stay_as_they_are() -> None:
    layers = city(np.random.default_rng(0))
    layers["sigma"][:] = 5.0
    said = np.random.default_rng(1).uniform(0, 20, GRID.shape).astype(np.float32)
    assert np.allclose(aligned(Predicted(said, said), layers, GRID, DsmConfig(), HIGHEST_M).metres, said, atol=1e-4)


def leaning(height: np.ndarray, east: float, north: float, grid: CellGrid = GRID) -> np.ndarray:
    """Flat roofs as a picture shows them in which they lean."""
    out = np.zeros_like(height)
    for level in np.unique(height[height > 0]):
        rows, cols = np.nonzero(height == level)
        rows = rows - round(float(level) * north / grid.gsd_m)
        cols = cols + round(float(level) * east / grid.gsd_m)
        inside = (rows >= 0) & (rows < grid.rows) & (cols >= 0) & (cols < grid.cols)
        out[rows[inside], cols[inside]] = np.maximum(out[rows[inside], cols[inside]], level)
    return out


def test_roofs_that_lean_are_put_back_over_their_walls() -> None:
    layers = city(np.random.default_rng(0))
    truth = layers["dsm"] - layers["dtm"]
    said = leaning(truth, 0.17, -0.11)
    layers["source"][100:300, 100:300] = FILLED  # told by what is measured around
    layers["dsm"][100:300, 100:300] = 100
    hole = np.s_[120:280, 120:280]
    for most, off_m in ((0.0, 3.0), (0.3, 0.5)):
        config = DsmConfig(most_lean=most)
        found = aligned(Predicted(said, np.ones_like(said)), layers, GRID, config, HIGHEST_M).metres[hole]
        error = np.nanmean(np.abs(found - truth[hole]))
        assert error > off_m if most == 0 else error < off_m
        assert 0.9 < np.isfinite(found).mean() <= 1
    # What a roof hid in the picture isn't predicted: ground whose roofs went from above it.
    hidden = ~np.isfinite(found)
    assert (truth[hole][hidden] == 0).mean() > 0.9


def test_the_scale_of_a_cell_does_not_depend_on_whose_tile_asks() -> None:
    rng = np.random.default_rng(3)
    config = DsmConfig(most_lean=0.2)
    whole = CellGrid(0, 0, 1400, 1000, 0.5)
    layers = city(rng, whole)
    told = leaning(layers["dsm"] - layers["dtm"], -0.08, 0.12, whole)
    said = Predicted(told * np.float32(rng.uniform(0.5, 1.5)), np.ones(whole.shape, np.float32))
    reach = round((2.5 * config.align_m + 2 * config.most_lean * HIGHEST_M) / 0.5)
    results = []
    for west in (100, 220):
        part = CellGrid(west, 40, 900, 900, 0.5)
        window = whole.window_of(part)
        cut = {name: layer[window] for name, layer in layers.items()}
        found = aligned(Predicted(said.metres[window], said.sigma[window]), cut, part, config, HIGHEST_M)
        shared = CellGrid(220 + reach, 40 + reach, 700 - 2 * reach + 60, 900 - 2 * reach, 0.5)
        results.append(found.metres[part.window_of(shared)])
    assert results[0].size > 10_000 and np.isfinite(results[0]).mean() > 0.8
    assert np.allclose(results[0], results[1], atol=1e-4, equal_nan=True)


def test_what_is_measured_stays_and_what_is_filled_is_predicted() -> None:
    layers = city(np.random.default_rng(0))
    layers["source"][:30] = FILLED
    layers["sigma"][:30] = 8.0
    layers["sigma"][30:40] = 9.0
    said = Predicted(np.full(GRID.shape, 7, np.float32), np.full(GRID.shape, 2, np.float32))
    said.metres[:, :5] = np.nan
    found = fused(layers, said)
    assert (found["source"][:30, 5:] == PREDICTED).all() and (found["dsm"][:30, 5:] == 107).all()
    assert (found["sigma"][:30, 5:] == 4).all()  # halfway, in logarithms
    for kept in ((slice(30, None), slice(None)), (slice(None), slice(0, 5))):
        for name, layer in layers.items():
            assert np.array_equal(found[name][kept], layer[kept], equal_nan=name == "sigma")


def test_a_mosaic_takes_every_cell_from_its_owner() -> None:
    parts = {}
    for k in range(3):
        core = Box(k * 20.0, 0, k * 20.0 + 20, 20)
        own = CellGrid.covering(core.grow(5), 0.5)
        parts[core, own] = {
            "dsm": np.full(own.shape, k, np.float32),
            "source": np.full(own.shape, k + 1, np.uint8),
        }
    grid = CellGrid.covering(Box(-10, 0, 70, 20), 0.5)
    found = mosaic(parts, grid)
    assert np.isnan(found["dsm"][:, :10]).all() and (found["source"][:, :10] == 0).all()
    assert (found["dsm"][:, 10:20] == 0).all()  # the first tile's halo, where nobody's core is
    for k in range(3):
        assert (found["source"][:, 20 + 40 * k : 60 + 40 * k] == k + 1).all()
