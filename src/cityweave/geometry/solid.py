"""From a patch to the tile's closed part: walls, rim, bottom; and the audit that the whole city closes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cityweave.geometry.surface import LAYERS, Patch, strip_faces, wall_strips
from cityweave.mesh import BOTTOM, SURFACE, TileMesh


def close(patch: Patch, tri: np.ndarray, origin_m: tuple[float, float, float]) -> TileMesh:
    """The tile's mesh with `tri` (one level of `simplify`) as its non-vertical faces.

    Walls and rims share the vertices of the columns they touch. The bottom runs straight from corner to corner along
    neighbours, who share those edges by id, and along the rim's feet elsewhere.
    """
    strips = np.concatenate([wall_strips(tri, patch.xy.shape[0]), patch.strips])
    strip_part = np.concatenate([np.full(len(strips) - len(patch.strips), SURFACE, np.uint8), patch.strip_part])
    walls, source = strip_faces(strips, patch.z, patch.pinched)
    bottom = _bottom(patch)
    faces = np.concatenate([tri, walls, bottom])
    part = np.concatenate(
        [np.full(len(tri), SURFACE, np.uint8), strip_part[source], np.full(len(bottom), BOTTOM, np.uint8)]
    )
    codes, flat = np.unique(faces, return_inverse=True)
    column = codes // LAYERS
    vertices = np.column_stack([patch.xy[column], patch.z[codes]]).astype(np.int32)
    return TileMesh(origin_m, vertices, patch.ids()[codes], flat.reshape(-1, 3).astype(np.int32), part)


def _bottom(patch: Patch) -> np.ndarray:
    """Triangles of the base, seen from below; none where the city has no rim would still be one per tile."""
    import mapbox_earcut

    ring = _base_ring(patch)
    xy = patch.xy[ring // LAYERS]
    flat = mapbox_earcut.triangulate_float64(xy.astype(np.float64), np.array([len(ring)], np.uint32))
    tri = flat.reshape(-1, 3).astype(np.int64)
    p = xy.astype(np.int64)[tri]
    e, f = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]
    tri[area > 0] = tri[area > 0][:, ::-1]  # clockwise from above
    if len(tri) != len(ring) - 2:
        raise RuntimeError(f"the base of {len(ring)} vertices was cut into {len(tri)} triangles")
    return ring[tri].astype(np.int32)


def _base_ring(patch: Patch) -> np.ndarray:
    """Base codes round the tile, counter-clockwise from the south-west corner."""
    n, side = patch.n, patch.n + 1
    k = np.arange(1, n)
    middles = (k, k * side + n, side * side - 1 - k, (n - k) * side)
    ring: list[np.ndarray] = []
    for number in range(4):
        ring.append(patch.corners[number : number + 1])
        if patch.absent_sides[number]:
            ring.append((middles[number] * LAYERS + 4).astype(np.int32))
    return np.concatenate(ring)


@dataclass(frozen=True)
class Audit:
    boundary_edges: int
    nonmanifold_edges: int
    triangles: int


def audit(tiles: Iterable[tuple[np.ndarray, np.ndarray]]) -> Audit:
    """Count edges of the union of (ids, faces) that are not shared by exactly two triangles in opposite directions.

    Streams: what is settled inside a tile is forgotten, and only its open edges are kept for its neighbours. An edge
    that more than two triangles share, or two in the same direction, is non-manifold; one that a single
    triangle has is boundary.
    """
    open_edges: dict[tuple[int, int], list[int]] = {}  # low id, high id -> uses upward, uses downward
    bad = 0
    triangles = 0
    for ids, faces in tiles:
        triangles += len(faces)
        a = ids[faces].ravel()
        b = ids[faces[:, [1, 2, 0]]].ravel()
        low, high, up = np.minimum(a, b), np.maximum(a, b), (a < b).astype(np.int64)
        order = np.lexsort((high, low))
        low, high, up = low[order], high[order], up[order]
        first = np.flatnonzero(np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])])
        count = np.diff(np.r_[first, len(low)])
        ups = np.add.reduceat(up, first)
        settled = (count == 2) & (ups == 1)
        for e in np.flatnonzero(~settled):
            if count[e] >= 2:
                bad += 1
                continue
            uses = open_edges.setdefault((int(low[first[e]]), int(high[first[e]])), [0, 0])
            uses[0 if ups[e] else 1] += 1
    boundary = sum(1 for uses in open_edges.values() if sum(uses) == 1)
    bad += sum(1 for up_uses, down_uses in open_edges.values() if up_uses > 1 or down_uses > 1)
    return Audit(boundary, bad, triangles)
