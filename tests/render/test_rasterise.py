"""The z-buffer against its numpy twin, and what every user of it relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.render.rasterise import NO_FACE, clip_near, rasterise, rasterise_pinhole
from cityweave.render.reference import rasterise_reference

WIDTH, HEIGHT = 37, 29


def random_triangles(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some corners on pixel centres and borders, so that ties and exact edges occur."""
    rng = np.random.default_rng(seed)
    screen = rng.uniform(-12, 50, (3 * count, 2))
    screen[::2] = np.round(screen[::2] * 2) / 2
    return screen, rng.uniform(1, 9, 3 * count), rng.integers(0, 3 * count, (count, 3))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([("smallest", False), ("largest", False), ("smallest", True)]))
def test_same_as_the_numpy_twin(seed: int, how: tuple[str, bool]) -> None:
    screen, depth, faces = random_triangles(seed)
    ours = rasterise(screen, depth, faces, WIDTH, HEIGHT, how[0], how[1])
    twin = rasterise_reference(screen, depth, faces, WIDTH, HEIGHT, how[0], how[1])
    np.testing.assert_array_equal(ours.face, twin.face)
    np.testing.assert_allclose(ours.depth, twin.depth, rtol=1e-6)
    np.testing.assert_allclose(ours.bary, twin.bary, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_a_triangulated_sheet_covers_every_sample_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 9
    x, y = np.meshgrid(np.linspace(-3, WIDTH + 3, n), np.linspace(-3, HEIGHT + 3, n))
    sheet = np.stack([x, y], axis=-1)
    sheet[1:-1, 1:-1] += rng.integers(-2, 3, (n - 2, n - 2, 2)) / 2.0
    corner = np.arange(n * n).reshape(n, n)
    a, b, c, d = (corner[s].ravel() for s in (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, 1:], np.s_[1:, :-1]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    covered = np.zeros((HEIGHT, WIDTH), int)
    for face in faces:
        covered += rasterise(sheet.reshape(-1, 2), np.ones(n * n), face[None], WIDTH, HEIGHT).seen
    assert (covered == 1).all()


def test_sample_is_the_pixel_centre() -> None:
    square = np.array([[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]])
    seen = rasterise(square, np.ones(4), np.array([[0, 1, 2], [0, 2, 3]]), 6, 5).seen
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(seen, expected)


def test_nearest_and_the_tie_rule() -> None:
    corner = np.tile([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]], (3, 1))
    depth = np.repeat([5.0, 3.0, 5.0], 3)
    faces = np.arange(9).reshape(3, 3)
    assert rasterise(corner, depth, faces, 4, 4, "smallest").face[0, 0] == 1
    assert rasterise(corner, depth, faces, 4, 4, "largest").face[0, 0] == 0  # 0 and 2 are equal: the lower number


def test_what_cannot_be_drawn_is_skipped() -> None:
    corner = np.array([[0, 0], [1, 1], [2, 2], [np.nan, 0], [90, 90], [99, 90], [90, 99]], dtype=float)
    faces = np.array([[0, 1, 2], [0, 1, 3], [4, 5, 6], [0, 0, 1]])
    seen = rasterise(corner, np.ones(7), faces, 8, 8)
    assert (seen.face == NO_FACE).all()
    assert np.isnan(seen.depth).all()
    assert rasterise(corner, np.ones(7), np.zeros((0, 3), int), 8, 8).face.max() == NO_FACE


def test_a_triangle_far_larger_than_the_picture() -> None:
    corner = np.array([[-1e7, -1e7], [3e7, -1e7], [-1e7, 3e7]])
    seen = rasterise(corner, np.ones(3), np.array([[0, 2, 1]]), 16, 16)
    assert seen.seen.all()


@pytest.mark.parametrize("bad", [{"width": 0}, {"nearest": "closest"}])
def test_refuses_nonsense(bad: dict) -> None:
    arguments = {"width": 4, "height": 4, "nearest": "smallest"} | bad
    with pytest.raises(ValueError, match="accepted"):
        rasterise(np.zeros((3, 2)), np.zeros(3), np.array([[0, 1, 2]]), **arguments)


def test_perspective_weights_give_points_in_space() -> None:
    """A floor seen at a slant: the interpolated position lies on the pixel's own ray."""
    floor = np.array([[-40.0, 2.0, 3.0], [40.0, 2.0, 3.0], [40.0, 2.0, 90.0], [-40.0, 2.0, 90.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    seen = rasterise_pinhole(floor, faces, 40.0, 32.0, 24.0, 64, 48)
    point = seen.interpolate(faces, floor)
    v, u = np.nonzero(seen.seen)
    p = point[v, u]
    np.testing.assert_allclose(40.0 * p[:, 0] / p[:, 2] + 32.0, u + 0.5, atol=2e-3)
    np.testing.assert_allclose(p[:, 2], seen.depth[v, u], rtol=1e-4)
    assert len(p) > 500


def test_near_plane_cuts_and_keeps_the_given_weights() -> None:
    """A floor that passes under and behind the camera."""
    floor = np.array([[-30.0, 2.0, -50.0], [30.0, 2.0, -50.0], [30.0, 2.0, 50.0], [-30.0, 2.0, 50.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    cut = clip_near(floor, faces, 0.5)
    assert cut.points[cut.faces][..., 2].min() >= 0.5
    seen = rasterise_pinhole(floor, faces, 40.0, 32.0, 24.0, 64, 48, near=0.5)
    assert set(np.unique(seen.face)) == {NO_FACE, 0, 1}
    point = seen.interpolate(faces, floor)
    v, u = np.nonzero(seen.seen)
    p = point[v, u]
    np.testing.assert_allclose(40.0 * p[:, 0] / p[:, 2] + 32.0, u + 0.5, atol=5e-3)
    np.testing.assert_allclose(p[:, 1], 2.0, atol=1e-5)
