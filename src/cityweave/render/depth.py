"""Depth maps of parallel light: what light along a direction meets first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

_MAX_SIDE_PX = 4096


@dataclass(frozen=True)
class DepthMap:
    """What light along `axes[2]` meets first: depth (h, w) float32, inf where nothing is."""

    axes: NDArray[np.float64]  # (3, 3): right, down, forward
    origin: NDArray[np.float64]  # (3,) in the same axes: u0, v0, and depth 0
    pixel_m: float
    depth: NDArray[np.float32]


def depth_map(
    points: NDArray[np.float64],
    sides: NDArray[np.float64],
    faces: NDArray[np.int32],
    forward: NDArray[np.float64],
    pixel_m: float,
) -> DepthMap:
    """`sides` (2, 3): lowest and highest coordinates. The box's corners bound the picture: cheaper than the points."""
    helper = np.array([0.0, 1.0, 0.0]) if abs(forward[2]) > 0.999 else np.array([0.0, 0.0, 1.0])
    right = np.cross(forward, helper)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    corners = np.array([[sides[i, 0], sides[j, 1], sides[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    seen = corners @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    pixel = max(pixel_m, float((high - low)[:2].max()) / _MAX_SIDE_PX)
    width, height = (int(np.ceil(side / pixel)) + 1 for side in (high - low)[:2])
    depth = np.full((height, width), np.inf, np.float32)
    _fill_depth(points, faces, axes, low, 1.0 / pixel, depth)
    return DepthMap(axes, low, pixel, depth)


def bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest and highest coordinates, (2, 3)."""
    return np.array([[c.min() for c in points.T], [c.max() for c in points.T]])


@njit(cache=True, nogil=True)
def _fill_depth(points, faces, axes, low, inv, depth):  # type: ignore[no-untyped-def]
    """Depth alone, both sides of every face, edges included: half the work of the common rasteriser."""
    height, width = depth.shape
    n = points.shape[0]
    seen = np.empty((n, 3))
    for p in range(n):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        seen[p, 0] = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z - low[0]) * inv - 0.5
        seen[p, 1] = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z - low[1]) * inv - 0.5
        seen[p, 2] = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z - low[2]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = seen[a, 0], seen[a, 1], seen[a, 2]
        x1, y1, z1 = seen[b, 0], seen[b, 1], seen[b, 2]
        x2, y2, z2 = seen[c, 0], seen[c, 1], seen[c, 2]
        c_lo, c_hi = int(np.ceil(min(x0, x1, x2))), int(np.floor(max(x0, x1, x2)))
        r_lo, r_hi = int(np.ceil(min(y0, y1, y2))), int(np.floor(max(y0, y1, y2)))
        if c_lo > c_hi or r_lo > r_hi:
            continue
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        if abs(area) < 1e-12:
            continue
        s = 1.0 / area
        for r in range(max(r_lo, 0), min(r_hi, height - 1) + 1):
            for q in range(max(c_lo, 0), min(c_hi, width - 1) + 1):
                w0 = ((x1 - q) * (y2 - r) - (y1 - r) * (x2 - q)) * s
                w1 = ((x2 - q) * (y0 - r) - (y2 - r) * (x0 - q)) * s
                w2 = 1.0 - w0 - w1
                if w0 >= -1e-9 and w1 >= -1e-9 and w2 >= -1e-9:
                    z = np.float32(w0 * z0 + w1 * z1 + w2 * z2)
                    if z < depth[r, q]:
                        depth[r, q] = z
