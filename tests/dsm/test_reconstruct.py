from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cityweave import cores
from cityweave.codes import FILLED, MEASURED
from cityweave.config import DsmConfig
from cityweave.dsm.blocks import Block
from cityweave.dsm.hiding import Surroundings, seen_down_to_the_ground
from cityweave.dsm.reconstruct import HeightModel, reconstruct
from cityweave.dsm.views import census_stack
from cityweave.errors import ConfigError
from cityweave.grid import Box, CellGrid
from tests.dsm.conftest import Town

CORE = (slice(16, -16), slice(16, -16))


@pytest.fixture(scope="module")
def model(small_town: Town) -> HeightModel:
    return reconstruct(small_town.views, small_town.grid, small_town.heights_m, DsmConfig())


def test_six_views_of_a_town(small_town: Town, model: HeightModel) -> None:
    error = (model.dsm - small_town.truth)[CORE]
    measured = (model.source == MEASURED)[CORE]
    assert np.abs(error).mean() < 0.7
    assert abs(np.median(error)) < 0.1
    assert (measured & (np.abs(error) <= 1)).mean() > 0.93
    assert measured.mean() > 0.95


def test_layers_agree_with_each_other(model: HeightModel) -> None:
    assert np.isfinite(model.dsm).all()
    assert set(np.unique(model.source)) <= {MEASURED, FILLED}
    assert (model.count[model.source == MEASURED] >= 2).all()
    assert (model.count[model.source == FILLED] == 0).all()
    assert (model.sigma > 0).all()


def test_sigma_is_honest(small_town: Town, model: HeightModel) -> None:
    """Two thirds within one sigma, and what it calls doubtful is much worse than what it calls good."""
    ratio = np.abs(model.dsm - small_town.truth) / model.sigma
    assert 0.3 < np.percentile(ratio[CORE], 68) < 1.2
    error, sigma = np.abs(model.dsm - small_town.truth)[CORE], model.sigma[CORE]
    assert error[sigma > 1].mean() > 4 * error[sigma < 0.3].mean()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_same_bits_again_and_on_more_cores(
    small_town: Town, model: HeightModel, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_used", count)
    again = reconstruct(small_town.views, small_town.grid, small_town.heights_m, DsmConfig())
    for name in ("dsm", "sigma", "count", "source"):
        assert getattr(again, name).tobytes() == getattr(model, name).tobytes()


def test_two_views_still_give_a_surface(small_town: Town) -> None:
    pair = [small_town.views[1], small_town.views[3]]
    found = reconstruct(pair, small_town.grid, small_town.heights_m, DsmConfig())
    error = (found.dsm - small_town.truth)[CORE]
    assert abs(np.median(error)) < 0.15
    assert (np.abs(error) <= 1).mean() > 0.7


def test_no_texture_is_not_measured(small_town: Town) -> None:
    blank = [replace(view, image=np.full(view.image.shape, 500.0)) for view in small_town.views[:3]]
    grid = CellGrid.covering(Box(0, 0, 24, 24), 0.5)
    assert reconstruct(blank, grid, (-5.0, 30.0), DsmConfig()).measured_share == 0


def test_invalid_pixels_leave_a_hole_that_is_marked_as_filled(small_town: Town) -> None:
    masked = []
    for view in small_town.views:
        u, v = view.camera.project(np.array([20.0, 44.0]), np.array([44.0, 20.0]), np.array([0.0, 0.0]))
        valid = view.valid.copy()
        valid[int(v[0]) : int(v[1]), int(u[0]) : int(u[1])] = False
        masked.append(replace(view, valid=valid))
    found = reconstruct(masked, small_town.grid, small_town.heights_m, DsmConfig())
    rows = cols = slice(2 * (8 + 28), 2 * (8 + 36))
    assert (found.source[rows, cols] == FILLED).mean() > 0.5
    assert np.isfinite(found.dsm).all()


def test_what_is_seen_but_not_the_ground_below_is_no_height(small_town: Town) -> None:
    """One picture of a pair ends in the middle of the town; beyond that line it still shows what is high enough."""
    steep, leaning = small_town.views[0], small_town.views[3]
    grid = CellGrid.covering(small_town.grid.box, 1.0)
    columns = np.arange(leaning.image.shape[1]) + 0.5
    end = leaning.camera.project(np.array([32.0]), np.array([32.0]), np.array([0.0]))[0][0]
    at = [leaning.camera.project(grid.x_centres[None, :], grid.y_centres[:, None], z)[0] for z in (0.0, 60.0)]
    side = 1 if at[1].mean() > at[0].mean() else -1  # so that going up leads into the picture
    cut = replace(leaning, valid=leaning.valid & (side * (columns - end) > 0)[None, :])
    stack = census_stack([steep, cut], [1.0, 1.0], 1)
    ground, sky = (side * (u - end) > 8 for u in at)
    towers = np.zeros(grid.shape, np.float32)
    towers[::16, ::16] = 60
    kept = seen_down_to_the_ground(towers, stack, grid)
    only_sky = (side * (at[0] - end) < -2) & sky
    assert only_sky.mean() > 0.1 and np.isnan(kept[only_sky]).all()
    assert (kept[ground] == towers[ground]).all() and (kept[ground] == 60).any()


@pytest.mark.parametrize("heights_m", [(-12.0, 130.0), (-300.0, 700.0)])
def test_memory_keeps_within_the_bound_whatever_the_range(small_town: Town, heights_m: tuple[float, float]) -> None:
    """A range of 1000 m is matched in blocks, within the same memory."""
    grid = CellGrid.covering(Box(10, 10, 42, 42), 0.5)
    tracemalloc.start()
    found = reconstruct(small_town.views[:4], grid, heights_m, DsmConfig(memory_mb=50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert found.measured_share > 0.8


def test_too_little_memory_says_how_much_is_needed(small_town: Town) -> None:
    with pytest.raises(ConfigError, match=r"dsm.memory_mb: 2 is too little.*accepted: at least that"):
        reconstruct(small_town.views[:4], small_town.grid, small_town.heights_m, DsmConfig(memory_mb=2))


def test_what_stands_beyond_a_block_hides_its_ground() -> None:
    """A tower of 40 m, 10 m east of the block; a view whose rays lean half a metre east per metre up, one straight."""
    hiding = np.full((80, 160), 0, np.float32)
    hiding[30:50, 100:120] = 40
    block = Block(slice(0, 80), slice(0, 80), slice(0, 80), slice(0, 80))
    around = Surroundings.of(hiding, (slice(0, 80), slice(0, 160)), block)
    assert np.isnan(around.surface[:, :80]).all() and np.isnan(hiding).sum() == 0
    leans = np.array([[0.5, 0.0], [0.0, 0.0]])
    bottom = np.full((80, 80), -5, np.float32)
    leaning, straight = around.horizons(bottom, 0.5, leans).reshape(2, 80, 80)
    assert (straight == -5).all()
    assert (leaning[:29] < 0).all() and (leaning[51:] < 0).all()
    assert leaning[40, 79] == pytest.approx(40 - 10.5 / 0.5, abs=1.5)  # the ray that just passes the tower's near edge
    assert (leaning[35:45, 62:] > 0).all() and (leaning[35:45, :58] < 0).all()
