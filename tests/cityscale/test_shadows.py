from __future__ import annotations

import numpy as np
import pytest

from cityweave.cityscale.shadows import LEAST_M, Sun, shadow_factors

SIDE, GSD = 320, 1.0
TOWERS = [(60, 60, 45.0), (60, 230, 100.0), (180, 150, 70.0), (260, 60, 30.0), (250, 250, 85.0)]  # row, column, height
SAID = [0.7, 0.75, 1.4, 1.0, 1.25]  # times the truth
SUN = Sun(150.0, 50.0)


def city(times: list[float]) -> np.ndarray:
    heights = np.zeros((SIDE, SIDE), np.float32)
    for (row, col, height), factor in zip(TOWERS, times, strict=True):
        heights[row : row + 18, col : col + 18] = height * factor
    return heights


def in_shadow(heights: np.ndarray, sun: Sun, ground: np.ndarray | float = 0) -> np.ndarray:
    """By the angle of the sun: whether something on the way to it stands higher than the line of sight."""
    heights = heights + ground
    rows, cols = np.mgrid[:SIDE, :SIDE]
    north, east = np.cos(np.radians(sun.azimuth_deg)), np.sin(np.radians(sun.azimuth_deg))
    dark = np.zeros(heights.shape, bool)
    for away in np.arange(0.5, 200, 0.5):
        r, c = np.round(rows - north * away).astype(int), np.round(cols + east * away).astype(int)
        inside = (r >= 0) & (r < SIDE) & (c >= 0) & (c < SIDE)
        other = np.where(inside, heights[r.clip(0, SIDE - 1), c.clip(0, SIDE - 1)], 0)
        dark |= other > heights + away * np.tan(np.radians(sun.elevation_deg))
    return dark


def picture(dark: np.ndarray, seed: int = 0) -> np.ndarray:
    """Ground of varying brightness, and shadows on it."""
    rng = np.random.default_rng(seed)
    light = np.where(dark, -0.7, 0.0) + np.kron(rng.normal(0, 0.15, (40, 40)), np.ones((8, 8)))
    return np.repeat((light + rng.normal(0, 0.05, dark.shape))[None], 3, axis=0).astype(np.float32)


@pytest.mark.parametrize("sun", [SUN, Sun(230.0, 35.0), Sun(20.0, 55.0)])
def test_towers_get_as_high_as_their_shadows_are_long(sun: Sun) -> None:
    said = city(SAID)
    factors = shadow_factors(said, picture(in_shadow(city([1] * 5), sun)), np.ones(said.shape, bool), sun, GSD)
    assert factors is not None
    seen = 0
    for row, col, height in TOWERS:
        down, right = (along * height for along in sun.shift(GSD))
        if -row < down < SIDE - row - 18 and -col < right < SIDE - col - 18:  # the shadow ends in the picture
            inside = (slice(row + 2, row + 16), slice(col + 2, col + 16))
            assert np.allclose(said[inside] * factors[inside], height, rtol=0.06)
            seen += 1
    assert seen >= 3 and (factors[said == 0] == 1).all()


def test_down_a_slope_a_shadow_is_longer() -> None:
    said, (_, east) = city(SAID), np.mgrid[:SIDE, :SIDE]
    ground = (0.12 * east).astype(np.float32)
    light, everywhere = picture(in_shadow(city([1] * 5), SUN, ground)), np.ones(said.shape, bool)
    errors = []
    for told in (ground, None):
        factors = shadow_factors(said, light, everywhere, SUN, GSD, told)
        assert factors is not None
        errors.append(
            np.mean([abs(said[r + 9, c + 9] * factors[r + 9, c + 9] / height - 1) for r, c, height in TOWERS])
        )
    assert errors[0] < 0.06 < errors[1]


def test_finer_cells_say_the_same() -> None:
    said, light = city(SAID), picture(in_shadow(city([1] * 5), SUN))
    factors = shadow_factors(said, light, np.ones(said.shape, bool), SUN, GSD)
    finer = [np.kron(layer, np.ones((2, 2), np.float32)) for layer in (said, light[0])]
    again = shadow_factors(finer[0], np.repeat(finer[1][None], 3, axis=0), np.ones(finer[0].shape, bool), SUN, GSD / 2)
    assert factors is not None and again is not None
    assert np.array_equal(again, np.kron(factors, np.ones((2, 2))))


def test_without_its_shadows_a_picture_tells_nothing() -> None:
    """A clouded day, a sun that stood elsewhere, and a city where nothing is high enough."""
    said, everywhere = city(SAID), np.ones((SIDE, SIDE), bool)
    clouded, shown = picture(~everywhere), picture(in_shadow(city([1] * 5), SUN))
    assert shadow_factors(said, shown, everywhere, SUN, GSD) is not None
    assert shadow_factors(said, clouded, everywhere, SUN, GSD) is None
    assert shadow_factors(said, shown, everywhere, Sun(330.0, 50.0), GSD) is None
    low = city([0.9 * LEAST_M / height for _, _, height in TOWERS])
    assert shadow_factors(low, shown, everywhere, SUN, GSD) is None


def test_what_is_not_known_says_nothing() -> None:
    """Where a picture ends it is no sunlit ground."""
    said, known = city(SAID), np.ones((SIDE, SIDE), bool)
    known[:60, 150:] = False  # where the second tower's shadow lies
    light = picture(in_shadow(city([1] * 5), SUN))
    light[:, ~known] = 0.9
    factors = shadow_factors(said, light, known, SUN, GSD)
    assert factors is not None
    (row, col, _), (row2, col2, height2) = TOWERS[1], TOWERS[2]
    assert abs(factors[row + 9, col + 9] - 1) < 0.12
    assert np.isclose(said[row2 + 9, col2 + 9] * factors[row2 + 9, col2 + 9], height2, rtol=0.08)
