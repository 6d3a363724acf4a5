"""Meshes that solvers other than `direct` make of single divisions: cut to size, put side by side, simplified.

They meet only as well as their method lets them. Nothing is closed: the city has no rim and no bottom then, and the
evaluation counts the open edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cityweave.grid import Box, Tile
from cityweave.mesh import STEPS_PER_M, SURFACE, TileMesh

COARSER = 4  # times fewer triangles from level to level


@dataclass(frozen=True)
class Piece:
    vertices: np.ndarray  # (n, 3) float64, metres from the tile's south-western corner and z0
    triangles: np.ndarray  # (m, 3)


def clipped(piece: Piece, box: Box) -> Piece:
    """The part over `box`, triangles cut at its sides."""
    vertices, triangles = piece.vertices, piece.triangles
    for axis, side, limit in ((0, 1, box.xmin), (0, -1, box.xmax), (1, 1, box.ymin), (1, -1, box.ymax)):
        vertices, triangles = _cut(vertices, triangles, side * (vertices[:, axis] - limit))
    return Piece(vertices, triangles)


def _cut(vertices: np.ndarray, triangles: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What lies at a distance of 0 or more."""
    outside = distance < 0
    count = outside[triangles].sum(axis=1)
    kept, added, new = [triangles[count == 0]], [vertices], len(vertices)
    for lone in (True, False):  # one corner outside, or one inside
        crossing = triangles[count == (1 if lone else 2)]
        if len(crossing) == 0:
            continue
        apart = outside[crossing] == lone
        first = np.argmax(apart, axis=1)
        a, b, c = (crossing[np.arange(len(crossing)), (first + k) % 3] for k in range(3))
        cuts = []
        for other in (b, c):
            share = (distance[a] / (distance[a] - distance[other]))[:, None]
            added.append(vertices[a] + share * (vertices[other] - vertices[a]))
            cuts.append(new + np.arange(len(crossing)))
            new += len(crossing)
        if lone:
            kept += [np.stack([cuts[0], b, c], axis=1), np.stack([cuts[0], c, cuts[1]], axis=1)]
        else:
            kept.append(np.stack([a, cuts[0], cuts[1]], axis=1))
    return np.concatenate(added), np.concatenate(kept)


def joined(
    pieces: list[Piece], tile: Tile, origin_m: tuple[float, float, float], triangles_per_m2: float | None, levels: int
) -> list[TileMesh]:
    """Levels of detail of the tile, finest first. Corners at the same place to 1/1024 m become one."""
    start = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    vertices = np.concatenate([piece.vertices for piece in pieces])
    triangles = np.concatenate([piece.triangles + s for piece, s in zip(pieces, start, strict=False)])
    out = []
    for level in range(levels):
        if triangles_per_m2 is not None:
            wanted = triangles_per_m2 * tile.size_m**2 / COARSER**level
            vertices, triangles = _simplified(vertices, triangles, int(wanted))
        out.append(_mesh(vertices, triangles, tile, origin_m))
    return out


def _simplified(vertices: np.ndarray, triangles: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    if len(triangles) <= wanted:
        return vertices, triangles
    from fast_simplification import simplify

    places, faces = _welded(vertices, triangles)
    points, before = places / STEPS_PER_M, len(faces) + 1
    while wanted < len(faces) < before:  # one call may stop short of what it was asked for
        before = len(faces)
        points, faces = simplify(points, faces, target_count=wanted, preserve_border=True)
    return np.asarray(points, np.float64), np.asarray(faces, np.int64)


def _welded(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in 1/1024 m, each once, and the triangles that still have three corners."""
    places, number_of = np.unique(np.rint(vertices * STEPS_PER_M).astype(np.int64), axis=0, return_inverse=True)
    corners = number_of.reshape(-1)[triangles]
    proper = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 2] != corners[:, 0])
    return places, corners[proper]


def _mesh(vertices: np.ndarray, triangles: np.ndarray, tile: Tile, origin_m: tuple[float, float, float]) -> TileMesh:
    places, corners = _welded(vertices, triangles)
    used, faces = np.unique(corners, return_inverse=True)
    ids = ((tile.j & 0xFFFFF) << 44 | (tile.i & 0xFFFFF) << 24) + np.arange(len(used), dtype=np.int64)
    part = np.full(len(corners), SURFACE, np.uint8)
    return TileMesh(origin_m, places[used].astype(np.int32), ids, faces.reshape(-1, 3).astype(np.int32), part)
