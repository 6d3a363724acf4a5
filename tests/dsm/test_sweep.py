from __future__ import annotations

import numpy as np
import pytest

from cityweave.dsm.sweep import COST_PER_BIT, HeightRanges, popcount_of, sweep_costs
from cityweave.dsm.views import CENSUS_BITS, census_stack
from cityweave.grid import Box, CellGrid
from tests.dsm.conftest import Town


def test_popcount() -> None:
    words = np.random.default_rng(1).integers(0, 2**63, 50, dtype=np.uint64)
    assert [popcount_of(word) for word in words] == [int(word).bit_count() for word in words]


def test_ranges_are_multiples_of_the_step_around_what_is_asked() -> None:
    grid = CellGrid.covering(Box(0, 0, 1, 0.5), 0.5)
    ranges = HeightRanges.between(grid, 0.5, np.array([[0.1, np.nan]]), np.array([[1.2, 3.0]]))
    assert ranges.low[0] == 0 and ranges.start.tolist() == [0, 4, 4]


@pytest.fixture(scope="module")
def patch(small_town: Town) -> tuple[CellGrid, np.ndarray]:
    """A few cells of flat, open ground or roof."""
    truth = small_town.truth
    for row in range(30, 120, 6):
        for col in range(30, 120, 6):
            window = truth[row - 12 : row + 20, col - 12 : col + 20]
            if np.ptp(window) < 2:
                grid = small_town.grid
                cells = CellGrid(grid.col0 + col, grid.row0 + grid.rows - row - 8, 8, 8, grid.gsd_m)
                return cells, truth[row : row + 8, col : col + 8]
    raise AssertionError("the town has no open place")


def test_cost_is_lowest_at_the_true_height(small_town: Town, patch: tuple[CellGrid, np.ndarray]) -> None:
    grid, truth = patch
    ranges = HeightRanges.between(grid, 0.5, truth - 8, truth + 8)
    stack = census_stack(small_town.views, [4] * 6, 2)
    cost = sweep_costs(stack, ranges, 0.5)
    best = np.array([cost[a:b].argmin() for a, b in zip(ranges.start[:-1], ranges.start[1:], strict=True)])
    error = (ranges.low + best) * 0.5 - truth.ravel()
    assert np.median(np.abs(error)) <= 0.3
    assert (np.abs(error) <= 1).mean() > 0.8
    assert np.median(cost.min()) < 12 * COST_PER_BIT


def test_without_two_views_the_cost_is_neutral(small_town: Town, patch: tuple[CellGrid, np.ndarray]) -> None:
    grid, truth = patch
    ranges = HeightRanges.between(grid, 0.5, truth - 4, truth + 4)
    stack = census_stack(small_town.views, [2] * 6, 1)
    horizon = np.full((6, truth.size), 1e6, np.float32)
    horizon[0] = -1e6
    assert (sweep_costs(stack, ranges, 0.5, horizon) == COST_PER_BIT * CENSUS_BITS // 2).all()
    assert (sweep_costs(stack, ranges, 0.5, horizon, unseen_bits=np.full(truth.size, 13.0)) == COST_PER_BIT * 13).all()
    assert (
        sweep_costs(census_stack(small_town.views[:1], [2], 1), ranges, 0.5) == COST_PER_BIT * CENSUS_BITS // 2
    ).all()


def test_views_in_another_order_cost_the_same(small_town: Town, patch: tuple[CellGrid, np.ndarray]) -> None:
    grid, truth = patch
    ranges = HeightRanges.between(grid, 0.5, truth - 4, truth + 4)
    forward = sweep_costs(census_stack(small_town.views, [2] * 6, 1), ranges, 0.4)
    backward = sweep_costs(census_stack(small_town.views[::-1], [2] * 6, 1), ranges, 0.4)
    assert np.array_equal(forward, backward)
