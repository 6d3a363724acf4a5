from __future__ import annotations

import numpy as np
import pytest

from cityweave.geometry.blend import FittedDivision, gather, trapezoid
from cityweave.geometry.field import Lattice

HALF, HALO, RAMP = 16, 12, 4


def division(i: int, j: int, noise_m: float = 1.0, pitch_m: float = 1.0) -> FittedDivision:
    """Division (i, j) of a plane, with an error of its own at every node."""
    rng = np.random.default_rng([i + 100, j + 100])
    side = HALF + 2 * HALO
    i0, j0 = i * HALF, j * HALF
    x = np.arange(side)
    plane = 0.1 * (i0 - HALO + x)[None, :] + 0.2 * (j0 - HALO + x)[:, None]
    h = (plane + rng.normal(0, noise_m, plane.shape)).astype(np.float32)
    return FittedDivision(Lattice(h, i0 - HALO, j0 - HALO, pitch_m), i0, j0, i0 + HALF, j0 + HALF)


def test_trapezoids_of_two_that_meet_sum_to_a_constant():
    index = np.arange(-20, 60)
    total = sum(trapezoid(index, k * HALF, (k + 1) * HALF, RAMP) for k in range(-3, 6))
    assert set(total.tolist()) == {4 * RAMP}
    own = trapezoid(index, 0, HALF, RAMP)
    assert own[index == RAMP] == 4 * RAMP
    assert own[index == -RAMP - 1] == 0


def test_both_sides_of_a_border_compute_the_same_bits():
    """Two tiles of 2 x 2 divisions gather what each knows; where both look, they agree to the bit."""

    def view(tile_i: int) -> Lattice:
        known = [division(i, j) for j in range(-2, 4) for i in range(2 * tile_i - 2, 2 * tile_i + 4)]
        np.random.default_rng(tile_i).shuffle(known)
        return gather(known, tile_i * 2 * HALF - 10, -10, 2 * HALF + 20, 2 * HALF + 20, RAMP)

    west, east = view(0), view(1)
    shared = slice(2 * HALF, 2 * HALF + 20)
    assert west.h[:, shared].tobytes() == east.h[:, :20].tobytes()
    assert np.isfinite(west.h).all()


def test_where_divisions_agree_the_blend_changes_nothing():
    lattice = gather([division(i, j, 0.0) for j in range(3) for i in range(3)], 4, 4, 40, 40, RAMP)
    x = np.arange(4, 44)
    assert np.abs(lattice.h - (0.1 * x[None, :] + 0.2 * x[:, None])).max() < 1e-5


def test_absent_divisions_leave_their_neighbours_halo_and_then_nothing():
    lattice = gather([division(0, 0)], -10, 0, 40, 16, RAMP)
    known = np.isfinite(lattice.h).all(axis=0)
    assert np.flatnonzero(known).tolist() == list(range(10 - RAMP, 10 + HALF + RAMP))


def test_different_pitches_are_refused():
    with pytest.raises(ValueError, match="pitches"):
        gather([division(0, 0), division(1, 0, pitch_m=2.0)], 0, 0, 8, 8, RAMP)
