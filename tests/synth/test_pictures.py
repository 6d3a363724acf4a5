"""Light, sensor and truth of the small city."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.cameras import Pinhole
from cityweave.grid import Box, CellGrid
from cityweave.synth import sensor
from cityweave.synth.assemble import assemble
from cityweave.synth.layout import Layout
from cityweave.synth.scene import Builder, Label, Material, Scene
from cityweave.synth.shading import Shaded, Sun, prepare, sun_map
from cityweave.synth.truth import coarse_terrain, true_heights
from cityweave.synth.views import pinhole_radiance, plan_radiance, sample_bilinear

BOX = Box(1000, 2000, 1080, 2080)
ORIGIN = (1000.0, 2000.0, 100.0)


@pytest.fixture(scope="module")
def one_box() -> Shaded:
    """A box of 20 m x 20 m x 15 m in the middle of a paved plain at 105 m."""
    b = Builder()
    b.box(np.array([1040.0, 2040.0]), np.array([1.0, 0.0]), 20.0, 20.0, 103.0, 120.0, Material.EQUIPMENT, (0.5,) * 3)
    b.label(np.array([[1000, 2000], [1080, 2000], [1080, 2080], [1000, 2080]]), Label.SIDEWALK)
    return prepare(assemble(b, BOX, ORIGIN, lambda x, y: np.full(x.shape, 105.0)), 1)


def test_true_heights_are_those_of_the_mesh(one_box: Shaded) -> None:
    grid = CellGrid.covering(BOX, 0.5)
    heights = true_heights(one_box.scene, grid)
    x, y = np.meshgrid(grid.x_centres, grid.y_centres)
    inside = (np.abs(x - 1040) < 10) & (np.abs(y - 2040) < 10)
    np.testing.assert_allclose(heights.dsm, np.where(inside, 120.0, 105.0), atol=1e-4)
    np.testing.assert_allclose(heights.dtm, 105.0, atol=1e-4)
    np.testing.assert_array_equal(heights.building.astype(bool), inside)
    assert not heights.tree.any()


def test_the_sun_casts_a_shadow_of_the_right_length(one_box: Shaded) -> None:
    """Sun in the south at 45°: the 15 m box shades 15 m to its north."""
    grid = CellGrid.covering(BOX, 0.5)
    picture = plan_radiance(one_box, sun_map(one_box.scene, Sun(180.0, 45.0)), grid, 1, 0.0)
    brightness = picture.mean(axis=-1)
    row_of = {y: int((2080 - y) / 0.5) for y in (2020, 2057, 2063, 2070)}
    across = slice(int(35 / 0.5), int(45 / 0.5))
    mean = {y: brightness[row, across].mean() for y, row in row_of.items()}
    assert mean[2057] < 0.6 * mean[2020]
    assert mean[2063] < 0.6 * mean[2020]
    assert mean[2070] > 0.85 * mean[2020]


def test_the_ground_looks_the_same_in_two_boxes(layout: Layout) -> None:
    """Texture hangs on the CRS: the picture of the same ground from another box has the same values."""
    from cityweave.synth.city import build_city

    sun, pictures = Sun(140.0, 80.0), []
    common = CellGrid.covering(Box(315440, 4161600, 315470, 4161630), 0.5)
    for box in (Box(315380, 4161540, 315560, 4161720), Box(315400, 4161560, 315600, 4161760)):
        scene = build_city(box, (box.xmin, box.ymin, 550.0), layout, 30.0)
        shaded = prepare(scene, 1)
        pictures.append(plan_radiance(shaded, sun_map(scene, sun), common, 1, 0.0))
    difference = np.abs(pictures[0] - pictures[1])
    assert np.median(difference) < 0.01  # shadow maps have other cells, and the sky sees other surroundings


def test_a_pinhole_sees_a_point_where_it_projects_it(one_box: Shaded) -> None:
    camera = Pinhole.look_at(np.array([40.0, -60.0, 80.0]), np.array([40.0, 40.0, 20.0]), 45.0, 120, 120)
    picture = pinhole_radiance(one_box, sun_map(one_box.scene, Sun(180.0, 60.0)), camera, 2, 0.3)
    grey = picture.mean(axis=-1)
    u, v, _ = camera.project(np.array([40.0]), np.array([30.0]), np.array([20.0]))  # roof's front edge
    above, below = grey[int(v[0]) - 4, int(u[0])], grey[int(v[0]) + 4, int(u[0])]
    assert above > 1.15 * below  # roof lies flatter to this sun than the front wall
    assert np.isnan(grey[0]).all()  # beyond the scene


def test_downsampling_keeps_level_and_marks_what_was_not_seen() -> None:
    fine = np.full((24, 30, 3), 0.4, np.float32)
    fine[:, :7] = np.nan
    out = sensor.downsample(fine, 8, 10, 0.5, 3)
    assert np.isnan(out[:, :3]).all()
    np.testing.assert_allclose(out[:, 3:], 0.4, rtol=1e-6)


def test_blur_spreads_light_and_loses_none() -> None:
    fine = np.zeros((60, 60, 3), np.float32)
    fine[30, 30] = 4.0
    out = sensor.downsample(fine, 30, 30, 0.6, 2)
    assert out[..., 0].sum() == pytest.approx(1.0, rel=1e-3)
    assert 0.05 < out[..., 0].max() < 0.5


def test_digital_numbers() -> None:
    radiance = np.full((200, 200, 3), 0.5, np.float32)
    radiance[0, 0] = np.nan
    radiance[1, 1] = 99.0
    radiance[2, 2] = -5.0
    dn = sensor.digitise(radiance, 1.1, 30.0, 3.0, np.random.default_rng(0))
    assert dn[0, 0].max() == 0
    assert dn[1, 1].min() == sensor.DN_MAX
    assert dn[2, 2].max() == 1
    flat = dn[10:].astype(float)
    assert flat.mean() == pytest.approx(0.5 * 1500 * 1.1 + 30, abs=0.3)
    assert 3.0 < flat.std() < 7.0
    grey = sensor.to_grey(radiance)
    assert grey[5, 5, 0] == 125
    assert grey[0, 0].max() == 0


def test_every_surface_has_fine_texture(scene: Scene) -> None:
    """Dense matching needs something to hold on to: contrast at about a metre nearly everywhere."""
    shaded = prepare(scene, 7)
    grid = CellGrid.covering(Box(315420, 4161580, 315580, 4161740), 0.5)
    picture = plan_radiance(shaded, sun_map(scene, Sun(140.0, 60.0)), grid, 2, 0.4).mean(axis=-1)
    blocks = picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8].reshape(-1, 8, picture.shape[1] // 8, 8)
    contrast = blocks.std(axis=(1, 3)) / blocks.mean(axis=(1, 3))
    assert np.percentile(contrast, 5) > 0.02
    assert np.median(contrast) > 0.05
    assert 0.15 < picture.mean() < 0.7


def test_handed_out_terrain_is_about_right(scene: Scene) -> None:
    grid = CellGrid.covering(Box(315410, 4161570, 315590, 4161750), 5.0)
    out = coarse_terrain(scene, grid, 0.3, 7)
    x, y = np.meshgrid(grid.x_centres - 315400, grid.y_centres - 4161560)
    error = out - (scene.ground(x, y) + 550.0)
    assert 0.15 < error.std() < 0.5
    assert abs(error.mean()) < 0.15


def test_sampling_between_pixel_centres() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1) * np.ones(3, np.float32)
    out = sample_bilinear(image, np.array([0.5, 1.0, 3.6]), np.array([0.5, 1.5, 1.0]))
    assert out[0, 0] == 0.0
    assert out[1, 0] == pytest.approx(4.5)
    assert np.isnan(out[2, 0])
