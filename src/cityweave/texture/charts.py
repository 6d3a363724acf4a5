"""Which faces share a chart: one plan view, and walls grouped by where they face.

A facade chart is a connected patch of near-vertical faces that look roughly the same way, unrolled onto the vertical
plane it faces: metres along the wall, and height. Growing is greedy over shared edges, the flattest edges first, and
stops where the mean directions of two patches differ too much; so a chart never turns round and hides itself, except
where one part of it stands before another: `overlapping` finds those and the caller splits them off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from cityweave.mesh import SURFACE, TileMesh
from cityweave.patches import root

TOP, PLAIN = -1, -2  # labels beside the facade charts 0, 1, 2, ...

_MERGE_COS = float(np.cos(np.radians(30.0)))
_NEVER_FLAT = 0.10  # a face with less than this in its normal's z has no usable plan view


@dataclass(frozen=True)
class FaceFrame:
    """Per face: unit normal (m,3) and area in m² (m,); zero normals where a face has no area."""

    normal: np.ndarray
    area: np.ndarray


def face_frame(xyz_nx3: np.ndarray, faces_mx3: np.ndarray) -> FaceFrame:
    a, b, c = (xyz_nx3[faces_mx3[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    length = np.sqrt((cross * cross).sum(axis=1))
    normal = cross / np.where(length > 0, length, 1.0)[:, None]
    return FaceFrame(normal, length / 2)


def label_faces(mesh: TileMesh, steep_deg: float, smallest_m2: float) -> np.ndarray:
    """int32 per face: TOP, PLAIN (rim and bottom), or the number of its facade chart.

    Steep patches smaller than `smallest_m2` that lean at all stay in the plan view: a chart of their own would cost
    more padding than it holds.
    """
    xyz = mesh.xyz()
    frame = face_frame(xyz, mesh.faces)
    label = np.full(len(mesh.faces), TOP, np.int32)
    label[mesh.part != SURFACE] = PLAIN
    is_steep = (mesh.part == SURFACE) & (frame.normal[:, 2] < np.cos(np.radians(steep_deg))) & (frame.area > 0)
    steep = np.flatnonzero(is_steep)
    if not len(steep):
        return label
    root = _group(mesh.faces, frame, steep)
    first, chart = np.unique(root, return_inverse=True)  # roots are the lowest member: order of first appearance
    area = np.bincount(chart, frame.area[steep])
    flattest = np.full(len(first), np.inf)
    np.minimum.at(flattest, chart, frame.normal[steep, 2])
    kept = (area >= smallest_m2) | (flattest < _NEVER_FLAT)
    number = np.where(kept, np.cumsum(kept) - 1, TOP)
    label[steep] = number[chart]
    return label


def facing(frame: FaceFrame, faces: np.ndarray, label: np.ndarray, charts: int) -> np.ndarray:
    """(charts, 2) unit horizontal direction a chart faces; `faces` are the rows of `frame` that `label` speaks of."""
    weight = frame.area[faces]
    total = np.stack([np.bincount(label, weight * frame.normal[faces, k], charts) for k in range(2)], axis=1)
    length = np.hypot(total[:, 0], total[:, 1])
    still = length < 1e-12
    return np.where(still[:, None], [1.0, 0.0], total / np.where(still, 1.0, length)[:, None])


def shared_edges(faces_mx3: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(k,2) int64 pairs of positions in `chosen` whose faces share an edge."""
    corner = faces_mx3[chosen].astype(np.int64)
    ends = np.concatenate([corner[:, [0, 1]], corner[:, [1, 2]], corner[:, [2, 0]]])
    owner = np.tile(np.arange(len(chosen)), 3)
    key = ends.min(axis=1) << 32 | ends.max(axis=1)
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    return np.stack([owner[order][:-1][same], owner[order][1:][same]], axis=1)


def _group(faces_mx3: np.ndarray, frame: FaceFrame, steep: np.ndarray) -> np.ndarray:
    pairs = shared_edges(faces_mx3, steep)
    horizontal = frame.normal[steep, :2]
    unit = horizontal / np.maximum(np.hypot(horizontal[:, 0], horizontal[:, 1]), 1e-12)[:, None]
    agreement = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1)
    order = np.argsort(-np.round(agreement * 4096.0), kind="stable")
    total = unit * frame.area[steep][:, None]
    return _grow(pairs[order], np.ascontiguousarray(total), _MERGE_COS)


@njit(cache=True)
def _grow(pairs, total, least_cos):  # type: ignore[no-untyped-def]
    """Union of patches along edges, in the given order, while their mean directions agree. Roots per face."""
    n = len(total)
    parent = np.arange(n)
    for e in range(len(pairs)):
        a, b = root(parent, pairs[e, 0]), root(parent, pairs[e, 1])
        if a == b:
            continue
        dot = total[a, 0] * total[b, 0] + total[a, 1] * total[b, 1]
        size = np.hypot(total[a, 0], total[a, 1]) * np.hypot(total[b, 0], total[b, 1])
        if dot < least_cos * size:
            continue
        if b < a:
            a, b = b, a
        parent[b] = a
        total[a, 0] += total[b, 0]
        total[a, 1] += total[b, 1]
    for k in range(n):
        parent[k] = root(parent, k)
    return parent


@njit(cache=True)
def components(pairs, member, label):  # type: ignore[no-untyped-def]
    """Root per face of the patches that `member` faces of equal `label` form along `pairs`."""
    n = len(member)
    parent = np.arange(n)
    for e in range(len(pairs)):
        i, j = pairs[e, 0], pairs[e, 1]
        if not (member[i] and member[j]) or label[i] != label[j]:
            continue
        a, b = root(parent, i), root(parent, j)
        if a != b:
            parent[max(a, b)] = min(a, b)
    for k in range(n):
        parent[k] = root(parent, k)
    return parent
