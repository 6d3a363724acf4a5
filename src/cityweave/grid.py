"""Where things are: boxes, tiles, divisions and raster cells, all counted from the origin of the city's CRS.

Nothing here depends on the city's extent, so growing a city renames and moves nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cityweave.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from affine import Affine

DIVISIONS = (0, 1, 2, 3)  # SW, SE, NW, NE


@dataclass(frozen=True)
class Box:
    """A half-open rectangle [xmin, xmax) x [ymin, ymax) in metres of the city's CRS."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float

    def __post_init__(self) -> None:
        if not (self.xmin < self.xmax and self.ymin < self.ymax):
            raise ConfigError(f"a box needs xmin < xmax and ymin < ymax, got {self.as_tuple()}")

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.xmin, self.ymin, self.xmax, self.ymax)

    @property
    def width(self) -> float:
        return self.xmax - self.xmin

    @property
    def height(self) -> float:
        return self.ymax - self.ymin

    def grow(self, metres: float) -> Box:
        return Box(self.xmin - metres, self.ymin - metres, self.xmax + metres, self.ymax + metres)

    def intersects(self, other: Box) -> bool:
        return self.xmin < other.xmax and other.xmin < self.xmax and self.ymin < other.ymax and other.ymin < self.ymax

    def contains(self, other: Box) -> bool:
        return (
            self.xmin <= other.xmin and other.xmax <= self.xmax and self.ymin <= other.ymin and other.ymax <= self.ymax
        )

    def intersection(self, other: Box) -> Box | None:
        if not self.intersects(other):
            return None
        return Box(
            max(self.xmin, other.xmin),
            max(self.ymin, other.ymin),
            min(self.xmax, other.xmax),
            min(self.ymax, other.ymax),
        )


