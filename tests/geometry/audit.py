"""Does the union of some tiles close? Edge by edge and by id, directions included: stricter than the figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


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
