from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.geometry import direct
from cityweave.geometry.field import FieldShape, Lattice, heights, values

READINGS = ("nodes", "centred")


def lattice(h) -> Lattice:
    return Lattice(np.asarray(h, np.float32), 100, 200, 2.0)


def shape(reading: str, softness_m: float = 1.0) -> FieldShape:
    return FieldShape(2.0, softness_m, 2.0, reading)


def node(i: float, j: float) -> tuple[float, float]:
    return (100 + i + 0.5) * 2.0, (200 + j + 0.5) * 2.0


@pytest.mark.parametrize("reading", READINGS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.1, 3.0, 80.0]))
def test_one_root_and_rising_through_it(reading, seed, spread):
    rng = np.random.default_rng(seed)
    grid = lattice(rng.normal(0.0, spread, (12, 12)))
    x, y = node(rng.uniform(2, 9, 50), rng.uniform(2, 9, 50))
    z = heights(grid, shape(reading), x, y)
    levels = np.sort(rng.normal(0.0, 2 * spread, 30))[:, None]
    s = values(grid, shape(reading), x[None], y[None], levels)
    assert np.all(np.diff(s, axis=0) >= 0)
    below, above = values(grid, shape(reading), x, y, z - 1e-3), values(grid, shape(reading), x, y, z + 1e-3)
    assert np.all(below <= 1e-9)
    assert np.all(above >= -1e-9)


@pytest.mark.parametrize("reading", READINGS)
def test_slopes_are_exact_where_vertices_stand(reading):
    i = np.arange(16)
    grid = lattice(0.7 * i[None, :] - 0.4 * i[:, None])
    a, b = np.meshgrid(i[3:13], i[3:13])
    z = heights(grid, shape(reading), *node(a, b))
    assert np.abs(z - (0.7 * a - 0.4 * b)).max() < 1e-5


def test_nodes_have_sharp_walls_and_centred_has_exact_slopes_between_nodes():
    wall = lattice(np.where(np.arange(16) < 8, 0.0, 20.0)[None, :].repeat(16, 0))
    x, y = node(np.linspace(6.0, 9.0, 61), 8.0)
    half_way = {r: np.mean(np.abs(heights(wall, shape(r), x, y) - 10.0) < 8.0) for r in READINGS}
    assert half_way["nodes"] < 0.05 < half_way["centred"]

    slope = lattice(np.arange(16)[None, :].repeat(16, 0) * 0.5)
    q = np.linspace(6.0, 9.0, 61)
    off = {r: np.abs(heights(slope, shape(r), *node(q, 8.0)) - 0.5 * q).max() for r in READINGS}
    assert off["centred"] < 1e-5
    assert off["nodes"] < 0.2


@pytest.mark.parametrize("reading", READINGS)
def test_root_does_not_depend_on_the_window(reading):
    rng = np.random.default_rng(1)
    whole = lattice(rng.normal(0, 10, (40, 40)))
    part = whole.window(110, 212, 20, 20)
    x, y = node(np.array([14.25, 15.5, 20.0]), np.array([18.75, 19.5, 22.25]))
    assert np.array_equal(heights(whole, shape(reading), x, y), heights(part, shape(reading), x, y))


@pytest.mark.parametrize("reading", READINGS)
def test_gradient_of_the_root_matches_central_differences(reading):
    rng = np.random.default_rng(4)
    m, rows, cols, softness = 2, 6, 6, 1.5
    h = rng.normal(0, 1.0, (rows + 4, cols + 4))
    tables, off = direct._phase_tables(m, 2.0, reading == "centred")
    dims = (m * m, rows, cols)
    target = rng.choice([-30.0, 30.0], dims)  # far off, so that |z - target| keeps its sign while h is nudged
    weight = rng.uniform(0.5, 1.0, dims)

    def loss(nodes):
        z = np.zeros(dims)
        grad = np.zeros(nodes.shape)
        for _ in range(40):
            grad[:] = 0.0
            direct._data_step(nodes, z, target, weight, tables, off, softness, reading == "centred", 1e9, grad)
        return (weight * np.abs(z - target)).sum(), grad

    _, grad = loss(h)
    for j, i in ((4, 4), (5, 3), (3, 6)):
        step = 1e-4
        up, down = h.copy(), h.copy()
        up[j, i] += step
        down[j, i] -= step
        assert grad[j, i] == pytest.approx((loss(up)[0] - loss(down)[0]) / (2 * step), rel=2e-3, abs=2e-3)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="positive"):
        FieldShape(1.0, 0.0, 2.0)
    with pytest.raises(ValueError, match="reading"):
        FieldShape(1.0, 1.0, 2.0, "both")
    with pytest.raises(ValueError, match="outside"):
        lattice(np.zeros((4, 4))).window(99, 200, 2, 2)
