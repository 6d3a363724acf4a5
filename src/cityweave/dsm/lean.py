"""How far roofs lean in the picture that heights were predicted from, and heights put back over their walls.

An orthophoto that was laid on the ground shows a roof beside where it stands, the higher the farther, and what is
predicted from it grows there, too. Measured heights tell how far: of many leans the one is taken by which predicted
heights, moved, agree with them best.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cityweave.cores import side_by_side
from cityweave.dsm.nodes import Nodes
from cityweave.grid import CellGrid

_STEP = 0.05  # between the leans that are tried east and north, in metres per metre up
_CELL_M = 1.0  # cells on which they are tried
_CAP_M = 10.0  # disagreement beyond it says no more
_PRIOR_M3 = 60.0  # what a lean of 1 costs, in metres of disagreement times square metres
_DIGITS = 3  # of a node's lean, so that sums in another order give the same


def leans(
    predicted_m: np.ndarray, measured_m: np.ndarray, sure: np.ndarray, grid: CellGrid, nodes: Nodes, most: float
) -> tuple[np.ndarray, np.ndarray]:
    """East and north, metres per metre up, for every cell: where what stands there belongs, seen from where it is."""
    cells, kept = _thinned(grid)
    heights = np.where(np.isfinite(predicted_m), predicted_m, 0)[kept].astype(np.float32)
    known = (sure & np.isfinite(predicted_m))[kept]
    truth = np.where(known, measured_m[kept], 0).astype(np.float32)
    steps = math.floor(most / _STEP + 1e-6)
    tried = np.arange(-steps, steps + 1) * _STEP

    def disagreement(lean: tuple[float, float]) -> np.ndarray:
        east, north = (np.full(heights.shape, each, np.float32) for each in lean)
        source = moved(heights, east, north, cells.gsd_m)
        there = np.where(source >= 0, heights.ravel()[source], 0)  # what comes into sight is ground
        apart = np.where(known, np.minimum(np.abs(there - truth), _CAP_M), 0)
        return nodes.sums(apart, cells) * cells.gsd_m**2 + _PRIOR_M3 * math.hypot(*lean)

    costs = np.stack(side_by_side(disagreement, [(east, north) for north in tried for east in tried]))
    east, north = np.round(_lowest(costs.reshape(len(tried), len(tried), *costs.shape[1:])), _DIGITS)
    return nodes.between(east, grid), nodes.between(north, grid)


def _thinned(grid: CellGrid) -> tuple[CellGrid, tuple[slice, slice]]:
    """Every k-th cell of the plane, so that all tiles take the same ones."""
    k = max(1, round(_CELL_M / grid.gsd_m))
    rows, cols = slice((grid.row0 + grid.rows - 1) % k, None, k), slice(-grid.col0 % k, None, k)
    shape = len(range(*rows.indices(grid.rows))), len(range(*cols.indices(grid.cols)))
    return CellGrid(-(-grid.col0 // k), -(-grid.row0 // k), shape[1], shape[0], k * grid.gsd_m), (rows, cols)


def _lowest(costs: np.ndarray) -> np.ndarray:
    """(2, ...) leans east and north of least cost [north, east, ...], by parabolas between the steps."""
    side, shape = len(costs), costs.shape[2:]
    flat = costs.reshape(side, side, -1)
    north, east = np.divmod(flat.reshape(side * side, -1).argmin(axis=0), side)
    node = np.arange(flat.shape[2])

    def beside(down: int, right: int) -> np.ndarray:
        cost: np.ndarray = flat[np.clip(north + down, 0, side - 1), np.clip(east + right, 0, side - 1), node]
        return cost

    out = []
    for at, (down, right) in ((east, (0, 1)), (north, (1, 0))):
        before, here, after = beside(-down, -right), beside(0, 0), beside(down, right)
        bend = before - 2 * here + after
        inner = (at > 0) & (at < side - 1) & (bend > 0)
        off = np.where(inner, (before - after) / (2 * np.where(inner, bend, 1)), 0)
        out.append(((at + off - side // 2) * _STEP).reshape(shape))
    return np.stack(out)


@njit(cache=True, nogil=True)
def moved(heights, east, north, gsd_m):  # type: ignore[no-untyped-def]
    """For every cell where what stands there came from: an index, or -1 where nothing went. The highest covers the
    rest; gaps of one cell, which roofs that aren't level get, take the lower of both sides."""
    rows, cols = heights.shape
    source = np.full((rows, cols), -1)
    for r in range(rows):
        for c in range(cols):
            z = heights[r, c]
            if not z >= 0:
                continue
            y, x = np.int64(np.round(r - z * north[r, c] / gsd_m)), np.int64(np.round(c + z * east[r, c] / gsd_m))
            if 0 <= y < rows and 0 <= x < cols:
                before = source[y, x]
                if before < 0 or z > heights[before // cols, before % cols]:
                    source[y, x] = r * cols + c
    out = source.copy()
    for r in range(rows):
        for c in range(cols):
            if source[r, c] < 0:
                lowest = np.float32(np.inf)
                for down, right in ((0, 1), (1, 0)):
                    if down <= r < rows - down and right <= c < cols - right:
                        a, b = source[r - down, c - right], source[r + down, c + right]
                        if a >= 0 and b >= 0:
                            low = a if heights[a // cols, a % cols] <= heights[b // cols, b % cols] else b
                            if heights[low // cols, low % cols] < lowest:
                                out[r, c], lowest = low, heights[low // cols, low % cols]
    return out
