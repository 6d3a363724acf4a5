"""Exact distance from points to their nearest neighbour, up to a limit, by a hash of 1 m cells.

Surface points are dense (several per cell), so that almost every query ends in the first shell of cells; that
is an order of magnitude quicker than a tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_CELL_M = 1.0
_P1, _P2, _P3 = np.int64(73856093), np.int64(19349663), np.int64(83492791)


@njit(cache=True, inline="always")
def _slot(ix, iy, iz, mask):  # type: ignore[no-untyped-def]
    return ((ix * _P1) ^ (iy * _P2) ^ (iz * _P3)) & mask


@njit(cache=True)
def _build(points, cell, mask):  # type: ignore[no-untyped-def]
    """Counting sort of the points by hash slot: starts (slots + 1,), points in that order (float32)."""
    start = np.zeros(mask + 2, np.int32)
    n = points.shape[0]
    for p in range(n):
        s = _slot(
            np.int64(np.floor(points[p, 0] / cell)),
            np.int64(np.floor(points[p, 1] / cell)),
            np.int64(np.floor(points[p, 2] / cell)),
            mask,
        )
        start[s + 1] += 1
    for s in range(mask + 1):
        start[s + 1] += start[s]
    fill = start[:-1].copy()
    ordered = np.empty((n, 3), np.float64)
    for p in range(n):
        s = _slot(
            np.int64(np.floor(points[p, 0] / cell)),
            np.int64(np.floor(points[p, 1] / cell)),
            np.int64(np.floor(points[p, 2] / cell)),
            mask,
        )
        ordered[fill[s], 0], ordered[fill[s], 1], ordered[fill[s], 2] = points[p, 0], points[p, 1], points[p, 2]
        fill[s] += 1
    return start, ordered


@njit(cache=True)
def _query(start, ordered, cell, mask, queries, limit):  # type: ignore[no-untyped-def]
    out = np.full(queries.shape[0], np.inf, np.float64)
    for q in range(queries.shape[0]):
        x, y, z = queries[q, 0], queries[q, 1], queries[q, 2]
        radius = 0.5 * cell
        best = np.inf
        while True:
            if radius > limit:
                radius = limit
            for ix in range(int(np.floor((x - radius) / cell)), int(np.floor((x + radius) / cell)) + 1):
                for iy in range(int(np.floor((y - radius) / cell)), int(np.floor((y + radius) / cell)) + 1):
                    for iz in range(int(np.floor((z - radius) / cell)), int(np.floor((z + radius) / cell)) + 1):
                        s = _slot(np.int64(ix), np.int64(iy), np.int64(iz), mask)
                        for k in range(start[s], start[s + 1]):
                            dx, dy, dz = ordered[k, 0] - x, ordered[k, 1] - y, ordered[k, 2] - z
                            d = dx * dx + dy * dy + dz * dz
                            if d < best:
                                best = d
            if best <= radius * radius or radius >= limit:
                break
            radius *= 2.0
        if best <= limit * limit:
            out[q] = np.sqrt(best)
    return out


def nearest_distance(queries_nx3: NDArray[Any], points_nx3: NDArray[Any], limit_m: float) -> NDArray[np.float64]:
    """Distance of every query to the nearest point; `inf` where none is within `limit_m`.

    Beyond a few metres the cells grow with the limit, in a second pass over the few queries left; those that
    stand in the middle of a hole are settled before that on a coarse map.
    """
    queries = np.ascontiguousarray(queries_nx3, np.float64)
    points = np.ascontiguousarray(points_nx3, np.float64)
    out = np.full(len(queries), np.inf)
    if not len(points) or not len(queries):
        return out
    mask = np.int64(max(1 << int(np.ceil(np.log2(len(points)))), 1024) - 1)
    todo = np.arange(len(queries))
    for cell in (_CELL_M, 4.0 * _CELL_M, 16.0 * _CELL_M):
        last = 4.0 * cell >= limit_m or cell == 16.0 * _CELL_M
        reach = limit_m if last else 4.0 * cell
        start, ordered = _build(points, cell, mask)
        asked = todo[_near_plan(queries[todo], points, reach)]
        out[asked] = _query(start, ordered, cell, mask, queries[asked], reach)
        todo = todo[np.isinf(out[todo])]
        if last or not len(todo):
            break
    return out


def _near_plan(queries: NDArray[np.float64], points: NDArray[np.float64], limit_m: float) -> NDArray[np.bool_]:
    """Whether any point can be within the limit, judged in plan on cells of that size."""
    from scipy.ndimage import binary_dilation

    side, rings = limit_m, 1
    low = np.floor(points[:, :2].min(axis=0) / side).astype(np.int64) - rings
    shape = np.floor(points[:, :2].max(axis=0) / side).astype(np.int64) + rings + 1 - low
    occupied = np.zeros(shape, np.bool_)
    occupied[tuple((np.floor(points[:, :2] / side).astype(np.int64) - low).T)] = True
    occupied = binary_dilation(occupied, np.ones((3, 3), np.bool_), iterations=rings)
    cell = np.floor(queries[:, :2] / side).astype(np.int64) - low
    inside = ((cell >= 0) & (cell < shape)).all(axis=1)
    near = np.zeros(len(queries), np.bool_)
    near[inside] = occupied[tuple(cell[inside].T)]
    return near
