"""One lattice out of overlapping divisions, the same to the bit whichever tile computes it.

A node's weight in a division is a trapezoid of whole numbers that depends on its global index alone. Sums run
in float64 in global order of the divisions (south to north, then west to east) and are rounded once to float32.
A division that is absent drops out of the sum; a node that none covers is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cityweave.geometry.field import Lattice


@dataclass(frozen=True)
class FittedDivision:
    """A lattice fitted for the nodes [i0, i1) x [j0, j1), grown by at least the ramp."""

    lattice: Lattice
    i0: int
    j0: int
    i1: int
    j1: int


def trapezoid(index: np.ndarray, first: int, end: int, ramp: int) -> np.ndarray:
    """Weight of a division [first, end) at node indices: 4 ramp inside, falling to 0 over 2 ramp nodes about
    each end. Of two divisions that meet, the weights sum to 4 ramp at every node."""
    rise = 2 * (index - (first - ramp)) + 1
    fall = 2 * ((end + ramp) - index) - 1
    return np.clip(np.minimum(rise, fall), 0, 4 * ramp).astype(np.int64)


def gather(divisions: Iterable[FittedDivision], i0: int, j0: int, cols: int, rows: int, ramp: int) -> Lattice:
    """The blended lattice of the nodes [i0, i0+cols) x [j0, j0+rows); `ramp` is half the blend in nodes."""
    ordered = sorted(divisions, key=lambda d: (d.j0, d.i0))
    total = np.zeros((rows, cols))
    weights = np.zeros((rows, cols), np.int64)
    pitch = ordered[0].lattice.pitch_m if ordered else float("nan")
    for d in ordered:
        if d.lattice.pitch_m != pitch:
            raise ValueError(f"divisions with different pitches, {pitch} and {d.lattice.pitch_m} m, can't be blended")
        left, right = max(i0, d.i0 - ramp), min(i0 + cols, d.i1 + ramp)
        low, high = max(j0, d.j0 - ramp), min(j0 + rows, d.j1 + ramp)
        if left >= right or low >= high:
            continue
        h = d.lattice.window(left, low, right - left, high - low).h
        w = np.outer(
            trapezoid(np.arange(low, high), d.j0, d.j1, ramp), trapezoid(np.arange(left, right), d.i0, d.i1, ramp)
        )
        into = (slice(low - j0, high - j0), slice(left - i0, right - i0))
        total[into] += w * h.astype(np.float64)
        weights[into] += w
    with np.errstate(invalid="ignore", divide="ignore"):
        h = np.where(weights > 0, total / weights, np.nan).astype(np.float32)
    return Lattice(h, i0, j0, pitch)
