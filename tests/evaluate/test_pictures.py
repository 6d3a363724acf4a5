"""PSNR, SSIM, which pixels count, seams, and the renderer of textured tiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cityweave.cameras import Pinhole
from cityweave.evaluate.images import psnr, sharpness, ssim, ssim_map
from cityweave.evaluate.texture import TextureScore, core_mask, seam_step
from cityweave.grid import Box
from cityweave.render.textured import NO_TILE, Frame, MapView, TexturedMesh, render

EVERYWHERE = np.ones((64, 80), np.bool_)


def picture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return gaussian_filter(rng.random((64, 80, 3)), (2, 2, 0)) * 3 % 1


def test_psnr() -> None:
    a = picture()
    assert psnr(a, a, EVERYWHERE) == np.inf
    assert psnr(a, a + 0.1, EVERYWHERE) == pytest.approx(20.0)
    half = EVERYWHERE.copy()
    half[:32] = False
    worse = a.copy()
    worse[:32] = 0
    assert psnr(worse, a + 0.1, half) == pytest.approx(20.0)


def test_ssim_is_that_of_the_paper() -> None:
    """Against the formula with scipy's Gaussian of the same 11 x 11 window."""
    a, b = picture()[..., 0], np.clip(picture()[..., 0] * 0.8 + picture(1)[..., 0] * 0.2, 0, 1)

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, truncate=5 / 1.5, mode="reflect")

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    expected = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    np.testing.assert_allclose(ssim_map(a, b), expected, atol=1e-12)
    assert ssim(picture(), picture(), EVERYWHERE) == pytest.approx(1.0)


def test_sharpness_falls_with_blur_along_either_axis_and_ignores_brightness() -> None:
    noise = np.random.default_rng(3).random((64, 80, 3))
    found = [sharpness(gaussian_filter(noise, (0, sigma, 0)), EVERYWHERE) for sigma in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert found[0] > 0.8 and found[-1] < 0.5 and found == sorted(found, reverse=True)
    assert sharpness(0.5 * noise + 0.2, EVERYWHERE) == pytest.approx(found[0])
    assert sharpness(np.ones((64, 80, 3)), EVERYWHERE) == 0


def plane(west: float, colour: tuple[int, int, int], z: float = 0.0) -> TexturedMesh:
    """32 x 32 m at (west, 0)."""
    points = np.array([[west, 0, z], [west + 32, 0, z], [west + 32, 32, z], [west, 32, z]], float)
    uv = np.array([[[0, 1], [1, 1], [1, 0]], [[0, 1], [1, 0], [0, 0]]], np.float32)
    texture = np.full((64, 64, 3), colour, np.uint8)
    return TexturedMesh(points, np.array([[0, 1, 2], [0, 2, 3]], np.int32), uv, texture, np.full((64, 64), 3, np.uint8))


class TestRender:
    def test_the_nearer_surface_wins_and_the_texture_lies_right(self) -> None:
        below, above = plane(0, (10, 20, 30)), plane(8, (200, 100, 50), 5.0)
        below.colour[:32] = (0, 250, 0)  # north half
        frame = render([below, above], MapView(0, 32, 0.5, 96, 64), 2)
        rgb = frame.averaged()
        assert rgb.shape == (64, 96, 3)
        assert tuple(rgb[10, 5]) == (0, 250, 0) and tuple(rgb[50, 5]) == (10, 20, 30)
        assert tuple(rgb[10, 40]) == (200, 100, 50)
        assert (frame.centre(frame.tile)[:, 81:] == NO_TILE).all()

    def test_a_fine_texture_is_averaged(self) -> None:
        fine = plane(0, (0, 0, 0))
        checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
        fine.colour[:] = checks[..., None]
        rgb = render([fine], MapView(0, 32, 2.0, 16, 16), 1).averaged()
        assert abs(rgb[2:-2, 2:-2].astype(int) - 128).max() <= 2

    def test_pinhole_and_map_agree_straight_down(self) -> None:
        tiles = [plane(0, (250, 0, 0)), plane(32, (0, 0, 250), 10.0)]
        camera = Pinhole.look_at(np.array([32.0, 16.0, 2000.0]), np.array([32.0, 16.0, 0.0]), 2.0, 80, 80)
        rgb = render(tiles, camera, 2).averaged()
        assert tuple(rgb[40, 20]) == (250, 0, 0) and tuple(rgb[40, 60]) == (0, 0, 250)


def test_core_mask_follows_the_true_ray() -> None:
    points = np.array([[-100, -100, 0], [100, -100, 0], [100, 100, 0], [-100, 100, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    camera = Pinhole.look_at(np.array([0.0, 0.0, 100.0]), np.array([0.0, 0.0, 0.0]), 90.0, 100, 100)
    mask = core_mask(camera, points, faces, Box(-50, -26, 50, 26))
    assert mask.sum() == 50 * 26


class TestScore:
    def frame(self, provenance: int) -> Frame:
        rgb = (picture() * 255).astype(np.uint8)
        shape = rgb.shape[:2]
        return Frame(
            rgb,
            np.zeros(shape, np.float32),
            np.zeros(rgb.shape, np.float32),
            np.zeros(shape, np.int16),
            np.full(shape, provenance, np.uint8),
            1,
        )

    def test_a_view_that_sees_too_little_is_left_out(self) -> None:
        score, mask = TextureScore(), np.zeros((64, 80), np.bool_)
        mask[:31] = True
        assert not score.add("a", self.frame(3), self.frame(3).rgb, mask)
        figures, reasons = score.figures()
        assert set(figures.values()) == {None} and "none of 1 views" in reasons["psnr"]

    def test_inferred_texels_are_not_observed(self) -> None:
        score = TextureScore()
        assert score.add("a", self.frame(3), self.frame(3).rgb, EVERYWHERE)
        assert score.add("b", self.frame(254), self.frame(3).rgb, EVERYWHERE)
        assert score.figures()[0]["observed_share"] == 0.5


def plan(step: int) -> Frame:
    """Two tiles of noise, the right one brighter by `step`."""
    rng = np.random.default_rng(2)
    tile = np.zeros((200, 200), np.int16)
    tile[:, 100:] = 1
    rgb = (rng.integers(90, 110, (200, 200, 3)) + step * tile[..., None]).astype(np.uint8)
    empty = np.zeros((200, 200), np.uint8)
    return Frame(rgb, empty.astype(np.float32), np.zeros((200, 200, 3), np.float32), tile, empty, 1)


def test_seam_step() -> None:
    assert seam_step(plan(0)) == pytest.approx(1.0, abs=0.1)
    seen = seam_step(plan(60))
    assert seen is not None and seen > 5
    one = plan(0)
    one.tile[:] = 0
    assert seam_step(one) is None
