"""The z-buffer: which triangle is seen through the centre of each pixel.

Screen coordinates follow the pixel convention of `cameras`: (0, 0) is the top-left corner of the first
pixel, u to the right, v down, so the sample of pixel (row, col) lies at (col + 0.5, row + 0.5).

Two kinds of projection are served. In an affine-like one (satellite views, maps) `depth` is any quantity
that is linear on the screen, usually the height, and `nearest="largest"` lets the highest surface win. In a
perspective one `depth` is the distance along the optical axis, whose inverse is linear on the screen.

Edges are evaluated from their two end points in a fixed order, so the two triangles beside an edge compute
the same bits with opposite sign: no sample is lost between them and none is covered twice. A sample exactly
on an edge belongs to the side the top-left rule names. Equal depths go to the lowest face number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

Nearest = Literal["smallest", "largest"]

NO_FACE = -1


@dataclass(frozen=True)
class Fragments:
    """What the pixels see.

    face: int32 [h, w], -1 where nothing is seen.
    depth: float32 [h, w], NaN where nothing is seen.
    bary: float32 [h, w, 2], weights of the first two corners of `face`; the third is the rest to one. In a
        perspective projection they are already corrected, so they weigh attributes in space.
    """

    face: NDArray[np.int32]
    depth: NDArray[np.float32]
    bary: NDArray[np.float32]

    @property
    def seen(self) -> NDArray[np.bool_]:
        return self.face >= 0

    def interpolate(self, faces_mx3: NDArray[Any], values_n: NDArray[Any]) -> NDArray[np.float64]:
        """Values given per vertex, (n,) or (n, k), at the pixels; NaN where nothing is seen."""
        corner = faces_mx3[np.maximum(self.face, 0)]  # [h, w, 3]
        b0 = self.bary[..., 0].astype(np.float64)
        b1 = self.bary[..., 1].astype(np.float64)
        weight = (b0, b1, 1.0 - b0 - b1)
        out: Any = 0.0
        for k in range(3):
            value = np.asarray(values_n, dtype=np.float64)[corner[..., k]]
            out = out + (value * weight[k][..., None] if value.ndim == 3 else value * weight[k])
        out[~self.seen] = np.nan
        return out  # type: ignore[no-any-return]


def rasterise(
    screen_nx2: NDArray[Any],
    depth_n: NDArray[Any],
    faces_mx3: NDArray[Any],
    width: int,
    height: int,
    nearest: Nearest = "smallest",
    perspective: bool = False,
) -> Fragments:
    """Rasterise triangles of either orientation; corners that are not finite drop their triangle.

    With `perspective` every depth must be positive: clip with `clip_near` first.
    """
    screen, depth, faces = checked(screen_nx2, depth_n, faces_mx3, (width, height), nearest)
    face = np.full((height, width), NO_FACE, dtype=np.int32)
    best = np.full((height, width), np.nan, dtype=np.float32)
    bary = np.zeros((height, width, 2), dtype=np.float32)
    _fill(screen, depth, faces, nearest == "largest", perspective, face, best, bary)
    return Fragments(face, best, bary)


def checked(
    screen_nx2: NDArray[Any], depth_n: NDArray[Any], faces_mx3: NDArray[Any], size: tuple[int, int], nearest: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """What a rasteriser is given, in the types that it works with; `size` is width and height."""
    screen = np.ascontiguousarray(screen_nx2, dtype=np.float64)
    depth = np.ascontiguousarray(depth_n, dtype=np.float64)
    width, height = size
    if screen.ndim != 2 or screen.shape[1] != 2 or depth.shape != screen.shape[:1]:
        raise ValueError(f"screen {screen.shape} and depth {depth.shape}: (n, 2) and (n,) are accepted")
    if width < 1 or height < 1:
        raise ValueError(f"picture of {width} x {height} pixels: at least 1 x 1 is accepted")
    if nearest not in ("smallest", "largest"):
        raise ValueError(f"nearest={nearest!r}: 'smallest' or 'largest' is accepted")
    return screen, depth, np.ascontiguousarray(faces_mx3, dtype=np.int32).reshape(-1, 3)


@njit(cache=True, nogil=True, inline="always")
def _edge_setup(ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """An edge a->b from its lower end point, with the sign that restores the direction a->b."""
    if ay < by or (ay == by and ax <= bx):
        return ax, ay, bx - ax, by - ay, 1.0
    return bx, by, ax - bx, ay - by, -1.0


@njit(cache=True, nogil=True, inline="always")
def _owns(ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """Whether samples exactly on edge a->b are inside, the inside being where the edge value is positive.

    With v down and positive inside, that is a left edge (going up) or a top edge (horizontal, to the right).
    """
    return by < ay or (by == ay and bx > ax)


@njit(cache=True, nogil=True, inline="always")
def _span(value_at_left, slope, lo, hi):  # type: ignore[no-untyped-def]
    """Part of the columns [lo, hi) where value_at_left + slope * (col - lo) can be >= 0, one column wider."""
    if slope > 0.0:
        t = -value_at_left / slope
        if t > hi - lo + 1.0:
            return hi, hi
        if t > 1.0:
            return lo + int(t) - 1, hi
    elif slope < 0.0:
        t = -value_at_left / slope
        if t < -1.0:
            return hi, hi
        if t < hi - lo - 2.0:
            return lo, lo + int(t) + 2
    elif value_at_left < 0.0:
        return hi, hi
    return lo, hi


@njit(cache=True, nogil=True)
def _fill(screen, depth, faces, largest, perspective, out_face, out_depth, out_bary):  # type: ignore[no-untyped-def]
    height, width = out_face.shape
    for f in range(faces.shape[0]):
        i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0 = screen[i0, 0], screen[i0, 1]
        x1, y1 = screen[i1, 0], screen[i1, 1]
        x2, y2 = screen[i2, 0], screen[i2, 1]
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        z0, z1, z2 = depth[i0], depth[i1], depth[i2]
        if not np.isfinite(area) or area == 0.0 or not np.isfinite(z0 + z1 + z2):
            continue
        turned = area < 0.0
        if turned:  # swap corners 1 and 2, swap their weights back when writing
            x1, x2 = x2, x1
            y1, y2 = y2, y1
            z1, z2 = z2, z1
        xmin, xmax = min(x0, x1, x2), max(x0, x1, x2)
        ymin, ymax = min(y0, y1, y2), max(y0, y1, y2)
        if xmax < 0.5 or ymax < 0.5 or xmin > width - 0.5 or ymin > height - 0.5:
            continue
        c_lo = int(max(np.ceil(xmin - 0.5), 0.0))
        c_hi = int(min(np.floor(xmax - 0.5), width - 1.0)) + 1
        r_lo = int(max(np.ceil(ymin - 0.5), 0.0))
        r_hi = int(min(np.floor(ymax - 0.5), height - 1.0)) + 1
        if c_lo >= c_hi or r_lo >= r_hi:
            continue
        # edge k lies opposite corner k; its value over the sum of the three is that corner's weight
        ax0, ay0, dx0, dy0, s0 = _edge_setup(x1, y1, x2, y2)
        ax1, ay1, dx1, dy1, s1 = _edge_setup(x2, y2, x0, y0)
        ax2, ay2, dx2, dy2, s2 = _edge_setup(x0, y0, x1, y1)
        own0, own1, own2 = _owns(x1, y1, x2, y2), _owns(x2, y2, x0, y0), _owns(x0, y0, x1, y1)
        inv = 1.0 / abs(area)
        q0, q1, q2 = z0, z1, z2
        if perspective:
            q0, q1, q2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
        for r in range(r_lo, r_hi):
            py = r + 0.5
            k0, k1, k2 = dx0 * (py - ay0), dx1 * (py - ay1), dx2 * (py - ay2)
            px = c_lo + 0.5
            lo, hi = _span(s0 * (k0 - dy0 * (px - ax0)), -s0 * dy0, c_lo, c_hi)
            if lo < hi:
                px = lo + 0.5
                lo, hi = _span(s1 * (k1 - dy1 * (px - ax1)), -s1 * dy1, lo, hi)
            if lo < hi:
                px = lo + 0.5
                lo, hi = _span(s2 * (k2 - dy2 * (px - ax2)), -s2 * dy2, lo, hi)
            for c in range(lo, hi):
                px = c + 0.5
                e0 = s0 * (k0 - dy0 * (px - ax0))
                e1 = s1 * (k1 - dy1 * (px - ax1))
                e2 = s2 * (k2 - dy2 * (px - ax2))
                if e0 < 0.0 or e1 < 0.0 or e2 < 0.0:
                    continue
                if (e0 == 0.0 and not own0) or (e1 == 0.0 and not own1) or (e2 == 0.0 and not own2):
                    continue
                b0, b1 = e0 * inv, e1 * inv
                b2 = 1.0 - b0 - b1
                q = b0 * q0 + b1 * q1 + b2 * q2
                z = q
                if perspective:
                    z = 1.0 / q
                z32 = np.float32(z)
                old = out_depth[r, c]
                if out_face[r, c] >= 0:
                    if largest:
                        if not z32 > old:
                            continue
                    elif not z32 < old:
                        continue
                if perspective:
                    b0, b1, b2 = b0 * q0 * z, b1 * q1 * z, b2 * q2 * z
                out_face[r, c] = f
                out_depth[r, c] = z32
                out_bary[r, c, 0] = b0
                out_bary[r, c, 1] = b2 if turned else b1


@dataclass(frozen=True)
class Clipped:
    """Triangles after the near plane: first the `whole` ones that it did not touch, then pieces of cut ones.

    parent: which given face each one is of. weights [cut, 3, 3]: corner k of piece m is
    weights[m, k] @ (corners of its parent).
    """

    points: NDArray[np.float64]
    faces: NDArray[np.int32]
    parent: NDArray[np.int32]
    whole: int
    weights: NDArray[np.float64]


def clip_near(camera_nx3: NDArray[Any], faces_mx3: NDArray[Any], near: float) -> Clipped:
    """Cut triangles in camera coordinates (z forward) at z = near."""
    points = np.ascontiguousarray(camera_nx3, dtype=np.float64)
    faces = np.ascontiguousarray(faces_mx3, dtype=np.int32).reshape(-1, 3)
    front = points[:, 2] >= near
    if front.all():
        return Clipped(points, faces, np.arange(len(faces), dtype=np.int32), len(faces), np.zeros((0, 3, 3)))
    count = front[faces].sum(axis=1)
    whole = np.flatnonzero(count == 3)
    new_points, new_faces, parent = [points], [faces[whole]], [whole]
    weights = [np.zeros((0, 3, 3))]
    base = len(points)
    for f in np.flatnonzero((count == 1) | (count == 2)):
        polygon = _clip_one(points[faces[f]], near)
        corners = polygon @ points[faces[f]]
        corners[:, 2] = np.maximum(corners[:, 2], near)
        fan = np.array([[0, k, k + 1] for k in range(1, len(polygon) - 1)], dtype=np.int32)
        new_points.append(corners)
        new_faces.append(fan + np.int32(base))
        parent.append(np.full(len(fan), f))
        weights.append(polygon[fan])
        base += len(corners)
    return Clipped(
        np.concatenate(new_points),
        np.concatenate(new_faces).astype(np.int32),
        np.concatenate(parent).astype(np.int32),
        len(whole),
        np.concatenate(weights),
    )


def _clip_one(corners_3x3: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """Corners of the part in front of the plane, as weights of the triangle's corners."""
    identity = np.eye(3)
    out = []
    for k in range(3):
        a, b = corners_3x3[k, 2], corners_3x3[(k + 1) % 3, 2]
        if a >= near:
            out.append(identity[k])
        if (a >= near) != (b >= near):
            t = (near - a) / (b - a)
            out.append((1.0 - t) * identity[k] + t * identity[(k + 1) % 3])
    return np.array(out)


