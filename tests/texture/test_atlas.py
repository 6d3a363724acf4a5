"""The atlas: charts don't overlap, every level finds its texels, and a texel knows its point in space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.mesh import RIM, SURFACE, TileMesh
from cityweave.texture.atlas import AtlasSettings, Triangles, build_atlas, overlapping, surface_triangles
from cityweave.texture.charts import PLAIN, TOP, label_faces
from cityweave.texture.pack import shelf_pack
from tests.texture import scene

NOTHING = Triangles.joined([])
SETTINGS = AtlasSettings(top_texel_m=0.25, facade_texel_m=0.4)


@pytest.fixture(scope="module")
def heights() -> np.ndarray:
    return scene.box_heights(48)


@pytest.fixture(scope="module")
def levels(heights) -> list[TileMesh]:
    origin = (315392.0, 4161536.0, 600.0)
    fine = scene.stepped_mesh(heights, origin_m=origin, rim_base_m=-10.0)
    return [fine, scene.stepped_mesh(heights[::4, ::4], origin_m=origin, cell=4, rim_base_m=-10.0)]


@pytest.fixture(scope="module")
def atlas(levels):
    return build_atlas(levels, NOTHING, SETTINGS)


def test_walls_get_charts_and_tops_the_plan_view(levels):
    mesh = levels[0]
    label = label_faces(mesh, 65.0, 2.0)
    normal_z = np.cross(*(mesh.xyz()[mesh.faces[:, k]] - mesh.xyz()[mesh.faces[:, 0]] for k in (1, 2)))[:, 2]
    assert (label[mesh.part == RIM] == PLAIN).all()
    assert (label[(mesh.part == SURFACE) & (normal_z > 0)] == TOP).all()
    assert (label[(mesh.part == SURFACE) & (normal_z == 0)] >= 0).all()


def test_a_chart_holds_walls_that_face_one_way(levels):
    mesh = levels[0]
    label = label_faces(mesh, 65.0, 2.0)
    corner = mesh.xyz()[mesh.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    for chart in range(label.max() + 1):
        facing = normal[label == chart, :2]
        assert (facing @ facing[0] > 0).all()


def test_no_texel_belongs_to_two_faces_of_any_chart(levels, atlas):
    size = np.array([atlas.layout.width, atlas.layout.height])
    for mesh, uv in zip(levels, atlas.uv, strict=True):
        corner_px = uv.astype(np.float64)[mesh.part == SURFACE] * size
        # float32 uv moves corners by a hundredth of a texel at most
        assert overlapping(corner_px, *size.tolist()).mean() < 2e-3


def test_overlapping_parts_of_a_chart_are_split_off():
    """A wall with a second one before it, joined by a slanted piece: one patch by direction, two layers in (u, z)."""
    plan = np.array([[0, 0], [10, 0], [4, -4.5], [14, -4.5]], float)  # a Z seen from above
    xyz = np.array([[*p, z] for p in plan for z in (0.0, 6.0)])
    quads = [(0, 2, 3, 1), (2, 4, 5, 3), (4, 6, 7, 5)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    vertices = np.round(xyz * 1024).astype(np.int32)
    mesh = TileMesh((0.0, 0.0, 0.0), vertices, np.arange(8), faces, np.zeros(6, np.uint8))
    made = build_atlas([mesh], NOTHING, SETTINGS)
    size = np.array([made.layout.width, made.layout.height])
    assert not overlapping(made.uv[0].astype(np.float64) * size, *size.tolist()).any()
    covered = np.bincount(made.bands[1].face[made.bands[1].face >= 0], minlength=6)
    assert (covered > 0).all()


def test_a_texel_knows_where_it_is(levels, atlas, heights):
    top = atlas.bands[0]
    texel = np.flatnonzero(top.face >= 0)
    points = top.points(texel)
    row, col = np.divmod(texel, atlas.layout.width)
    west, north = atlas.layout.top_origin_m
    assert np.abs(points[:, 0] - (west + (col + 0.5) * 0.25)).max() < 1e-4
    assert np.abs(points[:, 1] - (north - (row + 0.5) * 0.25)).max() < 1e-4
    cell = np.clip(points[:, :2].astype(int), 0, 47)
    assert np.abs(points[:, 2] - heights[cell[:, 1], cell[:, 0]]).max() < 1e-4
    walls = atlas.bands[1]
    texel = np.flatnonzero(walls.face >= 0)
    assert np.abs(walls.normals(texel)[:, 2]).max() < 1e-9
    edge = np.abs(walls.points(texel)[:, :2] - np.round(walls.points(texel)[:, :2])).min(axis=1)
    assert edge.max() < 1e-4  # every wall of the scene stands on a whole metre


def test_charts_are_padded(atlas):
    for band in atlas.bands[1:]:
        taken = np.zeros(band.face.shape, int)
        for x, y, w, h in band.chart:
            taken[y : y + h, x : x + w] += 1
            frame = band.face[y : y + h, x : x + w].copy()
            frame[2:-2, 2:-2] = -1
            assert (frame == -1).all()
        assert taken.max() == 1


def test_all_levels_share_the_plan_view(levels, atlas):
    for k, (mesh, uv) in enumerate(zip(levels, atlas.uv, strict=True)):
        label = label_faces(mesh, 65.0, 2.0)
        px = uv[label == TOP] * [atlas.layout.width, atlas.layout.height]
        expected = atlas.layout.plan_px(mesh.xyz())[mesh.faces[label == TOP]]
        at_wall = np.isin(mesh.faces[label == TOP], mesh.faces[label >= 0])
        assert np.abs(px - expected)[~at_wall].max() < 1e-3
        assert np.abs(px - expected).max() < 0.501 * 2**k


def test_lookups_keep_off_the_edge_of_a_roof():
    """A box of 8 m: roof coordinates move in by half a texel, those of the ground away from the box."""
    heights = np.full((24, 24), 2.0)
    heights[8:16, 8:16] = 12.0
    mesh = scene.stepped_mesh(heights)
    made = build_atlas([mesh], NOTHING, SETTINGS)
    px = made.uv[0].astype(np.float64) * [made.layout.width, made.layout.height]
    west, north = made.layout.top_origin_m
    place = np.stack([west + px[..., 0] * 0.25, north - px[..., 1] * 0.25], axis=-1)
    flat = label_faces(mesh, 65.0, 2.0) == TOP
    roof = flat & (mesh.xyz()[mesh.faces][:, :, 2] == 12.0).all(axis=1)
    inset = 0.5 * 0.25
    assert np.allclose(place[roof].reshape(-1, 2).min(axis=0), 8 + inset, atol=1e-4)
    assert np.allclose(place[roof].reshape(-1, 2).max(axis=0), 16 - inset, atol=1e-4)
    ground = place[flat & ~roof].reshape(-1, 2)
    inside = (np.abs(ground - 12.0) < 4.0 + inset - 1e-4).all(axis=1)
    assert not inside.any()


def test_neighbours_fill_the_gutter_of_the_plan_view(heights):
    whole = scene.stepped_mesh(heights)
    west = scene.stepped_mesh(heights, (0, 0, 24))
    made = build_atlas([west], surface_triangles(whole), SETTINGS)
    top = made.bands[0]
    rows = made.layout.band_rows[0]
    assert made.layout.top_origin_m == (-0.5, 24.5)
    assert (top.face[4 : rows - 10, 98:100] >= 0).all()  # beyond x = 24 m
    assert (top.face[:, :2] == -1).all()  # nothing lies west of the city


def test_same_bytes_again(levels):
    a, b = (build_atlas(levels, NOTHING, SETTINGS) for _ in range(2))
    assert a.layout == b.layout
    assert all((x == y).all() for x, y in zip(a.uv, b.uv, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=60))
def test_packing_never_overlaps(sizes):
    width, height = (np.array(values) for values in zip(*sizes, strict=True))
    place, used = shelf_pack(width, height, 64)
    taken = np.zeros((used, 64), int)
    for (x, y), w, h in zip(place, width, height, strict=True):
        assert x + w <= 64
        assert y + h <= used
        taken[y : y + h, x : x + w] += 1
    assert taken.max() == 1
