from __future__ import annotations

import numpy as np
import pytest

from cityweave.cameras import PolyCamera
from cityweave.dsm.views import INVALID_WORD, SweepView, census_stack, luminance, upsample_cubic


def flat_camera() -> PolyCamera:
    coefficients = np.zeros((2, 10))
    coefficients[0, 1] = coefficients[1, 2] = 2.0
    return PolyCamera(coefficients, np.zeros(3), np.ones(3), 0.0)


def view(image: np.ndarray, valid: np.ndarray | None = None) -> SweepView:
    return SweepView("v", image, np.ones(image.shape, bool) if valid is None else valid, flat_camera())


@pytest.mark.parametrize("k", [2, 3, 4])
def test_upsampling_reproduces_a_plane_at_the_sample_centres(k: int) -> None:
    rows, cols = np.mgrid[0:12, 0:15] + 0.5
    fine = upsample_cubic((3 * cols + 2 * rows).astype(np.float32), k)
    r, c = (np.mgrid[0 : 12 * k, 0 : 15 * k] + 0.5) / k
    inner = (slice(2 * k, -2 * k), slice(2 * k, -2 * k))
    assert np.abs(fine - (3 * c + 2 * r))[inner].max() < 1e-4


def test_census_ignores_gain_and_offset() -> None:
    image = np.random.default_rng(1).uniform(0, 1000, (40, 50)).astype(np.float32)
    one = census_stack([view(image)], [2], 2)
    other = census_stack([view(image * 2 + 64)], [2], 2)
    assert (one.words == other.words).mean() > 0.999
    assert (one.words != INVALID_WORD).mean() > 0.5


def test_a_window_with_an_invalid_pixel_has_no_word() -> None:
    valid = np.ones((40, 50), bool)
    valid[20, 25] = False
    words = census_stack([view(np.random.default_rng(2).uniform(0, 9, (40, 50)), valid)], [1], 1).words.reshape(40, 50)
    assert (words[17:24, 21:30] == INVALID_WORD).all()
    assert (words[15, 5:-5] != INVALID_WORD).all()
    assert (words[:3] == INVALID_WORD).all() and (words[:, -4:] == INVALID_WORD).all()


def test_fewer_samples_are_averages() -> None:
    stack = census_stack([view(np.ones((30, 44)))], [1 / 3], 1)
    assert (stack.heights[0], stack.widths[0]) == (10, 14)
    assert np.allclose(stack.coefficients[0] * 3, flat_camera().coefficients)


def test_size_of_a_pixel() -> None:
    assert view(np.ones((4, 4))).pixel_m() == pytest.approx(0.5)


def test_luminance_is_the_mean_of_the_bands() -> None:
    assert luminance(np.array([[[3]], [[6]], [[9]]], np.uint16)).tolist() == [[6.0]]
