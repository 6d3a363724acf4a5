"""Tiles out of heights, the checks that any closed mesh must pass, and a plain way to cross a mesh vertically."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from cityweave.geometry import direct
from cityweave.geometry.blend import FittedDivision, gather
from cityweave.geometry.field import FieldShape, Lattice
from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import LATTICE_RING, Patch, SurfaceSettings, extract
from cityweave.geometry.target import pixel_weights
from cityweave.mesh import STEPS_PER_M, SURFACE, TileMesh

SHAPE = FieldShape(pitch_m=1.0, softness_m=0.5, beta=2.0)
BASE_M = -20.0


def patch_of(h: np.ndarray, first: int, i: int, j: int, n: int, present: np.ndarray, per_pitch: int = 1) -> Patch:
    """Tile (i, j) of n x n nodes on the lattice h, whose node (0, 0) has the index (first, first)."""
    i0, j0 = i * n, j * n
    side = n + 2 * LATTICE_RING
    lattice = Lattice(h, first, first, 1.0).window(i0 - LATTICE_RING, j0 - LATTICE_RING, side, side)
    settings = SurfaceSettings(1.0 / per_pitch)
    return extract(
        lattice, SHAPE, settings, i0 * per_pitch, j0 * per_pitch, n * per_pitch, present, (i0, j0), 0.0, BASE_M
    )


def around(existing: Iterable[tuple[int, int]], i: int, j: int) -> np.ndarray:
    return np.array([[(i + di, j + dj) in existing for di in (-1, 0, 1)] for dj in (-1, 0, 1)])


def meshes_of(
    h: np.ndarray, first: int, n: int, existing: list[tuple[int, int]], bounds_m: tuple[float, ...], per_pitch: int = 1
) -> dict[tuple[int, int], list[TileMesh]]:
    out = {}
    for i, j in existing:
        patch = patch_of(h, first, i, j, n, around(existing, i, j), per_pitch)
        out[i, j] = [close(patch, tri, (i * n, j * n, 0.0)) for tri in simplify(patch, bounds_m)]
    return out


def fit_tile(raster, size_m: int, gsd_m: float = 0.5, ramp: int = 4, seed: int = 0, **settings) -> Lattice:
    """The blended lattice of tile (0, 0) with whole neighbours, from `raster(xmin, ymin, cols, rows, gsd)`."""
    half, halo, m = size_m // 2, 2 * ramp + 4, round(SHAPE.pitch_m / gsd_m)
    first, cells = -half - halo, (2 * size_m + 2 * halo) * m
    heights = raster(first, first, cells, cells, gsd_m)
    divisions = []
    for dj in range(-1, 3):
        for di in range(-1, 3):
            r, c = (dj + 1) * half * m, (di + 1) * half * m
            side = (half + 2 * halo) * m
            target = heights[r : r + side, c : c + side]
            weight = pixel_weights(None, None, target)
            i0, j0 = di * half, dj * half
            lattice, _ = direct.fit(target, weight, i0 - halo, j0 - halo, SHAPE, gsd_m, direct.FitSettings(**settings))
            divisions.append(FittedDivision(lattice, i0, j0, i0 + half, j0 + half))
    side = size_m + 2 * LATTICE_RING
    return gather(divisions, -LATTICE_RING, -LATTICE_RING, side, side, ramp)


def broken_vertices(meshes: Iterable[TileMesh]) -> int:
    """Vertices of the union whose triangles are not one closed ring."""
    ring: dict[int, dict[int, int]] = defaultdict(dict)
    broken = 0
    for mesh in meshes:
        for a, b, c in mesh.ids[mesh.faces].tolist():
            for p, q, r in ((a, b, c), (b, c, a), (c, a, b)):
                broken += q in ring[p]
                ring[p][q] = r
    for steps in ring.values():
        start = at = next(iter(steps))
        count = 0
        while at in steps and count <= len(steps):
            at = steps[at]
            count += 1
            if at == start:
                break
        broken += at != start or count != len(steps)
    return broken


def positions_disagree(meshes: Iterable[TileMesh]) -> int:
    """Ids that have more than one place."""
    seen: dict[int, tuple[int, ...]] = {}
    wrong = 0
    for mesh in meshes:
        world = mesh.vertices.astype(np.int64) + np.round(np.array(mesh.origin_m) * STEPS_PER_M).astype(np.int64)
        for key, place in zip(mesh.ids.tolist(), map(tuple, world.tolist()), strict=True):
            wrong += seen.setdefault(key, place) != place
    return wrong


def crossings(mesh: TileMesh, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often the vertical line at each (x[c], y[r]) crosses the surface's faces, and the height of the last
    crossing. x, y in 1/1024 m, chosen by the caller so as to miss every vertex: odd multiples of 1/2048."""
    p = mesh.vertices.astype(np.int64)[mesh.faces[mesh.part == SURFACE]]
    count = np.zeros((len(y), len(x)), int)
    height = np.full((len(y), len(x)), np.nan)
    x2, y2 = np.round(2 * x).astype(np.int64), np.round(2 * y).astype(np.int64)
    for a, b, c in p:
        q = np.stack([a, b, c])
        cols = slice(*np.searchsorted(x2, [2 * q[:, 0].min(), 2 * q[:, 0].max()]))
        rows = slice(*np.searchsorted(y2, [2 * q[:, 1].min(), 2 * q[:, 1].max()]))
        if cols.start == cols.stop or rows.start == rows.stop:
            continue
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        gx, gy = x2[cols][None, :], y2[rows][:, None]
        w = [(v[0] - u[0]) * (gy - 2 * u[1]) - (v[1] - u[1]) * (gx - 2 * u[0]) for u, v in ((b, c), (c, a), (a, b))]
        # On an edge exactly: the rule that rasterisers use, so that one of its two faces has the point.
        inside = np.ones(w[0].shape, bool)
        for k, (u, v) in enumerate(((b, c), (c, a), (a, b))):
            d = v - u
            inside &= (w[k] > 0) | ((w[k] == 0) & ((d[1] > 0) or (d[1] == 0 and d[0] < 0)))
        count[rows, cols] += inside
        z = (w[0] * a[2] + w[1] * b[2] + w[2] * c[2]) / (2 * area) / STEPS_PER_M
        height[rows, cols] = np.where(inside, z, height[rows, cols])
    return count, height
