"""How wrong a height may be, from what is known without truth: a table, fitted on rendered cities (bench/fit_sigma.py).

What tells most is how clearly a height stands out against its runner-up, measured by what is usual in the tile, since
noise of the pictures lowers all of them. Then steps of the surface nearby; for a filled cell, how far the next measured
one is. 70 % of the errors are to lie within one sigma. The tails are heavier than a normal distribution's, most of all
beside walls, where a height is either right or off by the wall.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from scipy import ndimage

NONE, MEASURED, FILLED = 0, 1, 2  # of the source layer
RELIEF_CELLS = 5
UNMODELLED_M = 0.02  # what no evidence of a cell tells, such as what is left of the views' pointing


@dataclass(frozen=True)
class Evidence:
    """Per cell, NaN-free where there is a height."""

    clearness: np.ndarray  # margin over the runner-up, against what is usual
    relief_m: np.ndarray  # highest minus lowest of the cells around
    hole_m: np.ndarray  # from the next measured cell


@dataclass(frozen=True)
class SigmaTable:
    """Natural logarithms of sigma in metres over two axes of evidence, one pair of grids for every class of views."""

    views: tuple[int, ...]  # the least number of each class
    clearness: np.ndarray
    relief_m: np.ndarray
    hole_m: np.ndarray
    measured: np.ndarray  # [class, clearness, relief]
    filled: np.ndarray  # [class, hole, relief]

    def class_of(self, views: int) -> int:
        return max(k for k, least in enumerate(self.views) if k == 0 or views >= least)


@cache
def sigma_table() -> SigmaTable:
    found = json.loads(resources.files("cityweave.dsm").joinpath("sigma_table.json").read_text())
    arrays = {key: np.asarray(found[key]) for key in ("clearness", "relief_m", "hole_m", "measured", "filled")}
    return SigmaTable(tuple(found["views"]), **arrays)


def evidence(dsm_m: np.ndarray, clearness: np.ndarray, source: np.ndarray, gsd_m: float) -> Evidence:
    relief = ndimage.maximum_filter(dsm_m, RELIEF_CELLS) - ndimage.minimum_filter(dsm_m, RELIEF_CELLS)
    measured = source == MEASURED
    hole = ndimage.distance_transform_edt(~measured) if measured.any() else np.full(dsm_m.shape, np.inf)
    return Evidence(clearness, relief, (hole * gsd_m).astype(np.float32))


def sigma_m(found: Evidence, source: np.ndarray, views: int) -> np.ndarray:
    """Standard deviation of the heights, NaN where there is none."""
    table = sigma_table()
    of_class = table.class_of(views)
    measured = _look_up(table.measured[of_class], (found.clearness, table.clearness), (found.relief_m, table.relief_m))
    filled = _look_up(table.filled[of_class], (found.hole_m, table.hole_m), (found.relief_m, table.relief_m))
    sigma = np.hypot(np.where(source == MEASURED, measured, filled), UNMODELLED_M)
    return np.where(source == NONE, np.nan, sigma).astype(np.float32)


def _look_up(grid: np.ndarray, *axes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Between the points of the table in proportion, beyond its ends as at them."""
    places = [np.interp(np.nan_to_num(values), points, np.arange(len(points))) for values, points in axes]
    found: np.ndarray = np.exp(ndimage.map_coordinates(grid, places, order=1))
    return found
