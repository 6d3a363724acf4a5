"""The procedural city: bodies closed, in their place, and the same in every box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.errors import ConfigError
from cityweave.grid import Box
from cityweave.synth import materials
from cityweave.synth.blocks import FILLERS, fill_block
from cityweave.synth.city import build_city
from cityweave.synth.layout import Layout, from_frame, inset, to_frame
from cityweave.synth.scene import BUILDING, Builder, Label, Material, Scene, Style

ORIGIN = (315400.0, 4161560.0, 550.0)


@settings(max_examples=30, deadline=None)
@given(st.floats(-5e6, 5e6), st.floats(-5e6, 5e6), st.integers(0, 50))
def test_street_frame_round_trip(x: float, y: float, seed: int) -> None:
    bend = Layout(seed, 0.0, 0.0).bend
    back = from_frame(*to_frame(x, y, bend), bend)
    np.testing.assert_allclose(back, (x, y), atol=1e-4)


def test_blocks_are_convex_and_apart(layout: Layout) -> None:
    for i, j in layout.blocks_in(315000, 4161000, 315600, 4161600):
        q = layout.block(i, j)
        e = np.roll(q, -1, axis=0) - q
        f = np.roll(e, -1, axis=0)
        assert (e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0] > 100).all()
        right, top = layout.block(i + 1, j), layout.block(i, j + 1)
        assert np.linalg.norm(right[0] - q[1]) > 8 and np.linalg.norm(top[0] - q[3]) > 8


def test_inset_moves_every_edge_by_the_distance() -> None:
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 8.0], [0.0, 8.0]])
    np.testing.assert_allclose(inset(square, 1.0), [[1, 1], [9, 1], [9, 7], [1, 7]])


def edges_by_position(points: np.ndarray, faces: np.ndarray) -> dict:
    _, number = np.unique(np.round(points * 1e6).astype(np.int64), axis=0, return_inverse=True)
    corner = number.ravel()[faces]
    count: dict = {}
    for a, b in ((0, 1), (1, 2), (2, 0)):
        for p, q in zip(corner[:, a], corner[:, b], strict=True):
            if p != q:
                count[(p, q)] = count.get((p, q), 0) + 1
    return count


def test_every_body_is_closed_and_looks_out(scene: Scene) -> None:
    """Each edge is passed once in either direction, and the enclosed volume is positive."""
    owner = scene.objects[scene.patch]
    p = scene.vertices[scene.faces]
    six = np.einsum("ij,ij->i", p[:, 0], np.cross(p[:, 1], p[:, 2]))
    rng = np.random.default_rng(0)
    bodies = np.unique(owner[np.isin(scene.material, BUILDING)])
    assert len(bodies) > 50
    for body in rng.permutation(bodies)[:150]:
        own = owner == body
        count = edges_by_position(scene.vertices, scene.faces[own])
        assert all(count.get((q, p)) == n for (p, q), n in count.items()), f"object {body} is open"
        assert six[own].sum() > 0


def test_bodies_stand_into_the_ground_and_inside_the_box(scene: Scene) -> None:
    owner = scene.objects[scene.patch]
    walled = np.unique(owner[scene.material == Material.HIDDEN])
    lowest = np.full(owner.max() + 1, np.inf)
    np.minimum.at(lowest, np.repeat(owner, 3), scene.vertices[scene.faces.ravel(), 2])
    for body in walled[:40]:
        corner = scene.vertices[np.unique(scene.faces[owner == body])]
        ground = scene.ground(corner[:, 0], corner[:, 1])
        on_podium = lowest[body] > ground.max() + 2.0
        assert lowest[body] < ground.min() or on_podium
    assert scene.vertices[:, :2].min() >= 0.0
    assert scene.vertices[:, :2].max() <= 200.0


def test_growing_the_box_moves_nothing(layout: Layout, scene: Scene) -> None:
    large = build_city(Box(315360, 4161540, 315640, 4161780), ORIGIN, layout, 100.0)

    def inner(s: Scene) -> np.ndarray:
        p = s.vertices[s.faces].mean(axis=1)
        own = (s.material != Material.GROUND) & (p[:, :2] > 40).all(axis=1) & (p[:, :2] < 160).all(axis=1)
        return np.unique(np.round(p[own], 5), axis=0)

    a, b = inner(scene), inner(large)
    # what stuck out of the smaller box is missing there; what it has is in the larger one, at the same place
    together = np.unique(np.concatenate([a, b]), axis=0)
    assert len(together) == len(b)
    assert len(a) > 0.85 * len(b)
    x, y = np.meshgrid(np.arange(1.0, 199.0, 7.3), np.arange(1.0, 199.0, 7.3))
    np.testing.assert_allclose(scene.ground(x, y), large.ground(x, y), atol=1e-4)
    rows, cols = scene.labels.shape
    top, left = round(20 / scene.label_cell_m), round(40 / scene.label_cell_m)
    np.testing.assert_array_equal(scene.labels, large.labels[top : top + rows, left : left + cols])


def test_another_seed_is_another_city(scene: Scene) -> None:
    other = build_city(Box(315400, 4161560, 315600, 4161760), ORIGIN, Layout(8, 560.0, 14.0), 100.0)
    assert len(other.faces) != len(scene.faces)


@pytest.mark.parametrize("kind", sorted(FILLERS))
def test_every_kind_of_block_can_be_built_anywhere(layout: Layout, kind: str) -> None:
    for n in range(4):
        b = Builder()
        FILLERS[kind](b, layout, inset(layout.block(3210 + n, 4170), 3.2), np.random.default_rng(n), 30.0)
        assert b.paint
        points = np.concatenate([p for p, _, _ in b.polygons]) if b.polygons else np.zeros((0, 3))
        assert np.isfinite(points).all()
        if len(points):
            ground = layout.terrain(points[:, 0], points[:, 1])
            assert (points[:, 2] - ground).max() < 40.0


def test_a_block_has_its_own_stream(layout: Layout) -> None:
    first, second = Builder(), Builder()
    fill_block(first, layout, 3209, 4170, 50.0)
    other = Builder()
    fill_block(other, layout, 3210, 4170, 50.0)
    fill_block(second, layout, 3209, 4170, 50.0)
    assert first.boxes == second.boxes
    assert first.trees == second.trees


def test_ground_has_streets_greens_and_water(layout: Layout) -> None:
    wide = build_city(Box(315300, 4161500, 315900, 4162000), ORIGIN, layout, 100.0)
    share = np.bincount(wide.labels.ravel(), minlength=len(Label)) / wide.labels.size
    assert 0.1 < share[Label.ASPHALT] < 0.4
    assert share[Label.GRASS] > 0.05
    assert share[Label.WATER] > 0.005
    assert share[Label.MARKING] > 0.003
    kinds = set(np.unique(wide.material))
    assert {Material.WALL, Material.ROOF_TILE, Material.ROOF_FLAT, Material.TREE, Material.CAR, Material.DECK} <= kinds


def test_water_is_level(layout: Layout) -> None:
    river = next(i for i in range(3200, 3220) if layout.is_river(i))
    points = np.array([layout.to_xy(layout.river_line(river) + d, t) for d in (-10, 0, 10) for t in range(0, 900, 60)])
    np.testing.assert_allclose(layout.terrain(points[:, 0], points[:, 1]), layout.ground_m - 3.5, atol=1e-9)


def test_odd_box_is_refused(layout: Layout) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        build_city(Box(315400, 4161560, 315501, 4161660), ORIGIN, layout, 100.0)


def test_kernels_use_the_same_numbers() -> None:
    for family in (Material, Label, Style):
        for member in family:
            assert getattr(materials, member.name) == member
