"""The bake against a painted city: colours where views look, honesty where they don't."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cityweave.io.textures import INFERRED, OUTSIDE
from cityweave.texture.atlas import AtlasSettings, Triangles, build_atlas, surface_triangles
from cityweave.texture.bake import BakeSettings, bake
from cityweave.texture.fill import push_pull, spare_colours
from cityweave.texture.fuse import fuse
from cityweave.texture.sharpen import SharpenSettings
from tests.texture import scene

NOTHING = Triangles.joined([])
SIDE = 48


@pytest.fixture(scope="module")
def own() -> Triangles:
    return surface_triangles(scene.stepped_mesh(scene.box_heights(SIDE)))


@pytest.fixture(scope="module")
def atlas():
    return build_atlas([scene.stepped_mesh(scene.box_heights(SIDE))], NOTHING, AtlasSettings(0.25, 0.4))


@pytest.fixture(scope="module")
def views(own):
    return scene.source_views(own, SIDE)


@pytest.fixture(scope="module")
def baked(atlas, own, views):
    return textured(atlas, own, NOTHING, views, BakeSettings())


def textured(*arguments):
    return bake(*arguments).texture


def compare(atlas, texture, band_number):
    """Colours of a band's texels, their true colours, and their provenance."""
    band = atlas.bands[band_number]
    texel = np.flatnonzero(band.face >= 0)
    rows, cols = band.face.shape
    window = (slice(band.row0, band.row0 + rows), slice(0, cols))
    true = scene.paint(band.points(texel), band.normals(texel))
    colour = texture.colour[window].reshape(-1, 3)[texel].astype(float)
    return colour, true, texture.provenance[window].ravel()[texel]


def psnr(ours, true):
    return 10 * np.log10(255**2 / ((ours - true) ** 2).mean())


def test_roofs_ground_and_walls_get_their_colours(atlas, baked):
    for band, least in ((0, 38.0), (1, 32.0)):
        colour, true, provenance = compare(atlas, baked, band)
        seen = provenance < INFERRED
        assert seen.mean() > 0.93
        assert psnr(colour[seen], true[seen]) > least


def test_provenance_counts_views_and_marks_the_rest(atlas, baked):
    _, _, top = compare(atlas, baked, 0)
    assert top.min() >= 1
    assert (top == 5).mean() > 0.3
    assert (top <= 5).sum() + (top == INFERRED).sum() == top.size
    outside = atlas.bands[0].face < 0
    assert (baked.provenance[: len(outside)][outside] == OUTSIDE).all()


def test_a_wall_that_no_view_faces_is_filled_and_says_so(atlas, own, views):
    texture = textured(atlas, own, NOTHING, views[2:3], BakeSettings())
    band = atlas.bands[1]
    texel = np.flatnonzero(band.face >= 0)
    provenance = texture.provenance[band.row0 :].ravel()[texel]
    toward_camera = band.normals(texel)[:, :2] @ scene.LEANS[2]
    assert (provenance[toward_camera > 0.01] == INFERRED).all() or (provenance[toward_camera < -0.01] == INFERRED).all()
    colour = texture.colour[band.row0 :].reshape(-1, 3)[texel]
    assert colour[provenance == INFERRED].max(axis=1).min() > 20  # no black walls


def test_what_stands_before_a_texel_is_not_painted_on_it(atlas, own, views):
    """A tower of a neighbouring tile hides ground; without it as occluder its colour would be on the street."""
    tower = scene.stepped_mesh(np.full((12, 12), 36.0), rim_base_m=0.0)
    wall = Triangles(tower.xyz() + np.array([SIDE + 1.0, 10.0, 0.0]), tower.faces)
    both = Triangles.joined([own, wall])
    seen = scene.source_views(both, SIDE)
    visible = [replace(view, valid=np.ones_like(view.valid)) for view in seen]
    level, row = 5.0, 0
    errors = []
    for occluders in (wall, NOTHING):
        texture = textured(atlas, own, occluders, visible, BakeSettings(robust_floor=200.0))
        colour, true, provenance = compare(atlas, texture, row)
        near = (compare_points(atlas, row)[:, 0] > SIDE - 14) & (compare_points(atlas, row)[:, 2] == level)
        errors.append(np.abs(colour - true).max(axis=1)[near & (provenance < INFERRED)].mean())
    assert errors[0] < 4.0
    assert errors[1] > 2 * errors[0]


def compare_points(atlas, number):
    band = atlas.bands[number]
    return band.points(np.flatnonzero(band.face >= 0))


