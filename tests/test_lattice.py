"""The lattice of windows: every place has one owner, and everything is covered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cityweave.grid import Box, Tile
from cityweave.io.predictions import Prediction, read_predictions, write_predictions
from cityweave.lattice import Window, counting, fade, owned, owner, windows_over

SIZE_PX, GSD_M, HALO_M = 64, 0.5, 12.0


def city(shift_m: int = 0) -> set[Tile]:
    """An L of tiles, west and east of the origin."""
    return {Tile(i, j, 48, shift_m) for i in range(-2, 2) for j in range(3) if not (i == 1 and j == 2)}


@given(st.sampled_from([0, 8, 24]))
def test_every_window_that_is_needed_has_one_owner_and_is_found_by_all(shift_m: int) -> None:
    tiles = city(shift_m)
    of = {tile: owned(tile, tiles, SIZE_PX, GSD_M, HALO_M) for tile in tiles}
    every = [window for windows in of.values() for window in windows]
    assert len(every) == len(set(every))
    for tile in tiles:
        needed = set(windows_over(tile.core.grow(HALO_M), SIZE_PX, GSD_M))
        assert needed <= set(every)


def test_the_owner_holds_the_lower_left_corner_or_is_the_first_that_needs_it() -> None:
    tiles = city()
    inside = Window(0, 2, SIZE_PX, GSD_M)
    assert owner(inside, tiles, 48, 0, HALO_M) == Tile(0, 0, 48)
    beyond = Window(-7, 0, SIZE_PX, GSD_M)  # begins west of the city, reaches into it
    assert owner(beyond, tiles, 48, 0, HALO_M) == Tile(-2, 0, 48)
    assert owner(Window(50, 50, SIZE_PX, GSD_M), tiles, 48, 0, HALO_M) is None


@given(st.integers(-2000, 2000), st.integers(-2000, 2000), st.integers(1, 360), st.integers(1, 360))
def test_windows_over_a_box_are_those_that_touch_it(west: int, south: int, width: int, height: int) -> None:
    x, y = west / 4, south / 4
    box = Box(x, y, x + width / 4, y + height / 4)
    found = set(windows_over(box, SIZE_PX, GSD_M))
    i0, j0 = int(x // 16), int(y // 16)
    near = {Window(i, j, SIZE_PX, GSD_M) for i in range(i0 - 4, i0 + 9) for j in range(j0 - 4, j0 + 9)}
    assert found == {window for window in near if window.grid.box.intersects(box)}


def test_overlapping_windows_weigh_1_together() -> None:
    half = SIZE_PX // 2
    weight = fade(SIZE_PX)
    together = weight[:half, :half] + weight[half:, :half] + weight[:half, half:] + weight[half:, half:]
    assert np.allclose(together, 1)


def test_noise_is_the_windows_own() -> None:
    here, there = Window(-3, 5, SIZE_PX, GSD_M), Window(-3, 6, SIZE_PX, GSD_M)
    assert (here.noise(1, 0, (2, 3)) == here.noise(1, 0, (2, 3))).all()
    others = (there.noise(1, 0, (2, 3)), here.noise(2, 0, (2, 3)), here.noise(1, 1, (2, 3)))
    assert all((here.noise(1, 0, (2, 3)) != other).all() for other in others)


def test_predictions_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = rng.uniform(0, 9, (2, 2, SIZE_PX, SIZE_PX)).astype(np.float32)
    layers[0, 0, :5] = np.nan
    made = [Prediction(Window(k, -k, SIZE_PX, GSD_M), *layers[k]) for k in range(2)]
    write_predictions(tmp_path / "w.zarr", made)
    for before, after in zip(made, read_predictions(tmp_path / "w.zarr"), strict=True):
        assert before.window == after.window
        assert np.array_equal(before.metres, after.metres, equal_nan=True)
        assert np.array_equal(before.sigma, after.sigma)
    write_predictions(tmp_path / "none.zarr", [])
    assert read_predictions(tmp_path / "none.zarr") == []


def test_a_window_that_is_known_in_part_gives_way_to_whole_ones() -> None:
    whole, half = np.ones((64, 64), bool), np.zeros((64, 64), bool)
    half[:, 32:] = True
    assert (counting(whole) == fade(64)).all()
    assert (counting(half)[:, :32] == 0).all() and (counting(half)[:, 32:] < 0.005 * fade(64)[:, 32:]).all()
    assert (counting(half)[:, 32:] > 0).all()
