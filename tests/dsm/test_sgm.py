from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.dsm.sgm import PATHS, aggregate, winners

FLAT = np.zeros(256, np.int16)


def textbook(costs: dict[tuple[int, int], np.ndarray], low: dict[tuple[int, int], int], p1: int, p2: int) -> np.ndarray:
    """Sum of eight paths over cells whose heights begin at `low`, each path written as the textbook has it."""
    total = {cell: np.zeros(len(cost), int) for cell, cost in costs.items()}
    far = 10**6
    for dr, dc in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]:
        paths: dict[tuple[int, int], np.ndarray] = {}
        for r, c in sorted(costs, key=lambda cell: (cell[0] * dr, cell[1] * dc)):
            before = paths.get((r - dr, c - dc), np.zeros(0))
            own = costs[r, c].astype(int)
            if len(before):
                least, begin = before.min(), low[r - dr, c - dc]
                at = {begin + k: value for k, value in enumerate(before)}
                for k in range(len(own)):
                    z = low[r, c] + k
                    beside = min(at.get(z - 1, far), at.get(z + 1, far)) + p1
                    own[k] += min(at.get(z, far), beside, least + p2) - least
            paths[r, c] = own
            total[r, c] += own
    return np.concatenate([total[cell] for cell in sorted(total)])


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 40, 100]))
@settings(max_examples=60, deadline=None)
def test_eight_textbook_paths_are_summed(seed: int, heights: int) -> None:
    """Whatever the cells' ranges: narrow and wide ones, far apart from each other, and empty ones."""
    draw = np.random.default_rng(seed)
    rows, cols = (int(size) for size in draw.integers(1, 6, 2))
    cells = [(r, c) for r in range(rows) for c in range(cols)]
    counts = draw.integers(1, heights + 1, len(cells)) * (draw.random(len(cells)) < 0.9)
    low = draw.integers(-heights, heights, len(cells)).astype(np.int32)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    cost = draw.integers(0, 249, start[-1]).astype(np.uint8)
    p2 = FLAT + np.int16(150)
    total = aggregate(cost, start, low, rows, cols, 20, p2, np.zeros(len(cells), np.uint8))
    of_cells = {cell: cost[start[i] : start[i + 1]] for i, cell in enumerate(cells)}
    assert total.tolist() == textbook(of_cells, dict(zip(cells, low.tolist(), strict=True)), 20, 150).tolist()


def volume(rows: int, cols: int, heights: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(rows * cols + 1, dtype=np.int64) * heights, np.zeros(rows * cols, np.int32)


def test_an_outlier_gives_way_and_a_step_stays() -> None:
    rows, cols, heights = 9, 12, 10
    start, low = volume(rows, cols, heights)
    truth = np.where(np.arange(cols) < 6, 2, 7) * np.ones((rows, 1), int)
    cost = np.full((rows, cols, heights), 120, np.uint8)
    np.put_along_axis(cost, truth[..., None], 20, axis=2)
    cost[4, 3] = 120
    cost[4, 3, 9] = 60
    p2 = FLAT + np.int16(200)
    total = aggregate(cost.ravel(), start, low, rows, cols, 20, p2, np.zeros(rows * cols, np.uint8))
    index, margin = winners(total, start, low, 20)
    assert np.array_equal(np.round(index).astype(int).reshape(rows, cols), truth)
    assert (margin > 0).all()


def test_a_jump_settles_on_the_picture_edge() -> None:
    """Where the data say nothing, the jump goes where it is cheap: along the edge of the guide."""
    rows, cols, heights = 7, 16, 8
    start, low = volume(rows, cols, heights)
    cost = np.full((rows, cols, heights), 100, np.uint8)
    cost[:, :3, 1] = 0
    cost[:, -3:, 6] = 0
    guide = np.where(np.arange(cols) < 10, 30, 200).astype(np.uint8) * np.ones((rows, 1), np.uint8)
    p2 = np.where(np.arange(256) > 50, 25, 200).astype(np.int16)
    index, _ = winners(aggregate(cost.ravel(), start, low, rows, cols, 20, p2, guide.ravel()), start, low, 20)
    assert np.array_equal(np.round(index).reshape(rows, cols)[3], np.where(np.arange(cols) < 10, 1, 6))


def test_the_order_of_heights_plays_no_part() -> None:
    """Turning the grid or the heights round turns the result round: no direction is preferred."""
    draw = np.random.default_rng(3)
    rows, cols, heights = 6, 8, 7
    start, low = volume(rows, cols, heights)
    cost = draw.integers(0, 249, (rows, cols, heights)).astype(np.uint8)
    p2, guide = FLAT + np.int16(90), np.zeros(rows * cols, np.uint8)

    def total(values: np.ndarray) -> np.ndarray:
        return aggregate(np.ascontiguousarray(values).ravel(), start, low, rows, cols, 12, p2, guide).reshape(
            cost.shape
        )

    assert np.array_equal(total(cost[::-1, ::-1, ::-1]), total(cost)[::-1, ::-1, ::-1])


@pytest.mark.parametrize("part", [-0.5, -0.3, -0.1, 0.0, 0.2, 0.4])
@pytest.mark.parametrize("p1", [0, 5])
def test_parts_of_a_step_are_what_they_are_whatever_the_brake(part: float, p1: int) -> None:
    z = np.arange(9)
    start, low = volume(1, 1, 9)
    total = 1000 + 400 * np.abs(z - 4 - part) + PATHS * p1 * (z != 4)
    index, _ = winners(total.astype(np.uint16), start, low + np.int32(10), p1)
    assert abs(index[0] - 14 - part) < 0.01


def test_no_range_no_height() -> None:
    index, margin = winners(np.zeros(3, np.uint16), np.array([0, 0, 3], np.int64), np.zeros(2, np.int32), 5)
    assert np.isnan(index[0]) and margin[1] == 0