def test_a_moving_shadow_doesn_t_ghost(atlas, own, views):
    changed = []
    for number, view in enumerate(views):
        image = view.image.copy()
        rows = image.shape[1] // 6
        image[:, number * rows : (number + 1) * rows] //= 3  # another strip of every view is dark
        changed.append(replace(view, image=image))
    sharp, true, _ = compare(atlas, textured(atlas, own, NOTHING, changed, BakeSettings()), 0)
    fused = BakeSettings(sharpening=SharpenSettings(steps=0))
    robust, _, _ = compare(atlas, textured(atlas, own, NOTHING, changed, fused), 0)
    plain, _, _ = compare(atlas, textured(atlas, own, NOTHING, changed, replace(fused, robust_floor=1e6)), 0)
    assert psnr(robust, true) > psnr(plain, true) + 3
    assert psnr(sharp, true) > psnr(robust, true) - 0.1


def test_exposure_is_taken_out(atlas, own, views, baked):
    darker = replace(views[0], image=(views[0].image // 2).astype(np.uint16), gain=views[0].gain * 2)
    texture = textured(atlas, own, NOTHING, [darker, *views[1:]], BakeSettings())
    assert np.abs(texture.colour.astype(int) - baked.colour).mean() < 0.5


def test_masked_pixels_are_not_used(atlas, own, views):
    blind = [replace(view, valid=np.zeros_like(view.valid)) for view in views]
    texture = textured(atlas, own, NOTHING, blind, BakeSettings())
    inside = texture.provenance != OUTSIDE
    assert (texture.provenance[inside] == INFERRED).all()


def test_grey_views_give_grey(atlas, own, views):
    grey = [replace(view, image=view.image[:1]) for view in views]
    texture = textured(atlas, own, NOTHING, grey, BakeSettings())
    x0, y0, x1, y1 = atlas.plain_box
    colour = texture.colour.copy()
    colour[y0:y1, x0:x1] = 0
    assert (colour[..., 0] == colour[..., 2]).all()


def test_one_block_or_many_make_no_difference(atlas, own, views, baked, monkeypatch):
    monkeypatch.setattr("cityweave.texture.bake._BLOCK", 1000)
    again = textured(atlas, own, NOTHING, views, BakeSettings())
    assert (again.colour == baked.colour).all()
    assert (again.provenance == baked.provenance).all()


def test_fuse_follows_the_majority():
    colour = np.full((1, 5, 3), 100.0, np.float32)
    colour[0, 0] = 10.0
    out, count = np.zeros((1, 3), np.float32), np.zeros(1, np.int64)
    lead = np.zeros(1, np.int16)
    fuse(colour, np.array([[3.0, 1.0, 1.1, 1.0, 1.0]], np.float32), 6.0, out, count, lead)
    assert count[0] == 5 and lead[0] == 2  # the best view sees another thing than all others
    assert np.abs(out - 100.0).max() < 0.5


@pytest.mark.parametrize(("weights", "leads"), [((0, 0, 0), -1), ((0, 0, 2), 2), ((0, 1, 2), 2), ((2, 1, 1), 0)])
def test_the_view_that_counts_most_leads(weights, leads):
    lead, count = np.zeros(1, np.int16), np.zeros(1, np.int64)
    colour, weight = np.full((1, 3, 3), 100.0, np.float32), np.array([weights], np.float32)
    fuse(colour, weight, 6.0, np.zeros((1, 3), np.float32), count, lead)
    assert lead[0] == leads and count[0] == np.count_nonzero(weight)


def test_push_pull_keeps_the_known_and_blends_the_rest():
    colour = np.zeros((32, 32, 3), np.float32)
    known = np.zeros((32, 32), bool)
    colour[:, :4], known[:, :4] = 50.0, True
    colour[:, -4:], known[:, -4:] = 150.0, True
    before = colour[known].copy()
    push_pull(colour, known)
    assert (colour[known] == before).all()
    middle = colour[16, 4:-4, 0]
    assert (np.diff(middle) > -1.0).all()
    assert 60 < middle[len(middle) // 2] < 140


def test_unseen_charts_borrow_from_the_nearest_that_faces_alike():
    mean = np.array([[200.0, 0, 0], [0, 200, 0], [0, 0, 200], [0, 0, 0]])
    centre = np.array([[0.0, 0, 0], [50, 0, 0], [1, 0, 0], [2, 0, 0]])
    facing = np.array([[1.0, 0], [1, 0], [-1, 0], [1, 0]])
    out = spare_colours(mean, np.array([100, 100, 100, 0]), centre, facing, np.zeros(3))
    assert out[3].tolist() == [200.0, 0.0, 0.0]
