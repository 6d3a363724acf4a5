from __future__ import annotations

import numpy as np

from cityweave.dsm.visibility import horizons


def wall(height: float = 20.0) -> np.ndarray:
    surface = np.zeros((40, 60), np.float32)
    surface[:, 30:34] = height
    return surface


def test_a_wall_hides_the_ground_behind_it_up_to_the_line_of_sight() -> None:
    """A ray that runs 0.5 m east per metre up leaves the ground west of the wall through it."""
    horizon = horizons(wall(), np.full((40, 60), -5.0), 1.0, np.array([[0.5, 0.0]])).reshape(40, 60)
    row = horizon[20]
    for distance in (1, 4, 9):  # cells west of the wall's near side; its far side is 3 further
        assert abs(row[30 - distance] - (20 - 2 * distance)) <= 0.01
    assert row[30 - 14] <= 0
    assert (row[34:] <= -1).all(), "nothing stands east of it"
    assert (horizon[:, 30:33] >= 17.9).all() and (horizon[:, 33] <= 0).all()


def test_the_other_way_and_up_the_raster() -> None:
    bottom = np.full((40, 60), -5.0)
    west = horizons(wall(), bottom, 1.0, np.array([[-0.5, 0.0]])).reshape(40, 60)
    assert abs(west[20, 36] - (20 - 2 * 3)) <= 0.01 and west[20, 25] <= -1
    north = horizons(np.ascontiguousarray(wall().T), bottom.T.copy(), 1.0, np.array([[0.0, 0.5]])).reshape(60, 40)
    assert abs(north[36, 20] - (20 - 2 * 3)) <= 0.01 and north[25, 20] <= -1


def test_straight_down_and_unknown_hide_nothing() -> None:
    bottom = np.full((40, 60), -5.0)
    assert (horizons(wall(), bottom, 1.0, np.array([[0.0, 0.0]])) == -5).all()
    assert (horizons(np.full((40, 60), np.nan), bottom, 1.0, np.array([[0.4, 0.1]])) == -5).all()


def test_skipping_low_blocks_changes_nothing() -> None:
    """Against every step of the march, one by one."""
    draw = np.random.default_rng(4)
    surface = (draw.random((37, 45)) ** 8 * 60).astype(np.float32)
    east, north = 0.37, -0.21
    fast = horizons(surface, np.full(surface.shape, -1.0), 0.5, np.array([[east, north]])).reshape(surface.shape)
    rise = np.float32(0.5 / 0.37)
    for row, col in draw.integers(0, 37, (60, 2)):
        best = -1.0
        for step in range(1, 100):
            y = np.float32(row + 0.5) + np.float32(-north / east) * step
            x = np.float32(col + 0.5) + np.float32(1) * step
            if not (0 <= y < 37 and 0 <= x < 45):
                break
            best = max(best, float(surface[int(y), int(x)] - rise * step))
        assert abs(fast[row, col] - best) < 1e-3
