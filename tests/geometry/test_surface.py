from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.geometry import cells
from cityweave.geometry.surface import LAYERS
from cityweave.mesh import STEPS_PER_M, SURFACE
from tests.geometry.audit import audit
from tests.geometry.build import (
    around,
    broken_vertices,
    crossings,
    meshes_of,
    patch_of,
    positions_disagree,
)

FIRST, N = -24, 8


def wild_heights(seed: int, kind: str) -> np.ndarray:
    """Node heights with far more jumps, steps and saddles than any city."""
    rng = np.random.default_rng([seed, 1])
    side = 3 * N - 2 * FIRST
    if kind == "steps":
        h = rng.choice([0.0, 5.0, 10.0, 15.0, 20.0], (side, side))
    elif kind == "noise":
        h = rng.normal(0.0, 8.0, (side, side))
    elif kind == "blocks":
        h = np.kron(rng.choice([0.0, 5.0, 10.0, 15.0], (side // 3 + 1,) * 2), np.ones((3, 3)))[:side, :side]
        h = h + rng.normal(0, 0.3, h.shape)
    else:
        h = np.cumsum(rng.normal(0, 2.0, (side, side)), axis=1)
    return h.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["steps", "noise", "blocks", "walk"]),
    missing=st.sets(st.integers(0, 8), max_size=6),
)
def test_any_heights_and_any_missing_tiles_give_a_closed_manifold(seed, kind, missing):
    h = wild_heights(seed, kind)
    existing = [(k % 3, k // 3) for k in range(9) if k not in missing]
    tiles = meshes_of(h, FIRST, N, existing, (0.0, 0.5))
    for level in range(2):
        meshes = [levels[level] for levels in tiles.values()]
        found = audit((mesh.ids, mesh.faces) for mesh in meshes)
        assert (found.boundary_edges, found.nonmanifold_edges) == (0, 0)
        assert broken_vertices(meshes) == 0
        assert positions_disagree(meshes) == 0


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["steps", "noise", "blocks", "walk"]))
def test_a_vertical_line_crosses_once(seed, kind):
    """Off the walls and inside the core; a wall's vertices may lean a cell's width over the border."""
    h = wild_heights(seed, kind)
    existing = [(k % 3, k // 3) for k in range(9)]
    tiles = meshes_of(h, FIRST, N, existing, (0.0, 0.5))
    at = np.arange(STEPS_PER_M - 300, (N - 1) * STEPS_PER_M + 300, 97) + 0.5
    for level in range(2):
        count, _ = crossings(tiles[1, 1][level], at, at)
        assert (count == 1).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_walls_are_exactly_vertical_and_everything_else_faces_up(seed):
    tiles = meshes_of(wild_heights(seed, "blocks"), FIRST, N, [(1, 1)], (0.0, 1.0))
    for mesh in tiles[1, 1]:
        v = mesh.vertices.astype(np.int64)[mesh.faces[mesh.part == SURFACE]]
        e, f = v[:, 1, :2] - v[:, 0, :2], v[:, 2, :2] - v[:, 0, :2]
        assert (e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0] >= 0).all()


def test_half_pitch_cells_close_too():
    existing = [(0, 0), (1, 0), (1, 1)]
    tiles = meshes_of(wild_heights(3, "blocks"), FIRST, N, existing, (0.0, 0.5), per_pitch=2)
    for level in range(2):
        meshes = [levels[level] for levels in tiles.values()]
        found = audit((mesh.ids, mesh.faces) for mesh in meshes)
        assert (found.boundary_edges, found.nonmanifold_edges) == (0, 0)
        assert positions_disagree(meshes) == 0


def test_a_tile_has_the_same_border_whoever_evaluates_it():
    """Columns on a border computed by two tiles from windows that start elsewhere."""
    h = wild_heights(5, "blocks")
    existing = [(0, 0), (1, 0)]
    west, east = (patch_of(h, FIRST, i, 0, N, around(existing, i, 0)) for i in (0, 1))
    side = N + 1
    column = np.arange(side) * side
    shift = np.array([N * STEPS_PER_M, 0])
    assert np.array_equal(west.xy[column + N], east.xy[column] + shift)
    codes = np.arange(LAYERS)
    assert np.array_equal(west.z.reshape(-1, LAYERS)[column + N], east.z.reshape(-1, LAYERS)[column])
    ids = [p.ids().reshape(-1, LAYERS)[c][:, codes] for p, c in ((west, column + N), (east, column))]
    assert np.array_equal(*ids)


@pytest.mark.parametrize("degrees", [20.0, 45.0, 60.0])
def test_a_steep_roof_is_no_wall(degrees):
    x = np.arange(60)
    slope = np.tan(np.radians(degrees))
    z = np.maximum(0.0, 20.0 - slope * np.abs(x - 30.0))[None, :].repeat(60, 0)
    wx, wy = cells.find_walls(z, np.ones(z.shape, bool), 1.5, np.tan(np.radians(65.0)))
    assert not wx[10:50, 10:50].any()
    assert not wy[10:50, 10:50].any()


def test_a_house_on_a_slope_gets_walls_all_round():
    x = np.arange(60)
    z = 0.3 * x[None, :] + 0.1 * x[:, None]
    z[20:40, 20:40] += 4.0
    wx, wy = cells.find_walls(z, np.ones(z.shape, bool), 1.5, np.tan(np.radians(65.0)))
    assert wx[20:40, [19, 39]].all()
    assert wy[[19, 39], 20:40].all()
    assert wx.sum() == wy.sum() == 40


def test_smeared_walls_become_walls():
    profile = np.r_[np.zeros(12), 3.4, 6.8, np.full(12, 10.0)]
    h = cells.sharpen(profile[None, :].repeat(10, 0), 2.1, 2)
    assert set(np.unique(h)) == {0.0, 10.0}
    gentle = np.linspace(0, 20, 26)[None, :].repeat(10, 0)
    assert np.array_equal(cells.sharpen(gentle, 2.1, 2), gentle)


def test_an_oblique_wall_becomes_straight():
    """A wall at 20 degrees is a staircase on the lattice; its vertices must not be."""
    i = np.arange(80) + FIRST + 0.5
    a = np.radians(20.0)
    distance = -(i[None, :] - 16.0) * np.sin(a) + (i[:, None] - 16.0) * np.cos(a)
    h = np.where(distance > 0, 12.0, 0.0).astype(np.float32)
    patch = patch_of(h, FIRST, 0, 0, 32, np.ones((3, 3), bool))
    several = (patch.z.reshape(-1, LAYERS)[:, :4] > -(2**31)).sum(axis=1) > 1
    x, y = (patch.xy[several] / STEPS_PER_M).T
    off = -(x - 16.0) * np.sin(a) + (y - 16.0) * np.cos(a)
    assert several.sum() > 25
    assert np.sqrt(np.mean(off**2)) < 0.25
