"""Open and crowded edges of the closed city, by vertex id, one tile at a time.

An edge is settled inside its tile unless both of its ends also occur in a neighbour. Only those few are carried
on, so memory follows the length of the borders and not the number of triangles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class EdgeCount:
    """`boundary`: edges of one triangle. `nonmanifold`: edges of three or more. A closed surface has neither."""

    boundary: int
    nonmanifold: int
    triangles: int


def _edges(corner_ids_mx3: Ids) -> tuple[Ids, NDArray[np.int64]]:
    """Edges (k, 2) as sorted pairs of ids, and how many triangles of this tile use each."""
    pairs = np.concatenate([corner_ids_mx3[:, [0, 1]], corner_ids_mx3[:, [1, 2]], corner_ids_mx3[:, [2, 0]]])
    pairs.sort(axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    if not len(pairs):
        return pairs, np.zeros(0, np.int64)
    first = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)])
    return pairs[first], np.diff(np.r_[first, len(pairs)])


def count_edges(
    tiles: Iterable[tuple[str, list[str]]], corner_ids: Callable[[str], Ids], used_ids: Callable[[str], Ids]
) -> EdgeCount:
    """`tiles` gives each tile with the neighbours that exist.

    `corner_ids(tile)` are the ids of its triangles' corners (m, 3), `used_ids(tile)` the sorted ids in use.
    """
    boundary = nonmanifold = triangles = 0
    carried: list[Ids] = []
    counts: list[NDArray[np.int64]] = []
    for tile, neighbours in tiles:
        corners = corner_ids(tile)
        triangles += len(corners)
        edges, uses = _edges(corners)
        own = used_ids(tile)
        shared = np.zeros(len(own), np.bool_)
        for neighbour in neighbours:
            shared |= np.isin(own, used_ids(neighbour), assume_unique=True)
        open_end = shared[np.searchsorted(own, edges)] if len(own) else np.zeros(edges.shape, np.bool_)
        may_go_on = open_end.all(axis=1)
        boundary += int((uses[~may_go_on] == 1).sum())
        nonmanifold += int((uses[~may_go_on] > 2).sum())
        carried.append(edges[may_go_on])
        counts.append(uses[may_go_on])
    if carried and sum(len(part) for part in carried):
        edges, uses = np.concatenate(carried), np.concatenate(counts)
        order = np.lexsort((edges[:, 1], edges[:, 0]))
        edges, uses = edges[order], uses[order]
        first = np.flatnonzero(np.r_[True, (edges[1:] != edges[:-1]).any(axis=1)])
        total = np.add.reduceat(uses, first)
        boundary += int((total == 1).sum())
        nonmanifold += int((total > 2).sum())
    return EdgeCount(boundary, nonmanifold, triangles)
