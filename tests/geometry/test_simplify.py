from __future__ import annotations

import numpy as np
import pytest

from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import LAYERS, Patch
from cityweave.mesh import STEPS_PER_M
from tests.geometry import city
from tests.geometry.build import crossings, patch_of

N = 64
BOUNDS = (0.0, 0.15, 0.6)


@pytest.fixture(scope="module")
def patch() -> Patch:
    """A quarter of the city with 3 cm of noise on its nodes."""
    first, side = 40, N + 60
    h = city.raster(first, first, side, side, 1.0, 0.03)
    return patch_of(h, first, 1, 1, N, np.ones((3, 3), bool))


@pytest.fixture(scope="module")
def levels(patch) -> list[np.ndarray]:
    return simplify(patch, BOUNDS)


def test_much_is_saved_and_coarser_is_fewer(levels):
    full, fine, coarse = (len(tri) for tri in levels)
    assert full == 2 * N * N
    assert fine < 0.25 * full
    assert coarse < fine


def test_border_columns_stay(patch, levels):
    locked = np.flatnonzero(patch.locked())
    for tri in levels:
        a, b = tri // LAYERS, tri[:, [1, 2, 0]] // LAYERS
        border = {(int(p), int(q)) for p, q in zip(a.ravel(), b.ravel(), strict=True)}
        open_edges = sorted(e for e in border if e[::-1] not in border)
        assert len(open_edges) == 4 * N
        assert np.isin(np.array(open_edges), locked).all()


def test_height_error_keeps_the_bound_off_the_walls(patch, levels):
    """Every point of the full surface that is no wall's neighbour."""
    at = np.arange(2 * STEPS_PER_M, (N - 2) * STEPS_PER_M, 403) + 0.5
    meshes = [close(patch, tri, (N, N, 0.0)) for tri in levels]
    full = crossings(meshes[0], at, at)[1]
    metres = at / STEPS_PER_M
    rough = np.zeros(full.shape, bool)
    several = (patch.z.reshape(-1, LAYERS)[:, :4] > -(2**31)).sum(axis=1) > 1
    for x, y in patch.xy[several] / STEPS_PER_M:
        rough |= (np.abs(metres[None, :] - x) < 2.0) & (np.abs(metres[:, None] - y) < 2.0)
    for mesh, bound in zip(meshes[1:], BOUNDS[1:], strict=True):
        error = np.abs(crossings(mesh, at, at)[1] - full)[~rough]
        assert error.mean() < bound / 3
        assert np.percentile(error, 99) <= bound * np.sqrt(2.0)  # across the face; roofs rise up to 45 degrees


def test_walls_keep_their_layers(patch, levels):
    """The wall area changes little: no wall is tilted, torn or swallowed."""

    def wall_area(tri):
        mesh = close(patch, tri, (N, N, 0.0))
        p = mesh.xyz()[mesh.faces[mesh.part == 0]]
        normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) / 2
        area = np.linalg.norm(normal, axis=1)
        return area[np.abs(normal[:, 2]) < 1e-9].sum()

    full, fine, coarse = (wall_area(tri) for tri in levels)
    assert fine == pytest.approx(full, rel=0.05)
    assert coarse == pytest.approx(full, rel=0.15)


def test_same_patch_same_faces(patch, levels):
    again = simplify(patch, BOUNDS)
    assert all(np.array_equal(a, b) for a, b in zip(levels, again, strict=True))
