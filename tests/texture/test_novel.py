"""Novel views: where they stand, what of them counts, and what they do to a texture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cityweave.cameras import Pinhole
from cityweave.config import RefineConfig
from cityweave.grid import Tile
from cityweave.io.textures import GENERATED, INFERRED, MAX_COUNT, TileTexture
from cityweave.render.textured import fragments_of
from cityweave.texture.atlas import Atlas, AtlasSettings, Triangles, build_atlas, surface_triangles
from cityweave.texture.bake import Baked, BakeSettings, bake
from cityweave.texture.charts import face_frame
from cityweave.texture.novel import (
    Aim,
    NovelView,
    aims_of,
    camera_of,
    ground_below,
    load_views,
    save_views,
    within_reach,
)
from tests.texture import scene

NOTHING = Triangles.joined([])
SIDE = 48
REFINE = RefineConfig(spacing_m=20, height_m=90, reach_m=40, size_px=320)


def test_every_aim_belongs_to_one_tile_and_depends_on_no_other() -> None:
    refine = RefineConfig(spacing_m=150)
    tiles = [Tile(i, j, 256) for j in range(-2, 2) for i in range(-2, 2)]
    aims = [aim for tile in tiles for aim in aims_of(tile, refine)]
    places = {(aim.x_m, aim.y_m) for aim in aims}
    # multiples of 150 from -512 on and before 512
    assert places == {(x, y) for x in range(-450, 512, 150) for y in range(-450, 512, 150)}
    assert len({aim.name for aim in aims}) == len(aims) == 4 * len(places)
    for tile in tiles:
        for aim in aims_of(tile, refine):
            assert tile.core.xmin <= aim.x_m < tile.core.xmax and tile.core.ymin <= aim.y_m < tile.core.ymax


def test_cameras_on_the_grid_are_owned_by_the_tile_they_aim_at() -> None:
    refine = RefineConfig(grid="cameras", spacing_m=150)
    tiles = [Tile(i, j, 256) for j in range(-4, 4) for i in range(-4, 4)]
    aims = [aim for tile in tiles for aim in aims_of(tile, refine)]
    assert len({aim.name for aim in aims}) == len(aims)
    positions = np.array([camera_of(aim, 0.0, refine).position for aim in aims])
    nodes = positions[:, :2] / 150
    assert np.allclose(nodes, np.round(nodes), atol=1e-6)
    north = {(aim.x_m, round(aim.y_m, 6)) for aim in aims if aim.heading_deg == 0}
    assert north == {(x, y) for x in range(-900, 1024, 150) for y in range(-900, 1024, 150)}  # 450 m is three nodes
    for tile in tiles:
        for aim in aims_of(tile, refine):
            assert tile.core.xmin <= aim.x_m < tile.core.xmax and tile.core.ymin <= aim.y_m < tile.core.ymax


@pytest.mark.parametrize("heading", [0, 90, 200])
def test_a_camera_looks_at_its_aim_and_the_reach_fills_the_picture(heading: float) -> None:
    aim = Aim("a", 1000.0, 2000.0, heading)
    camera = camera_of(aim, 500.0, REFINE)
    u, v, _ = camera.project(1000.0, 2000.0, 500.0)
    assert (float(u), float(v)) == pytest.approx((160, 160))
    assert camera.position[2] == pytest.approx(590)
    ahead = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
    assert (np.array([1000.0, 2000.0]) - camera.position[:2]) @ ahead == pytest.approx(90)  # 45 degrees
    beside = np.array([1000.0, 2000.0]) + 40 * np.array([ahead[1], -ahead[0]])
    u, _, _ = camera.project(*beside, 500.0)
    assert float(u) == pytest.approx(320)


def test_what_lies_beyond_the_reach_is_masked() -> None:
    """Level ground, where the ray of each pixel can be followed by hand."""
    aim = Aim("a", 10.0, 20.0, 30)
    camera = camera_of(aim, 0.0, replace_size(REFINE, 64))
    v, u = np.mgrid[:64, :64] + 0.5
    rays = (
        np.stack([(u - 32) / camera.focal_px, (v - 32) / camera.focal_px, np.ones_like(u)], axis=-1) @ camera.rotation
    )
    depth = -camera.position[2] / rays[..., 2]
    hit = camera.position + rays * depth[..., None]
    expected = np.hypot(hit[..., 0] - 10, hit[..., 1] - 20) <= 40
    assert 0.3 < expected.mean() < 0.9
    assert (within_reach(camera, depth, (10.0, 20.0), 40.0) == expected).all()
    assert not within_reach(camera, np.full_like(depth, np.inf), (10.0, 20.0), 40.0).any()


def replace_size(refine: RefineConfig, size_px: int) -> RefineConfig:
    return refine.model_copy(update={"size_px": size_px})


def test_ground_is_that_around_the_point() -> None:
    world = np.array([[0, 0, 7.6], [10, 0, 30.0], [500, 0, -4.2]])
    assert ground_below(Aim("a", 5, 5, 0), world) == 7
    assert ground_below(Aim("a", 300, 0, 0), world) == -5  # nothing near: the nearest there is


def test_views_come_back_as_they_were_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    camera = camera_of(Aim("7_8_090", 140.0, 160.0, 90.0), 3.0, replace_size(REFINE, 64))
    view = NovelView(
        "7_8_090", (140.0, 160.0), camera, rng.integers(0, 256, (64, 64, 3), np.uint8), rng.random((64, 64)) < 0.5
    )
    save_views(tmp_path, [view])
    (back,) = load_views(tmp_path)
    assert back.name == view.name and back.aim_m == view.aim_m
    assert (back.picture == view.picture).all() and (back.known == view.known).all()
    points = np.random.default_rng(1).uniform(100, 200, (9, 3))
    for ours, true in zip(back.camera.project(*points.T), camera.project(*points.T), strict=True):
        assert (ours == true).all()


@pytest.fixture(scope="module")
def own() -> Triangles:
    return surface_triangles(scene.stepped_mesh(scene.box_heights(SIDE)))


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return build_atlas([scene.stepped_mesh(scene.box_heights(SIDE))], NOTHING, AtlasSettings(0.25, 0.4))


def photographed(own: Triangles, camera: Pinhole) -> NovelView:
    """What is painted there: the best that a restorer could do."""
    fragments, _ = fragments_of(own.xyz, own.faces, camera, 2)
    points, normal = fragments.interpolate(own.faces, own.xyz), face_frame(own.xyz, own.faces).normal
    picture = np.zeros((*fragments.face.shape, 3))
    picture[fragments.seen] = scene.paint(points[fragments.seen], normal[fragments.face[fragments.seen]])
    rows, cols = camera.height, camera.width
    known = fragments.seen.reshape(rows, 2, cols, 2).all(axis=(1, 3))
    picture = picture.reshape(rows, 2, cols, 2, 3).mean(axis=(1, 3))
    return NovelView("n", (24.0, 24.0), camera, np.clip(np.rint(picture), 0, 255).astype(np.uint8), known)


@pytest.fixture(scope="module")
def novel(own: Triangles) -> list[NovelView]:
    return [photographed(own, camera_of(Aim("a", 24.0, 24.0, heading), 5.0, REFINE)) for heading in (0, 90, 180, 270)]


def errors(atlas: Atlas, texture: TileTexture) -> tuple[np.ndarray, np.ndarray]:
    """Per texel of the finest walls: error and provenance."""
    band = atlas.bands[1]
    texel = np.flatnonzero(band.face >= 0)
    rows, cols = band.face.shape
    window = (slice(band.row0, band.row0 + rows), slice(0, cols))
    true = scene.paint(band.points(texel), band.normals(texel))
    found = texture.colour[window].reshape(-1, 3)[texel].astype(float)
    return np.abs(found - true).max(axis=1), texture.provenance[window].ravel()[texel]


@pytest.fixture(scope="module")
def one_view(atlas: Atlas, own: Triangles) -> Baked:
    """From one satellite alone, which sees none of the walls that face away from it."""
    return bake(atlas, own, NOTHING, scene.source_views(own, SIDE)[2:3], BakeSettings())


def test_what_no_satellite_saw_takes_restored_colours_and_says_so(
    atlas: Atlas, own: Triangles, novel: list[NovelView], one_view: Baked
) -> None:
    refined = bake(atlas, own, NOTHING, scene.source_views(own, SIDE)[2:3], BakeSettings(), novel)
    before, provenance = errors(atlas, one_view.texture)
    after, new_provenance = errors(atlas, refined.texture)
    unseen = provenance == INFERRED
    assert unseen.mean() > 0.3 and not (provenance == GENERATED).any()
    generated = new_provenance == GENERATED
    assert generated[unseen].mean() > 0.85 and not generated[~unseen].any()
    assert np.median(after[generated]) < 6 < 30 < np.median(before[generated])


def test_generated_colours_can_be_left_out(
    atlas: Atlas, own: Triangles, novel: list[NovelView], one_view: Baked
) -> None:
    settings = BakeSettings(generated=False)
    refined = bake(atlas, own, NOTHING, scene.source_views(own, SIDE)[2:3], settings, novel).texture
    _, before = errors(atlas, one_view.texture)
    _, after = errors(atlas, refined)
    assert ((before == INFERRED) == (after == INFERRED)).all() and not (after == GENERATED).any()


def test_what_satellites_saw_is_not_painted_over(atlas: Atlas, own: Triangles, novel: list[NovelView]) -> None:
    """A restorer that paints all red moves seen texels by less than it claims, and the less the less it counts."""
    views = scene.source_views(own, SIDE)
    red = [replace(view, picture=np.full_like(view.picture, (255, 0, 0))) for view in novel]
    plain, strong, weak = (
        bake(atlas, own, NOTHING, views, BakeSettings(novel_worth=worth), pictures)
        for worth, pictures in ((1.0, ()), (1.0, red), (0.05, red))
    )
    assert plain.source_error < weak.source_error < strong.source_error
    seen = (plain.texture.provenance > 0) & (plain.texture.provenance <= MAX_COUNT)
    moved = [
        np.abs(other.texture.colour.astype(int) - plain.texture.colour)[seen].max(axis=1) for other in (weak, strong)
    ]
    assert np.median(moved[0]) < 0.3 * np.median(moved[1])


def test_a_view_that_shows_nothing_changes_nothing(atlas: Atlas, own: Triangles, novel: list[NovelView]) -> None:
    views = scene.source_views(own, SIDE)
    away = replace(novel[0], camera=replace(novel[0].camera, position=novel[0].camera.position + 1e5))
    blind = replace(novel[1], known=np.zeros_like(novel[1].known))
    plain, same = (bake(atlas, own, NOTHING, views, BakeSettings(), more).texture for more in ((), (away, blind)))
    assert (plain.colour == same.colour).all() and (plain.provenance == same.provenance).all()


def test_the_same_again(atlas: Atlas, own: Triangles, novel: list[NovelView]) -> None:
    views = scene.source_views(own, SIDE)[:2]
    first, again = (bake(atlas, own, NOTHING, views, BakeSettings(), novel).texture for _ in range(2))
    assert (first.colour == again.colour).all() and (first.provenance == again.provenance).all()
