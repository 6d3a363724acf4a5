"""A lattice of the whole plane: sums around its nodes, and what they say in between, the same whichever tile asks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cityweave.grid import CellGrid

REACH = 1.5  # of a node, in spacings


@dataclass(frozen=True)
class Nodes:
    """Those whose cells a grid holds or touches. Values at them are arrays with rows from the north."""

    x: np.ndarray  # rising
    y: np.ndarray  # falling
    spacing_m: float

    @staticmethod
    def of(grid: CellGrid, spacing_m: float) -> Nodes:
        box = grid.box
        x = np.arange(math.floor(box.xmin / spacing_m), math.ceil(box.xmax / spacing_m) + 1) * spacing_m
        y = np.arange(math.floor(box.ymin / spacing_m), math.ceil(box.ymax / spacing_m) + 1) * spacing_m
        return Nodes(x, y[::-1], spacing_m)

    def sums(self, values: np.ndarray, grid: CellGrid) -> np.ndarray:
        """Around every node, what is near counting most."""
        across, down = self._tents(grid, REACH * self.spacing_m)
        out: np.ndarray = down @ values @ across.T
        return out

    def between(self, values: np.ndarray, grid: CellGrid) -> np.ndarray:
        across, down = self._tents(grid, self.spacing_m)
        out: np.ndarray = down.T @ values @ across
        return out

    def _tents(self, grid: CellGrid, reach_m: float) -> tuple[np.ndarray, np.ndarray]:
        return _tents(grid.x_centres, self.x, reach_m), _tents(grid.y_centres, self.y, reach_m)


def _tents(centres: np.ndarray, nodes: np.ndarray, reach_m: float) -> np.ndarray:
    weights: np.ndarray = np.maximum(1 - np.abs(centres[None] - nodes[:, None]) / reach_m, 0)
    return weights
