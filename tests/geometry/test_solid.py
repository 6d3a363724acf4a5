from __future__ import annotations

import numpy as np
import pytest

from cityweave.mesh import BOTTOM, RIM, SURFACE, TileMesh
from tests.geometry import city
from tests.geometry.audit import audit
from tests.geometry.build import BASE_M, broken_vertices, meshes_of, positions_disagree

N = 32
FIRST = -24
ALL = [(i, j) for j in range(3) for i in range(3)]
WITH_HOLES = [tile for tile in ALL if tile not in {(1, 1), (0, 2)}]  # one in the middle, one at the edge


def city_meshes(existing: list[tuple[int, int]] = WITH_HOLES) -> dict[tuple[int, int], list[TileMesh]]:
    """Of 3 x 3 tiles of the city those that exist."""
    side = 3 * N - 2 * FIRST
    return meshes_of(city.raster(FIRST, FIRST, side, side, 1.0, 0.05), FIRST, N, existing, (0.1, 0.6))


def signed_volume(meshes: list[TileMesh]) -> float:
    total = 0.0
    for mesh in meshes:
        p = (mesh.xyz() + np.array(mesh.origin_m))[mesh.faces]
        total += float(np.einsum("ni,ni->n", p[:, 0], np.cross(p[:, 1], p[:, 2])).sum()) / 6.0
    return total


@pytest.mark.parametrize("existing", [ALL, WITH_HOLES], ids=["all", "with holes"])
def test_a_city_is_closed_at_every_level(existing):
    tiles = city_meshes(existing)
    for level in range(2):
        meshes = [levels[level] for levels in tiles.values()]
        found = audit((mesh.ids, mesh.faces) for mesh in meshes)
        assert (found.boundary_edges, found.nonmanifold_edges) == (0, 0)
        assert found.triangles == sum(len(mesh.faces) for mesh in meshes)
        assert broken_vertices(meshes) == 0
        assert positions_disagree(meshes) == 0

        volume = 0.0
        for i, j in existing:
            z = city.raster(i * N, j * N, 2 * N, 2 * N, 0.5)
            volume += float((z - BASE_M).mean()) * N * N
        assert abs(signed_volume(meshes) / volume - 1.0) < 0.02


def test_rim_only_where_nothing_is():
    tiles = city_meshes()
    # (2, 1) touches the middle hole in the west and the outside in the east; (1, 0) the hole in the north and the
    # outside in the south; (2, 0) is a corner of the city; (0, 1) touches both holes and the outside.
    sides = {(2, 1): "WE", (1, 0): "NS", (2, 0): "ES", (0, 1): "EWN"}
    for key, expected in sides.items():
        mesh = tiles[key][0]
        rim = mesh.xyz()[np.unique(mesh.faces[mesh.part == RIM])]
        found = {
            side
            for side, axis, at in (("W", 0, 0), ("E", 0, N), ("S", 1, 0), ("N", 1, N))
            if (np.abs(rim[:, axis] - at) < 0.5).sum() > N
        }
        assert found == set(expected)
        assert np.abs(rim[:, :2] - np.clip(rim[:, :2], -0.5, N + 0.5)).max() == 0


def test_parts_face_outwards():
    mesh = city_meshes()[2, 0][0]
    p = mesh.xyz()[mesh.faces]
    up = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])[:, 2]
    assert (up[mesh.part == SURFACE] >= 0).all()
    assert (up[mesh.part == RIM] == 0).all()
    assert (up[mesh.part == BOTTOM] < 0).all()
    assert (p[mesh.part == BOTTOM][..., 2] == BASE_M).all()


def test_the_audit_sees_what_is_wrong():
    ids = np.array([10, 11, 12, 13])
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    assert audit([(ids, tetrahedron)]).boundary_edges == 0
    found = audit([(ids, tetrahedron[:2]), (ids, tetrahedron[2:3])])
    assert (found.boundary_edges, found.nonmanifold_edges) == (3, 0)
    turned = tetrahedron.copy()
    turned[3] = turned[3][::-1]
    assert audit([(ids, turned)]).nonmanifold_edges == 3
    assert audit([(ids, turned[:3]), (ids, turned[3:])]).nonmanifold_edges == 3
    twice = audit([(ids, tetrahedron), (ids, tetrahedron[:1])])
    assert twice.nonmanifold_edges + twice.boundary_edges > 0
