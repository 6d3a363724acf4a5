"""Which crossed edges of a cube belong to one sheet of the surface, for all 256 ways its corners can be inside.

Derived, not listed: on each face of a cube the surface cuts off the corners inside, and crossings linked through
faces make a sheet. Where both cubes beside a face with four crossings would link all four in one sheet, two would share
an edge, so both cut off the corners outside on that face: the surface stays a manifold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

CORNERS = np.array([(c & 1, c >> 1 & 1, c >> 2 & 1) for c in range(8)])
EDGES = np.array([(a, a | 1 << axis) for axis in range(3) for a in range(8) if not a >> axis & 1])
FACES = [  # corners in order around the face, then its axis and side
    (
        tuple(side << axis | a << (axis + 1) % 3 | b << (axis + 2) % 3 for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))),
        axis,
        side,
    )
    for axis in range(3)
    for side in (0, 1)
]
EDGE_OF = {frozenset(map(int, pair)): number for number, pair in enumerate(EDGES)}


@dataclass(frozen=True)
class Cases:
    """By the bits of the corners inside."""

    patch: np.ndarray  # int8 [256, 2, 12]: which patch a crossed edge belongs to, -1 where none; 1: the face turned
    patches: np.ndarray  # int8 [256, 2]
    shared_face: np.ndarray  # int8 [256]: the face whose four crossings are in one patch, -1 where none


@cache
def cases() -> Cases:
    patch, patches = np.full((256, 2, 12), -1, np.int8), np.zeros((256, 2), np.int8)
    shared = np.full(256, -1, np.int8)
    for case in range(256):
        patch[case, 0], patches[case, 0] = _patches(case, None)
        faces = [number for number in range(6) if _in_one_patch(case, number, patch[case, 0])]
        if len(faces) > 1:
            raise AssertionError(f"case {case} has {len(faces)} faces with two sheets in one patch")
        shared[case] = faces[0] if faces else -1
        patch[case, 1], patches[case, 1] = _patches(case, shared[case] if faces else None)
    return Cases(patch, patches, shared)


def _crossed(case: int, face: int) -> list[int]:
    corners = FACES[face][0]
    pairs = [(corners[k], corners[(k + 1) % 4]) for k in range(4)]
    return [EDGE_OF[frozenset(pair)] for pair in pairs if (case >> pair[0] & 1) != (case >> pair[1] & 1)]


def links(case: int, face: int, outside: bool = False) -> list[tuple[int, int]]:
    """Pairs of crossed edges of a face that the surface links."""
    crossed = _crossed(case, face)
    if len(crossed) == 2:
        return [(crossed[0], crossed[1])]
    if not crossed:
        return []
    cut_off = [corner for corner in FACES[face][0] if (case >> corner & 1) != outside]
    pairs = [[edge for edge in crossed if corner in EDGES[edge]] for corner in cut_off]
    return [(pair[0], pair[1]) for pair in pairs]


def _patches(case: int, turned: int | None) -> tuple[np.ndarray, int]:
    root = list(range(12))

    def top(edge: int) -> int:
        while root[edge] != edge:
            edge = root[edge]
        return edge

    crossed = sorted({edge for face in range(6) for edge in _crossed(case, face)})
    for face in range(6):
        for a, b in links(case, face, face == turned):
            root[top(a)] = top(b)
    tops = sorted({top(edge) for edge in crossed})
    out = np.full(12, -1, np.int8)
    out[crossed] = [tops.index(top(edge)) for edge in crossed]
    return out, len(tops)


def _in_one_patch(case: int, face: int, patch: np.ndarray) -> bool:
    crossed = _crossed(case, face)
    return len(crossed) == 4 and len({int(patch[edge]) for edge in crossed}) == 1
