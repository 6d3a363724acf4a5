"""Marching cubes and the plain grid: closed, exact on planes, and over a raster."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.geometry.marching import grid_triangles, marching_cubes, surface


def volume_m3(vertices: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    return float(np.einsum("ni,ni->n", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("seed", range(6))
def test_any_values_give_a_closed_surface(seed: int) -> None:
    values = np.ones((14, 13, 12))
    values[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).normal(size=(12, 11, 10))
    _, triangles = marching_cubes(values)
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    forth = np.unique(directed, axis=0, return_counts=True)
    back = np.unique(directed[:, ::-1], axis=0, return_counts=True)
    assert np.array_equal(forth[0], back[0]) and np.array_equal(forth[1], back[1])


def test_a_ball_has_its_volume_and_looks_outwards() -> None:
    x, y, z = np.mgrid[0:41, 0:41, 0:41] - 20.0
    vertices, triangles = marching_cubes(np.sqrt(x * x + y * y + z * z) - 15.0)
    assert volume_m3(vertices, triangles) == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.01)


def test_nothing_inside_is_no_surface() -> None:
    vertices, triangles = marching_cubes(np.ones((4, 4, 4)))
    assert vertices.shape == (0, 3) and triangles.shape == (0, 3)


def test_a_grid_is_its_heights_and_looks_up() -> None:
    h = np.arange(12.0).reshape(3, 4)
    vertices, triangles = grid_triangles(h)
    assert np.array_equal(vertices[:, 2], h.ravel())
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] == 1).all() and len(triangles) == 2 * 2 * 3


@pytest.mark.parametrize("method", ["marching_cubes", "grid"])
def test_over_a_raster_with_a_hole(method: str) -> None:
    x = np.arange(40) * 0.5 + 0.25
    target = np.tile(100 + 0.2 * x, (40, 1))
    target[10:14, 20:24] = np.nan
    vertices, triangles = surface(target, 0.5, 1.0, method)  # type: ignore[arg-type]
    assert len(triangles) >= 2 * 19 * 19
    assert np.abs(vertices[:, 2] - (100 + 0.2 * vertices[:, 0])).max() < 0.6  # the hole takes its rim's heights
    assert vertices[:, :2].min() == pytest.approx(0.5) and vertices[:, :2].max() == pytest.approx(19.5)
