"""Do tile borders make heights worse? The same cells, once beside a border and once in the middle of a tile.

Cells near a border are compared with themselves in a second run whose tiles are shifted by half a tile. Borders
against interiors of one run would say little: what stands there differs, and that alone moves the ratio by more
than a twentieth every fifth time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cityweave.grid import Tile

REACH_M = 8.0
BLOCK_M = 32.0  # errors beside each other are alike: the bootstrap draws blocks of this side
_DRAWS = 2000


@dataclass(frozen=True)
class BorderRatio:
    """Mean |error| beside borders over the same cells' without them, and its 95 % interval."""

    ratio: float
    low: float
    high: float
    cells: int
    blocks: int


def near_interior_border(
    tiles: Iterable[Tile], x_centres: NDArray[np.float64], y_centres: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Cells (rows of `y_centres`, columns of `x_centres`) within 8 m of a border between two of the tiles."""
    known = set(tiles)
    out = np.zeros((len(y_centres), len(x_centres)), np.bool_)
    for tile in sorted(known):
        core = tile.core
        if tile.neighbour(1, 0) in known:
            across = np.abs(x_centres - core.xmax) <= REACH_M
            along = (y_centres >= core.ymin) & (y_centres < core.ymax)
            out |= along[:, None] & across[None, :]
        if tile.neighbour(0, 1) in known:
            across = np.abs(y_centres - core.ymax) <= REACH_M
            along = (x_centres >= core.xmin) & (x_centres < core.xmax)
            out |= across[:, None] & along[None, :]
    return out


class BorderErrors:
    """Sums of |error| per block of cells, for the run with the borders and for the shifted one."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], list[float]] = {}
        self.cells = 0

    def add(
        self,
        near: NDArray[np.bool_],
        error: NDArray[np.floating],
        shifted_error: NDArray[np.floating],
        x_centres: NDArray[np.float64],
        y_centres: NDArray[np.float64],
    ) -> None:
        """Only cells with a height in both runs are used."""
        use = near & np.isfinite(error) & np.isfinite(shifted_error)
        rows, cols = np.nonzero(use)
        self.cells += len(rows)
        block_x = np.floor(x_centres[cols] / BLOCK_M).astype(np.int64)
        block_y = np.floor(y_centres[rows] / BLOCK_M).astype(np.int64)
        keys, index = np.unique(np.stack([block_y, block_x], axis=1), axis=0, return_inverse=True)
        index = index.reshape(-1)
        ours = np.bincount(index, weights=np.abs(error[use]).astype(np.float64), minlength=len(keys))
        theirs = np.bincount(index, weights=np.abs(shifted_error[use]).astype(np.float64), minlength=len(keys))
        for key, a, b in zip(keys.tolist(), ours.tolist(), theirs.tolist(), strict=True):
            entry = self._sums.setdefault((key[0], key[1]), [0.0, 0.0])
            entry[0] += a
            entry[1] += b

    def ratio(self, seed: Sequence[int]) -> BorderRatio | None:
        """None when there is nothing to compare."""
        sums = np.array([self._sums[key] for key in sorted(self._sums)]).reshape(-1, 2)
        if not len(sums) or sums[:, 1].sum() == 0:
            return None
        rng = np.random.default_rng(list(seed))
        drawn = np.empty(_DRAWS)
        for k in range(_DRAWS):
            total = sums[rng.integers(0, len(sums), len(sums))].sum(axis=0)
            drawn[k] = total[0] / total[1] if total[1] > 0 else np.inf
        low, high = np.quantile(drawn, [0.025, 0.975])
        total = sums.sum(axis=0)
        return BorderRatio(float(total[0] / total[1]), float(low), float(high), self.cells, len(sums))
