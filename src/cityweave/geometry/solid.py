"""From a patch to the tile's closed part: walls, rim, bottom."""

from __future__ import annotations

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