def rasterise_pinhole(
    camera_nx3: NDArray[Any],
    faces_mx3: NDArray[Any],
    focal_px: float,
    cx: float,
    cy: float,
    width: int,
    height: int,
    near: float = 0.1,
) -> Fragments:
    """A perspective picture of vertices in camera coordinates (x right, y down, z forward).

    Faces and weights are those of the given triangles also where the near plane cut them.
    """
    cut = clip_near(camera_nx3, faces_mx3, near)
    z = np.where(cut.points[:, 2] >= near, cut.points[:, 2], np.nan)
    screen = np.stack([focal_px * cut.points[:, 0] / z + cx, focal_px * cut.points[:, 1] / z + cy], axis=1)
    seen = rasterise(screen, z, cut.faces, width, height, "smallest", perspective=True)
    if cut.whole == len(faces_mx3):
        return seen
    bary = seen.bary.copy()
    pieces = seen.face >= cut.whole
    if pieces.any():
        b = seen.bary[pieces].astype(np.float64)
        full = np.stack([b[:, 0], b[:, 1], 1.0 - b[:, 0] - b[:, 1]], axis=1)
        weights = cut.weights[seen.face[pieces] - cut.whole]
        bary[pieces] = (full[:, :, None] * weights).sum(axis=1)[:, :2]
    parent = np.append(cut.parent, np.int32(NO_FACE))  # so that "none" stays none
    return Fragments(parent[seen.face], seen.depth, bary)
