from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.errors import ConfigError
from cityweave.grid import DIVISIONS, Box, CellGrid, Tile, blocks, parse_tile, rings_for, tiles_covering

indices = st.integers(-40_000, 40_000)
sizes = st.sampled_from([64, 128, 250, 512, 1024])
quick = settings(max_examples=60, deadline=None)
metres = st.floats(-1e6, 1e6, allow_nan=False)
gsds = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 8.0])


def holds(box: Box, x: float, y: float) -> bool:
    return box.xmin <= x < box.xmax and box.ymin <= y < box.ymax


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(metres), draw(metres)
    return Box(x, y, x + draw(st.floats(1, 3000)), y + draw(st.floats(1, 3000)))


@quick
@given(boxes(), sizes, st.integers(0, 200), st.floats(0, 0.999), st.floats(0, 0.999))
def test_cores_partition_the_city(box: Box, size: int, shift: int, fx: float, fy: float) -> None:
    tiles = tiles_covering(box, size, shift)
    x, y = box.xmin + fx * box.width, box.ymin + fy * box.height
    assert sum(holds(tile.core, x, y) for tile in tiles) == 1
    assert all(tile.core.intersects(box) for tile in tiles)
    assert tiles == sorted(tiles, key=lambda tile: (tile.j, tile.i))


@quick
@given(indices, indices, sizes, st.floats(0, 0.999), st.floats(0, 0.999))
def test_divisions_partition_a_core(i: int, j: int, size: int, fx: float, fy: float) -> None:
    tile = Tile(i, j, size)
    x, y = tile.core.xmin + fx * size, tile.core.ymin + fy * size
    assert sum(holds(tile.division(d), x, y) for d in DIVISIONS) == 1
    assert tile.division(0).xmin == tile.core.xmin
    assert tile.division(3).as_tuple()[2:] == tile.core.as_tuple()[2:]


@quick
@given(indices, indices, sizes, st.integers(0, 600))
def test_a_name_says_which_tile(i: int, j: int, size: int, shift: int) -> None:
    tile = Tile(i, j, size, shift % size)
    assert parse_tile(tile.name, size, shift % size) == tile


@pytest.mark.parametrize("name", ["E100_N0", "E512N512", "", "E512_X0", "E-512_N0", "e512_n0"])
def test_other_names_are_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match="E1024_N1536"):
        parse_tile(name, 512)


def test_a_city_that_grows_renames_nothing() -> None:
    small = {tile.name for tile in tiles_covering(Box(315392, 4161536, 315904, 4162048), 256)}
    large = {tile.name for tile in tiles_covering(Box(315000, 4161000, 317000, 4163000), 256)}
    assert small < large


@quick
@given(indices, indices, st.integers(0, 3))
def test_a_ring_holds_all_within_reach(i: int, j: int, rings: int) -> None:
    tile = Tile(i, j, 64)
    ring = tile.ring(rings)
    assert len(ring) == len(set(ring)) == (2 * rings + 1) ** 2
    assert {t.name for t in tiles_covering(tile.core.grow(rings * 64), 64)} == {t.name for t in ring}


@quick
@given(st.floats(0, 2000, allow_subnormal=False), sizes)
def test_rings_reach_far_enough(reach_m: float, size: int) -> None:
    assert rings_for(reach_m, size) * size >= reach_m


@quick
@given(boxes(), gsds)
def test_cells_cover_a_box_and_no_more(box: Box, gsd_m: float) -> None:
    grid = CellGrid.covering(box, gsd_m)
    slack = 2e-6 * gsd_m + 1e-9
    assert grid.box.grow(slack).contains(box)
    assert grid.box.xmin > box.xmin - gsd_m and grid.box.ymax < box.ymax + gsd_m
    assert len(grid.x_centres) == grid.cols and len(grid.y_centres) == grid.rows


@quick
@given(indices, indices, gsds)
def test_a_box_on_the_grid_gains_no_cell(i: int, j: int, gsd_m: float) -> None:
    core = Tile(i, j, 64).core
    grid = CellGrid.covering(core, gsd_m)
    assert grid.shape == (math.ceil(64 / gsd_m - 1e-6),) * 2 or (64 / gsd_m) % 1 > 1e-6


@quick
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 30), st.integers(1, 30))
def test_a_window_finds_the_same_ground(left: int, south: int, cols: int, rows: int) -> None:
    outer = CellGrid(-10, 100, 100, 90, 0.5)
    inner = CellGrid(-10 + left, 100 + south, cols, rows, 0.5)
    window = outer.window_of(inner)
    assert (outer.x_centres[window[1]] == inner.x_centres).all()
    assert (outer.y_centres[window[0]] == inner.y_centres).all()
    assert outer.overlap(inner) == inner


def test_a_window_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie inside"):
        CellGrid(0, 0, 10, 10, 0.5).window_of(CellGrid(5, 5, 10, 10, 0.5))
    assert CellGrid(0, 0, 10, 10, 0.5).overlap(CellGrid(10, 0, 5, 5, 0.5)) is None


def test_the_transform_puts_the_first_cell_in_the_north_west() -> None:
    grid = CellGrid(2, 4, 10, 6, 0.5)
    assert grid.transform @ (0.5, 0.5) == (grid.x_centres[0], grid.y_centres[0])
    assert grid.transform @ (grid.cols, grid.rows) == (grid.box.xmax, grid.box.ymin)


@quick
@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 128))
def test_blocks_cut_an_array_once(rows: int, cols: int, side: int) -> None:
    count = np.zeros((rows, cols), int)
    for window in blocks((rows, cols), side):
        count[window] += 1
    assert (count == 1).all()


def test_a_box_must_have_ground() -> None:
    with pytest.raises(ConfigError, match="xmin < xmax"):
        Box(1, 0, 1, 5)


def test_a_grid_travels_without_its_centres():
    import pickle

    grid = CellGrid(3, 5, 10_000, 20_000, 0.5)
    assert len(grid.x_centres) == 10_000
    sent = pickle.dumps(grid)
    assert len(sent) < 1000
    assert pickle.loads(sent) == grid
    assert (pickle.loads(sent).y_centres == grid.y_centres).all()
