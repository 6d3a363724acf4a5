"""Which points a ray from the upper hemisphere can reach.

Parallel depth maps from 33 directions stand for the hemisphere. A point counts when its face looks towards a
direction and nothing lies in front of it there. So inner faces, undersides of crowns and balconies and the base
drop out, while a facade stays down to the depth at which a street or a courtyard lets light in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.render.depth import DepthMap, bounds, depth_map

RINGS = ((90.0, 1), (78.0, 6), (60.0, 8), (38.0, 8), (15.0, 10))  # (elevation, directions): 33 together
_TOLERANCE_M = 0.15
_MOST_CARRIED_M = 0.2
_MIN_FACING = 0.08  # cosine under which a face is seen too obliquely to be judged


def directions() -> NDArray[np.float64]:
    """Unit vectors (33, 3) along which light travels, all downwards."""
    rows = []
    for ring, (elevation_deg, count) in enumerate(RINGS):
        el = np.radians(elevation_deg)
        for k in range(count):
            azimuth = 2 * np.pi * (k + 0.31 * ring) / count  # rings are turned, facades along an axis get several
            rows.append([-np.cos(el) * np.sin(azimuth), -np.cos(el) * np.cos(azimuth), -np.sin(el)])
    return np.array(rows)


@njit(cache=True)
def _mark(points, normals, owner, axes, origin, pixel, depth, tolerance, most_carried, visible):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    for p in range(points.shape[0]):
        if visible[p]:
            continue
        f = owner[p]
        n0, n1, n2 = normals[f, 0], normals[f, 1], normals[f, 2]
        facing = n0 * axes[2, 0] + n1 * axes[2, 1] + n2 * axes[2, 2]
        if facing > -_MIN_FACING:
            continue
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        u = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z - origin[0]) / pixel
        v = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z - origin[1]) / pixel
        w = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z - origin[2]
        c, r = int(np.floor(u)), int(np.floor(v))
        if c < 0 or r < 0 or c >= width or r >= height:
            continue
        # the map holds the depth at the pixel's centre: carry the point there along its own plane
        tilt_u = -(n0 * axes[0, 0] + n1 * axes[0, 1] + n2 * axes[0, 2]) / facing
        tilt_v = -(n0 * axes[1, 0] + n1 * axes[1, 1] + n2 * axes[1, 2]) / facing
        carried = pixel * ((c + 0.5 - u) * tilt_u + (r + 0.5 - v) * tilt_v)
        # Far along a steep plane that would lift a hidden wall through the roof above it; most points then still
        # count by another direction.
        there = w + max(carried, -most_carried)
        if depth[r, c] >= there - tolerance:
            visible[p] = True


class Hemisphere:
    """Depth maps of one scene, made once and asked for many sets of points."""

    def __init__(self, points_nx3: NDArray[Any], faces_mx3: NDArray[Any], pixel_m: float = 0.5) -> None:
        # Depth maps are float32: count from within the scene.
        self.offset = np.asarray(points_nx3[0], np.float64)
        points = np.asarray(points_nx3, np.float64) - self.offset
        sides = bounds(points)
        faces = np.ascontiguousarray(faces_mx3, np.int32)
        self.maps: list[DepthMap] = [depth_map(points, sides, faces, forward, pixel_m) for forward in directions()]

    def reaches(self, points_kx3: NDArray[Any], owner_k: NDArray[Any], normals_mx3: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether light reaches each point; `owner_k` names its face in `normals_mx3` (outward)."""
        points = np.ascontiguousarray(np.asarray(points_kx3, np.float64) - self.offset)
        visible = np.zeros(len(points), np.bool_)
        for m in self.maps:
            _mark(
                points,
                normals_mx3,
                owner_k,
                m.axes,
                m.origin,
                m.pixel_m,
                m.depth,
                _TOLERANCE_M,
                _MOST_CARRIED_M,
                visible,
            )
        return visible
