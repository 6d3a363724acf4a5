"""Windows on a lattice of the whole plane: each has one owner, and every tile finds those that show its ground."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cityweave.grid import Box, CellGrid, Tile

if TYPE_CHECKING:
    import numpy as np

CODE_WINDOW = 301
_SHIFT = 2**31  # places may be negative, seeds may not
_WHOLE_COUNTS = 8  # power of the share of a window that is known


@dataclass(frozen=True, order=True)
class Window:
    """Place (i, j) of the lattice: half a window from one to the next, counted from the origin of the CRS."""

    i: int
    j: int
    size_px: int
    gsd_m: float

    @property
    def name(self) -> str:
        return f"{self.i},{self.j}"

    @property
    def grid(self) -> CellGrid:
        half = self.size_px // 2
        return CellGrid(self.i * half, self.j * half, self.size_px, self.size_px, self.gsd_m)

    def noise(self, seed: int, sample: int, shape: tuple[int, ...]) -> np.ndarray:
        """What its prediction starts from: its own, whichever tile asks."""
        import numpy as np

        rng = np.random.default_rng([seed, CODE_WINDOW, self.i + _SHIFT, self.j + _SHIFT, sample])
        return rng.standard_normal(shape, dtype=np.float32)


def windows_over(box: Box, size_px: int, gsd_m: float) -> Iterator[Window]:
    """All that share ground with a box, row by row from the south-west."""
    half_m, size_m = size_px // 2 * gsd_m, size_px * gsd_m
    for j in range(math.floor((box.ymin - size_m) / half_m) + 1, math.ceil(box.ymax / half_m)):
        for i in range(math.floor((box.xmin - size_m) / half_m) + 1, math.ceil(box.xmax / half_m)):
            yield Window(i, j, size_px, gsd_m)


def owner(window: Window, tiles: Collection[Tile], size_m: int, shift_m: int, halo_m: float) -> Tile | None:
    """The tile that holds the window's lower-left corner; beyond the city's rim the first tile that needs it."""
    box = window.grid.box
    holds = Tile(math.floor((box.xmin - shift_m) / size_m), math.floor((box.ymin - shift_m) / size_m), size_m, shift_m)
    if holds in tiles:
        return holds
    reach = math.ceil((window.size_px * window.gsd_m + halo_m) / size_m)
    return min((t for t in holds.ring(reach) if t in tiles and t.core.grow(halo_m).intersects(box)), default=None)


def owned(tile: Tile, tiles: Collection[Tile], size_px: int, gsd_m: float, halo_m: float) -> list[Window]:
    """What a tile predicts, for itself and for its neighbours."""
    around = windows_over(tile.core.grow(halo_m), size_px, gsd_m)
    return [w for w in around if owner(w, tiles, tile.size_m, tile.shift_m, halo_m) == tile]


def fade(size_px: int) -> np.ndarray:
    """[y, x] how much a window counts: most in its middle, least at its rim, with its neighbours 1 everywhere."""
    import numpy as np

    side = np.minimum(np.arange(size_px) + 0.5, size_px - np.arange(size_px) - 0.5) / (size_px / 2)
    weight: np.ndarray = np.outer(side, side).astype(np.float32)
    return weight


def counting(known: np.ndarray) -> np.ndarray:
    """[y, x] how much each cell of a window counts beside the same cell of others: as it fades, nothing where it isn't
    known, and hardly anything if much of the window isn't, since a network errs where it doesn't see what is around."""
    weight: np.ndarray = fade(len(known)) * known * float(known.mean() ** _WHOLE_COUNTS)
    return weight
