"""Are buildings where they are? The share of their true outline that the height model draws within a cell.

The true outline is every border between a building's cell and a neighbour at least 2 m lower. Along the line of cells
through it, the model's edge is where its heights pass the middle between the two. It is within a cell when the model is
above that middle one cell farther inside and below it one cell farther outside. Borders whose true heights don't stay
above and below it that far are left out: they belong to something thinner than the question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DROP_M = 2.0


@dataclass
class Outlines:
    borders: int = 0
    within_cell: int = 0

    def add(self, ours: NDArray[np.floating], truth: NDArray[np.floating], building: NDArray[np.bool_]) -> None:
        """Count one block, north-up; what crosses its rim isn't counted."""
        for turns in range(4):  # the outside lies to the right of the inside, in each of four directions
            model, height, house = (np.rot90(layer, turns) for layer in (ours, truth, building))
            if model.shape[1] < 4:
                continue
            far_in, inside, outside, far_out = (height[:, k : height.shape[1] - 3 + k] for k in range(4))
            middle = (inside + outside) / 2
            with np.errstate(invalid="ignore"):
                border = house[:, 1:-2] & (inside - outside >= DROP_M) & (far_in > middle) & (far_out < middle)
                near = border & (model[:, :-3] > middle) & (model[:, 3:] < middle)
            self.borders += int(border.sum())
            self.within_cell += int(near.sum())

    @property
    def share(self) -> float | None:
        return self.within_cell / self.borders if self.borders else None
