"""Texels from views' pixels, on a flat field of which all is known: pictures are made from a raster ten times finer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cityweave.texture import sharpen as module
from cityweave.texture.sharpen import SharpenSettings, ViewPixels, sharpen

TEXEL_M, PIXEL_M, FINE_M, SIDE_M, BLUR_PX = 0.25, 0.5, 0.05, 24.0, 0.4
TEXELS = round(SIDE_M / TEXEL_M)
SHIFTS_PX = [(0.0, 0.0), (0.3, 0.6), (0.5, 0.2), (0.7, 0.8), (0.15, 0.45), (0.85, 0.35)]
INNER = (slice(8, -8), slice(8, -8))


def field() -> np.ndarray:
    """Fine raster (rows, cols, 3) of 0..255: stripes half a metre wide, spots, a slow slope."""
    fine = round(SIDE_M / FINE_M)
    y, x = (np.indices((fine, fine)) + 0.5) * FINE_M
    spots = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((fine, fine)), 5)
    stripes = ((x + 0.5 * y) / 0.5 % 2 < 1) * 60.0
    grey = 70 + stripes + 20 * spots / spots.std() + 2 * y
    return np.clip(np.stack([grey, 0.8 * grey + 10, 255 - grey], axis=2), 0, 255)


def true_texels(fine: np.ndarray) -> np.ndarray:
    k = round(TEXEL_M / FINE_M)
    return fine.reshape(TEXELS, k, TEXELS, k, 3).mean(axis=(1, 3)).reshape(-1, 3)


def taken(fine: np.ndarray, shift_px: tuple[float, float], noise: float = 0.5) -> ViewPixels:
    """A view straight down whose pixels begin `shift_px` before the field."""
    k = round(PIXEL_M / FINE_M)
    blurred = ndimage.gaussian_filter(fine, (BLUR_PX * k, BLUR_PX * k, 0), mode="nearest")
    before = [round(shift * k) for shift in shift_px]
    rows = cols = round(SIDE_M / PIXEL_M) + 1
    whole = np.pad(blurred, ((before[1], rows * k), (before[0], cols * k), (0, 0)), mode="edge")[: rows * k, : cols * k]
    picture = whole.reshape(rows, k, cols, k, 3).mean(axis=(1, 3))
    picture += noise * np.random.default_rng([7, *before]).standard_normal(picture.shape)
    row, col = np.divmod(np.arange(TEXELS**2), TEXELS)
    x, y = (
        ((place + 0.5) * TEXEL_M / PIXEL_M + before[axis] / k - 0.5 + 2).astype(np.float32)
        for axis, place in enumerate((col, row))
    )
    pad = ((2, 2), (2, 2))
    area = np.full(TEXELS**2, (TEXEL_M / PIXEL_M) ** 2, np.float32)
    return ViewPixels(
        np.arange(TEXELS**2, dtype=np.int32), x, y, area, module.shares(BLUR_PX, TEXEL_M / PIXEL_M),
        np.pad(picture, (*pad, (0, 0)), mode="edge").astype(np.float32), np.pad(np.ones((rows, cols), np.float32), pad),
    )  # fmt: skip


def fused(views: list[ViewPixels]) -> np.ndarray:
    """What the bake would start from: the mean of bilinear looks."""
    looks = [
        [ndimage.map_coordinates(view.picture[:, :, band], [view.y, view.x], order=1) for band in range(3)]
        for view in views
    ]
    return np.mean(looks, axis=0).T.astype(np.float32)


def rms(ours: np.ndarray, true: np.ndarray) -> float:
    apart = (ours - true).reshape(TEXELS, TEXELS, 3)[INNER]
    return float(np.sqrt((apart**2).mean()))


@pytest.fixture(scope="module")
def fine() -> np.ndarray:
    return field()


@pytest.fixture(scope="module")
def views(fine: np.ndarray) -> list[ViewPixels]:
    return [taken(fine, shift) for shift in SHIFTS_PX]


def test_gathering_is_the_transpose_of_showing(views: list[ViewPixels]) -> None:
    draw = np.random.default_rng(1)
    view = views[1]
    texels = draw.standard_normal((TEXELS**2, 3)).astype(np.float32)
    pixels = draw.standard_normal((*view.quality.shape, 4)).astype(np.float32)
    shown, cover = view.shown(texels)
    back = np.zeros((TEXELS**2, 4), np.float32)
    view.gathered(pixels, back)
    there = float((shown * cover[:, :, None] * pixels[:, :, :3]).sum(dtype=np.float64))
    assert there == pytest.approx(float((texels * back[:, :3]).sum(dtype=np.float64)), rel=1e-3)
    assert cover[6:-6, 6:-6] == pytest.approx(1.0, abs=0.05)


def test_a_view_shows_what_was_taken(fine: np.ndarray, views: list[ViewPixels]) -> None:
    """The weights agree with pictures made from the fine raster: a tenth of the contrast at most is rounding."""
    for view in views:
        shown, cover = view.shown(true_texels(fine).astype(np.float32))
        apart = (shown - view.picture)[6:-6, 6:-6]
        assert np.sqrt((apart**2).mean()) < 3
        assert (cover[6:-6, 6:-6] > 0.9).all()


def test_views_together_know_more_than_each(fine: np.ndarray, views: list[ViewPixels]) -> None:
    true, start = true_texels(fine), fused(views)
    sharp = sharpen(start, views, SharpenSettings(8, BLUR_PX, prior=0.02))
    assert rms(sharp, true) < 0.45 * rms(start, true)
    few = sharpen(fused(views[:1]), views[:1], SharpenSettings(8, BLUR_PX, prior=0.02))
    assert rms(sharp, true) < 0.7 * rms(few, true)


def test_what_stands_in_one_view_only_is_not_painted(fine: np.ndarray, views: list[ViewPixels]) -> None:
    picture = views[2].picture.copy()
    picture[20:26, 20:30] = 250  # a white lorry
    start = fused(views)
    plain = sharpen(start, views, SharpenSettings())
    with_lorry = sharpen(start, [*views[:2], replace(views[2], picture=picture), *views[3:]], SharpenSettings())
    assert np.abs(with_lorry - plain).max() < 0.1 * np.abs(picture - views[2].picture).max()


def test_unseen_texels_and_no_steps_change_nothing(views: list[ViewPixels]) -> None:
    start = fused(views)
    half = np.arange(TEXELS**2) < TEXELS**2 // 2
    blind = [
        replace(view, **{name: getattr(view, name)[half] for name in ("index", "x", "y", "area")}) for view in views
    ]
    assert (sharpen(start, blind, SharpenSettings())[~half] == start[~half]).all()
    assert (sharpen(start, views, SharpenSettings(steps=0)) == start).all()
    assert (sharpen(start, [], SharpenSettings()) == start).all()


def test_white_everywhere_stays_white(views: list[ViewPixels]) -> None:
    """A saturated picture has no variance to weigh errors by."""
    white = [replace(view, picture=np.full_like(view.picture, 255)) for view in views]
    found = sharpen(np.full((TEXELS**2, 3), 255, np.float32), white, SharpenSettings())
    assert np.isfinite(found).all() and np.abs(found - 255).max() < 0.01
