"""The stage from a noisy raster with holes to a simplified mesh, judged against the city it was made from."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import SurfaceSettings, extract
from cityweave.mesh import STEPS_PER_M, SURFACE, TileMesh
from tests.geometry import city
from tests.geometry.build import BASE_M, SHAPE, crossings, fit_tile

SIZE_M = 128


@pytest.fixture(scope="module")
def mesh() -> TileMesh:
    lattice = fit_tile(lambda *grid: city.raster(*grid, noise_m=0.2, holes=0.2), SIZE_M)
    everywhere = np.ones((3, 3), bool)
    patch = extract(lattice, SHAPE, SurfaceSettings(1.0), 0, 0, SIZE_M, everywhere, (0, 0), 0.0, BASE_M)
    return close(patch, simplify(patch, (0.15,))[0], (0.0, 0.0, 0.0))


def faces(mesh: TileMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, areas and |cos| of the slope of the surface's faces."""
    p = mesh.xyz()[mesh.faces[mesh.part == SURFACE]]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) / 2
    area = np.linalg.norm(normal, axis=1)
    return p.mean(axis=1), area, np.abs(normal[:, 2]) / np.maximum(area, 1e-12)


def test_heights(mesh):
    at = (np.arange(4, 2 * SIZE_M - 4) + 0.5) / 2
    count, z = crossings(mesh, at * STEPS_PER_M + 0.5, at * STEPS_PER_M + 0.5)
    inner = slice(4, -4)
    truth = city.raster(0, 0, 2 * SIZE_M, 2 * SIZE_M, 0.5)[inner, inner]
    edge = city.near_edge(0, 0, 2 * SIZE_M, 2 * SIZE_M, 0.5)[inner, inner]
    error = np.abs(z - truth)
    assert (count == 1).all()
    assert error[~edge].mean() < 0.06
    assert np.percentile(error[~edge], 99) < 0.3
    assert np.mean(error[edge] < 1.0) > 0.93


def test_walls_are_where_walls_are_and_nothing_else_is_vertical(mesh):
    centre, area, cosine = faces(mesh)
    cells = np.clip((centre[:, :2] * 2).astype(int), 0, 2 * SIZE_M - 1)
    edge = city.near_edge(0, 0, 2 * SIZE_M, 2 * SIZE_M, 0.5)[cells[:, 1], cells[:, 0]]
    vertical, steep = cosine < np.sin(np.radians(5.0)), cosine < np.cos(np.radians(60.0))
    assert area[vertical & edge].sum() > 0.97 * area[steep & edge].sum()
    assert area[vertical & ~edge].sum() < 0.01 * area[vertical].sum()


def test_few_triangles(mesh):
    assert (mesh.part == SURFACE).sum() < 0.12 * 2 * SIZE_M * SIZE_M
