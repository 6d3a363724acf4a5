"""Surfaces of heights as they are, nothing fitted: marching cubes of the volume z - h, and a plain grid."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from cityweave.geometry.cubes import CORNERS, EDGES, links
from cityweave.geometry.target import fill_holes, start_heights


def surface(
    target: np.ndarray, gsd_m: float, cell_m: float, method: Literal["marching_cubes", "grid"]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in metres from the raster's south-western corner and triangles; [y ascending, x], NaN is filled."""
    m = max(1, round(cell_m / gsd_m))
    known = np.isfinite(target)
    h = start_heights(np.nan_to_num(target.astype(np.float64)), known.astype(np.float64), m)
    fill_holes(h)
    lowest = float(h.min()) - 2 * cell_m
    if method == "grid":
        vertices, triangles = grid_triangles((h - lowest) / cell_m)
    else:
        z = np.arange(np.ceil((h.max() - lowest) / cell_m) + 2) * cell_m + lowest
        vertices, triangles = marching_cubes((z - h.T[:, :, None]) / cell_m)
    return vertices * cell_m + (cell_m / 2, cell_m / 2, lowest), triangles


def grid_triangles(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) at (i, j, h[j, i]) and two triangles a square, counter-clockwise from above."""
    rows, cols = h.shape
    j, i = np.mgrid[0:rows, 0:cols]
    vertices = np.stack([i.ravel(), j.ravel(), h.ravel()], axis=1).astype(np.float64)
    corner = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)).ravel()
    lower = np.stack([corner, corner + 1, corner + cols + 1], axis=1)
    upper = np.stack([corner, corner + cols + 1, corner + cols], axis=1)
    return vertices, np.concatenate([lower, upper])


def marching_cubes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) in steps of the grid and triangles between values [x, y, z] below 0 (inside) and the others."""
    inside = values < 0
    x, y, z = (size - 1 for size in values.shape)
    case = np.zeros((x, y, z), np.int16)
    for corner, (a, b, c) in enumerate(CORNERS):
        case |= inside[a : a + x, b : b + y, c : c + z].astype(np.int16) << corner
    cubes = np.argwhere((case > 0) & (case < 255))
    own = case[tuple(cubes.T)]
    edges: list[np.ndarray] = []
    for number in np.unique(own):
        at = cubes[own == number]
        for fan in _fans(int(number)):
            ends = CORNERS[EDGES[fan]]  # [triangle, corner, end, axis]
            points = at[:, None, None, None, :] + ends[None]
            edges.append(points.reshape(-1, 2, 3))
    if not edges:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    every = np.concatenate(edges)
    flat = [np.ravel_multi_index(tuple(every[:, end].T), values.shape) for end in (0, 1)]
    key, number_of = np.unique(flat[0] * values.size + flat[1], return_inverse=True)
    first, second = np.divmod(key, values.size)
    low, high = values.ravel()[first], values.ravel()[second]
    share = (low / (low - high))[:, None]
    start, end = (np.stack(np.unravel_index(at, values.shape), axis=1).astype(np.float64) for at in (first, second))
    return start + share * (end - start), number_of.reshape(-1, 3)


@cache
def _fans(case: int) -> list[np.ndarray]:
    """Per sheet of the surface in a cube its triangles (n, 3), corners named by the edge they lie on."""
    neighbours: dict[int, list[int]] = {}
    for face in range(6):
        for a, b in links(case, face):
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
    fans = []
    while neighbours:
        loop = [min(neighbours)]
        while following := [edge for edge in neighbours[loop[-1]] if edge not in loop]:
            loop.append(following[0])
        for edge in loop:
            del neighbours[edge]
        if _looks_inside(case, loop):
            loop.reverse()
        fans.append(np.array([(loop[0], loop[k], loop[k + 1]) for k in range(1, len(loop) - 1)]))
    return fans


def _looks_inside(case: int, loop: list[int]) -> bool:
    ends = CORNERS[EDGES[loop]].astype(np.float64)
    middles = ends.mean(axis=1)
    normal = np.cross(middles, np.roll(middles, -1, axis=0)).sum(axis=0)
    first_inside = np.array([case >> EDGES[edge][0] & 1 for edge in loop], bool)
    outward = np.where(first_inside[:, None], ends[:, 1] - ends[:, 0], ends[:, 0] - ends[:, 1]).sum(axis=0)
    return bool(normal @ outward < 0)