@dataclass(frozen=True, order=True)
class Tile:
    """Tile (i, j) is [i T, (i+1) T) x [j T, (j+1) T), moved by `shift_m` in both axes.

    A shift is used by one measurement only: how much an error depends on where the borders run.
    """

    i: int
    j: int
    size_m: int
    shift_m: int = 0

    @property
    def core(self) -> Box:
        x, y = self.i * self.size_m + self.shift_m, self.j * self.size_m + self.shift_m
        return Box(x, y, x + self.size_m, y + self.size_m)

    @property
    def name(self) -> str:
        x, y = int(self.core.xmin), int(self.core.ymin)
        return f"{'E' if x >= 0 else 'W'}{abs(x)}_{'N' if y >= 0 else 'S'}{abs(y)}"

    def division(self, number: int) -> Box:
        """Quarter `number` of the core: 0 SW, 1 SE, 2 NW, 3 NE."""
        if number not in DIVISIONS:
            raise ConfigError(f"a tile has divisions 0 to 3, not {number}")
        half = self.size_m // 2
        x = self.core.xmin + half * (number % 2)
        y = self.core.ymin + half * (number // 2)
        return Box(x, y, x + half, y + half)

    def neighbour(self, di: int, dj: int) -> Tile:
        return replace(self, i=self.i + di, j=self.j + dj)

    def ring(self, rings: int) -> list[Tile]:
        """The tile and everything up to `rings` tiles away, row by row from the south-west."""
        steps = range(-rings, rings + 1)
        return [self.neighbour(di, dj) for dj in steps for di in steps]


_NAME = re.compile(r"([EW])(\d+)_([NS])(\d+)")


def parse_tile(name: str, size_m: int, shift_m: int = 0) -> Tile:
    match = _NAME.fullmatch(name)
    if match:
        x = int(match[2]) * (1 if match[1] == "E" else -1) - shift_m
        y = int(match[4]) * (1 if match[3] == "N" else -1) - shift_m
        if x % size_m == 0 and y % size_m == 0:
            return Tile(x // size_m, y // size_m, size_m, shift_m)
    raise ConfigError(
        f"{name!r} is no tile of a {size_m} m grid; a tile is named by its lower-left corner, "
        f"both numbers multiples of {size_m}{f' plus {shift_m}' if shift_m else ''}, "
        f"such as {Tile(2, 3, size_m, shift_m).name}"
    )


def tiles_covering(box: Box, size_m: int, shift_m: int = 0) -> list[Tile]:
    """Tiles whose core shares ground with the box, row by row from the south-west."""
    i0, i1 = (
        math.floor((box.xmin - shift_m) / size_m),
        math.ceil((box.xmax - shift_m) / size_m),
    )
    j0, j1 = (
        math.floor((box.ymin - shift_m) / size_m),
        math.ceil((box.ymax - shift_m) / size_m),
    )
    return [Tile(i, j, size_m, shift_m) for j in range(j0, j1) for i in range(i0, i1)]


def rings_for(reach_m: float, size_m: int) -> int:
    """How many rings of tiles hold everything within `reach_m` of a tile."""
    return math.ceil(reach_m / size_m)


@dataclass(frozen=True)
class CellGrid:
    """Raster cells by global index. `col0` and `row0` count the west and the south edge; arrays are north-up."""

    col0: int
    row0: int
    cols: int
    rows: int
    gsd_m: float

    @staticmethod
    def covering(box: Box, gsd_m: float) -> CellGrid:
        # A box whose edges are multiples of the GSD must not gain a cell by rounding.
        col0, row0 = math.floor(box.xmin / gsd_m + 1e-6), math.floor(box.ymin / gsd_m + 1e-6)
        col1, row1 = math.ceil(box.xmax / gsd_m - 1e-6), math.ceil(box.ymax / gsd_m - 1e-6)
        return CellGrid(col0, row0, col1 - col0, row1 - row0, gsd_m)

    def __getstate__(self) -> dict[str, Any]:
        """Without the centres: a grid that is sent to another process stays small."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def shape(self) -> tuple[int, int]:
        return (self.rows, self.cols)

    @property
    def box(self) -> Box:
        g = self.gsd_m
        return Box(
            self.col0 * g,
            self.row0 * g,
            (self.col0 + self.cols) * g,
            (self.row0 + self.rows) * g,
        )

    @property
    def transform(self) -> Affine:
        from affine import Affine

        return Affine(
            self.gsd_m,
            0.0,
            self.col0 * self.gsd_m,
            0.0,
            -self.gsd_m,
            (self.row0 + self.rows) * self.gsd_m,
        )

    @cached_property
    def x_centres(self) -> np.ndarray:
        import numpy as np

        return (np.arange(self.col0, self.col0 + self.cols) + 0.5) * self.gsd_m

    @cached_property
    def y_centres(self) -> np.ndarray:
        """Descending, as the rows of a north-up array."""
        import numpy as np

        return (np.arange(self.row0 + self.rows - 1, self.row0 - 1, -1) + 0.5) * self.gsd_m

    def window_of(self, other: CellGrid) -> tuple[slice, slice]:
        """Rows and columns of this grid's array that hold `other`, which must lie inside."""
        top = (self.row0 + self.rows) - (other.row0 + other.rows)
        left = other.col0 - self.col0
        inside = (
            other.gsd_m == self.gsd_m
            and top >= 0
            and left >= 0
            and top + other.rows <= self.rows
            and left + other.cols <= self.cols
        )
        if not inside:
            raise ValueError(f"{other} does not lie inside {self}")
        return slice(top, top + other.rows), slice(left, left + other.cols)

    def overlap(self, other: CellGrid) -> CellGrid | None:
        col0, row0 = max(self.col0, other.col0), max(self.row0, other.row0)
        col1 = min(self.col0 + self.cols, other.col0 + other.cols)
        row1 = min(self.row0 + self.rows, other.row0 + other.rows)
        if other.gsd_m != self.gsd_m or col0 >= col1 or row0 >= row1:
            return None
        return CellGrid(col0, row0, col1 - col0, row1 - row0, self.gsd_m)


def blocks(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    """Cut an array into blocks with fixed borders, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield (
                slice(top, min(top + side, shape[0])),
                slice(left, min(left + side, shape[1])),
            )
