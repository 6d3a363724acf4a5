"""Random points on triangles that depend on the triangle alone, not on its place in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


@njit(cache=True, inline="always")
def _mix(x):  # type: ignore[no-untyped-def]
    """SplitMix64: neighbouring keys give unrelated bits, so a counter serves as a random stream."""
    x = x + _GOLDEN
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@njit(cache=True, inline="always")
def _unit(x):  # type: ignore[no-untyped-def]
    return float(x >> _S11) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def _canonical(ids, faces, f):  # type: ignore[no-untyped-def]
    """Corners of a face from its smallest id on, so that a rotated face draws the same points."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    if ids[b] < ids[a] and ids[b] < ids[c]:
        return b, c, a
    if ids[c] < ids[a] and ids[c] < ids[b]:
        return c, a, b
    return a, b, c


@njit(cache=True)
def _draw(points, ids, faces, density, seed, out_points, out_face):  # type: ignore[no-untyped-def]
    """Writes when the outputs have room, counts in any case."""
    written = 0
    room = out_face.shape[0] > 0
    for f in range(faces.shape[0]):
        a, b, c = _canonical(ids, faces, f)
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        area = 0.5 * np.sqrt(nx * nx + ny * ny + nz * nz)
        key = _mix(_mix(_mix(seed ^ np.uint64(ids[a])) ^ np.uint64(ids[b])) ^ np.uint64(ids[c]))
        count = int(np.floor(area * density + _unit(key)))
        if room:
            for k in range(count):
                r1 = _mix(key + np.uint64(2 * k + 1))
                s, t = _unit(r1), _unit(_mix(r1))
                if s + t > 1.0:
                    s, t = 1.0 - s, 1.0 - t
                out_points[written + k, 0] = points[a, 0] + s * ux + t * vx
                out_points[written + k, 1] = points[a, 1] + s * uy + t * vy
                out_points[written + k, 2] = points[a, 2] + s * uz + t * vz
                out_face[written + k] = f
        written += count
    return written


def sample_faces(
    points_nx3: NDArray[Any], ids_n: NDArray[Any], faces_mx3: NDArray[Any], per_m2: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Points (k, 3) with `per_m2` expected on every square metre, and the face each lies on (k,)."""
    points = np.ascontiguousarray(points_nx3, np.float64)
    ids = np.ascontiguousarray(ids_n, np.int64)
    faces = np.ascontiguousarray(faces_mx3, np.int32).reshape(-1, 3)
    key = np.uint64(seed)
    count = _draw(points, ids, faces, per_m2, key, np.empty((0, 3)), np.empty(0, np.int32))
    out_points, out_face = np.empty((count, 3)), np.empty(count, np.int32)
    if count:
        _draw(points, ids, faces, per_m2, key, out_points, out_face)
    return out_points, out_face


def face_normals(points_nx3: NDArray[Any], faces_mx3: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit normals (m, 3), zero for a degenerate face, and areas in m² (m,)."""
    a, b, c = (np.asarray(points_nx3, np.float64)[faces_mx3[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    length = np.sqrt((cross * cross).sum(axis=1))
    return cross / np.where(length > 0, length, 1.0)[:, None], 0.5 * length
