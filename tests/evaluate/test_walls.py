"""Walls of the truth, and what is vertical elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.evaluate.walls import WallShares, drop_points

GSD_M = 0.5
CENTRES = (np.arange(80) + 0.5) * GSD_M


def block_top() -> np.ndarray:
    """20 x 20 m block, 10 m high, in the middle of 40 x 40 m; beside it a plateau of 0.8 m."""
    top = np.zeros((80, 80))
    top[20:60, 20:60] = 10.0
    top[:10] = 0.8
    return top


def test_drops_stand_on_the_edges_and_reach_from_foot_to_eaves() -> None:
    points = drop_points(block_top(), CENTRES, CENTRES[::-1])
    assert len(points) == 4 * 40 * 20  # 40 edges a side, 10 m in steps of 0.5 m
    on_edge = np.isin(points[:, 0], (10.0, 30.0)) | np.isin(points[:, 1], (10.0, 30.0))
    assert on_edge.all()
    assert points[:, 2].min() == 0.25 and points[:, 2].max() == 9.75


def test_unknown_heights_are_no_drops() -> None:
    top = np.zeros((80, 80))
    top[:, 40] = np.nan
    assert len(drop_points(top, CENTRES, CENTRES[::-1])) == 0


def vertical_plane(x: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    points = np.stack([np.full(count, x), rng.uniform(11, 29, count), rng.uniform(0, 10, count)], axis=1)
    return points, np.tile([1.0, 0.0, 0.0], (count, 1))


def shares_of(points: np.ndarray, normals: np.ndarray) -> WallShares:
    walls = drop_points(block_top(), CENTRES, CENTRES[::-1])
    shares = WallShares()
    shares.add(points, normals, walls, walls)
    return shares


def test_a_wall_near_a_true_one_is_no_riser() -> None:
    shares = shares_of(*vertical_plane(30.6))
    assert shares.vertical_wall_share == 1.0 and shares.riser_share == 0.0


def test_a_wall_where_the_truth_has_none_is_a_riser() -> None:
    shares = shares_of(*vertical_plane(33.0))
    assert shares.vertical_wall_share is None and shares.riser_share == 1.0


def leaning(lean_deg: float) -> WallShares:
    points, normals = vertical_plane(30.0)
    a = np.radians(lean_deg)
    return shares_of(points, normals * np.cos(a) + np.array([0, 0, 1]) * np.sin(a))


@pytest.mark.parametrize(("lean_deg", "expected"), [(4.0, 1.0), (6.0, 0.0), (44.0, 0.0)])
def test_five_degrees_are_the_limit(lean_deg: float, expected: float) -> None:
    assert leaning(lean_deg).vertical_wall_share == expected


def test_flat_ground_and_roofs_beside_a_wall_are_no_wall() -> None:
    assert leaning(46.0).vertical_wall_share is None and leaning(90.0).vertical_wall_share is None
