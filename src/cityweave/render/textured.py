"""Pictures of textured tile meshes: through a pinhole, or straight from above.

Tiles are drawn one after the other into one depth buffer, at several samples a pixel that are averaged at the end.
Where a texture is finer than the samples a halved copy of it is read, chosen per face.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.cameras import Pinhole
from cityweave.io.textures import OUTSIDE
from cityweave.render.rasterise import Fragments, rasterise_pinhole
from cityweave.render.rasterise_cuda import rasterise_here

_HALVINGS = 2  # further ones would mix charts that lie side by side in an atlas
_NEAR_M = 1.0
NO_TILE = -1


@dataclass(frozen=True)
class TexturedMesh:
    """`uv` (m, 3, 2) in 0..1 of `colour`, v down; points in metres, in the frame of the camera."""

    points: NDArray[np.float64]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32]
    colour: NDArray[np.uint8]
    provenance: NDArray[np.uint8]

    @cached_property
    def pyramid(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        return _pyramid(self.colour)

    @cached_property
    def texels(self) -> NDArray[np.float64]:
        """Twice the area of each face in texels."""
        return _twice_area(self.uv.astype(np.float64) * [self.colour.shape[1], self.colour.shape[0]])

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        a, b, c = (self.points[self.faces[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        return (normal / np.maximum(np.sqrt((normal * normal).sum(axis=1)), 1e-12)[:, None]).astype(np.float32)


@dataclass(frozen=True)
class MapView:
    """Straight from above: the north-west corner (x, y) and the size of a pixel."""

    west: float
    north: float
    pixel_m: float
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """Samples of a picture. Nothing drawn: depth inf, tile -1, provenance 255."""

    rgb: NDArray[np.uint8]  # (h, w, 3)
    depth: NDArray[np.float32]  # (h, w) along the optical axis; minus the height in a map view
    normal: NDArray[np.float32]  # (h, w, 3) of the face, upwards or towards the camera is not promised
    tile: NDArray[np.int16]
    provenance: NDArray[np.uint8]
    samples: int  # per pixel and axis

    def averaged(self) -> NDArray[np.uint8]:
        """The picture (h / samples, w / samples, 3)."""
        return halved_by(self.rgb, self.samples)

    def centre(self, layer: NDArray[Any]) -> NDArray[Any]:
        """One sample per pixel of another layer, the one at or right below the pixel's centre."""
        start = self.samples // 2
        return layer[start :: self.samples, start :: self.samples]


def halved_by(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Mean over side x side blocks, rounded."""
    if side == 1:
        return picture
    out = np.empty((picture.shape[0] // side, picture.shape[1] // side, picture.shape[2]), np.uint8)
    _average(picture, side, out)
    return out


@njit(cache=True, nogil=True)
def _average(picture, side, out):  # type: ignore[no-untyped-def]
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            for k in range(out.shape[2]):
                total = side * side // 2
                for i in range(side):
                    for j in range(side):
                        total += picture[r * side + i, c * side + j, k]
                out[r, c, k] = total // (side * side)


def render(
    meshes: Iterable[TexturedMesh],
    view: Pinhole | MapView,
    samples: int = 2,
    background: tuple[int, int, int] = (0, 0, 0),
) -> Frame:
    """Draw the meshes in their order; equal depths go to the earlier one."""
    h, w = view.height * samples, view.width * samples
    frame = Frame(
        np.empty((h, w, 3), np.uint8),
        np.full((h, w), np.inf, np.float32),
        np.zeros((h, w, 3), np.float32),
        np.full((h, w), NO_TILE, np.int16),
        np.full((h, w), OUTSIDE, np.uint8),
        samples,
    )
    frame.rgb[:] = background
    for number, mesh in enumerate(meshes):
        if len(mesh.faces) and len(mesh.points):
            _draw(frame, mesh, view, number)
    return frame


def _draw(frame: Frame, mesh: TexturedMesh, view: Pinhole | MapView, number: int) -> None:
    fragments, screen = fragments_of(mesh.points, mesh.faces, view, frame.samples)
    if not fragments.seen.any():
        return
    picture, starts, shapes = mesh.pyramid
    _shade(
        fragments.face,
        fragments.depth,
        fragments.bary,
        np.ascontiguousarray(mesh.uv, np.float32),
        _levels(mesh, screen, len(starts)),
        mesh.normals,
        picture,
        starts,
        shapes,
        np.ascontiguousarray(mesh.provenance),
        number,
        frame.rgb,
        frame.depth,
        frame.normal,
        frame.tile,
        frame.provenance,
    )


def fragments_of(
    points: NDArray[np.float64], faces: NDArray[np.int32], view: Pinhole | MapView, samples: int
) -> tuple[Fragments, NDArray[np.float64]]:
    """What the samples see, and where the points lie on the screen (NaN behind the camera)."""
    w, h = view.width * samples, view.height * samples
    if isinstance(view, MapView):
        scale = samples / view.pixel_m
        screen = np.stack([(points[:, 0] - view.west) * scale, (view.north - points[:, 1]) * scale], axis=1)
        return rasterise_here(screen, -points[:, 2], faces, w, h), screen
    focal, cx, cy = view.focal_px * samples, view.cx * samples, view.cy * samples
    camera, screen = _to_camera(np.ascontiguousarray(points), view.position, view.rotation, focal, cx, cy, _NEAR_M)
    depth = np.ascontiguousarray(camera[:, 2])
    if depth.min() >= _NEAR_M:
        return rasterise_here(screen, depth, faces, w, h, "smallest", perspective=True), screen
    return rasterise_pinhole(camera, faces, focal, cx, cy, w, h, near=_NEAR_M), screen


@njit(cache=True, nogil=True)
def _to_camera(points, position, rotation, focal, cx, cy, near):  # type: ignore[no-untyped-def]
    """Camera coordinates (n, 3) and the screen (n, 2), NaN in front of the near plane."""
    n = points.shape[0]
    camera, screen = np.empty((n, 3)), np.full((n, 2), np.nan)
    for p in range(n):
        x, y, z = points[p, 0] - position[0], points[p, 1] - position[1], points[p, 2] - position[2]
        for k in range(3):
            camera[p, k] = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2] * z
        if camera[p, 2] >= near:
            screen[p, 0] = focal * camera[p, 0] / camera[p, 2] + cx
            screen[p, 1] = focal * camera[p, 1] / camera[p, 2] + cy
    return camera, screen


def _pyramid(colour: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Halved copies in one flat array (texels, 3), where each starts, and their shapes."""
    levels = [colour]
    while len(levels) <= _HALVINGS and min(levels[-1].shape[:2]) >= 2:
        levels.append(halved_by(levels[-1], 2))
    shapes = np.array([level.shape[:2] for level in levels], np.int64)
    sizes = shapes.prod(axis=1)
    return np.concatenate([level.reshape(-1, 3) for level in levels]), np.cumsum(sizes) - sizes, shapes


@njit(cache=True, nogil=True)
def _twice_area(corners):  # type: ignore[no-untyped-def]
    out = np.empty(corners.shape[0])
    for f in range(corners.shape[0]):
        px, py = corners[f, 1, 0] - corners[f, 0, 0], corners[f, 1, 1] - corners[f, 0, 1]
        qx, qy = corners[f, 2, 0] - corners[f, 0, 0], corners[f, 2, 1] - corners[f, 0, 1]
        out[f] = abs(px * qy - py * qx)
    return out


def _levels(mesh: TexturedMesh, screen: NDArray[np.float64], levels: int) -> NDArray[np.uint8]:
    """Per face, the halving at which a texel is about as large as a sample."""
    with np.errstate(divide="ignore", invalid="ignore"):
        halvings = np.floor(0.5 * np.log2(mesh.texels / _twice_area(screen[mesh.faces])) + 0.5)
    return np.clip(np.nan_to_num(halvings, nan=0.0, posinf=levels - 1), 0, levels - 1).astype(np.uint8)


@njit(cache=True, nogil=True)
def _shade(  # type: ignore[no-untyped-def]
    face, depth, bary, uv, level, normal, picture, starts, shapes, provenance, number,
    out_rgb, out_depth, out_normal, out_tile, out_provenance,
):  # fmt: skip
    rows, cols = face.shape
    for r in range(rows):
        for c in range(cols):
            f = face[r, c]
            if f < 0 or not depth[r, c] < out_depth[r, c]:
                continue
            out_depth[r, c] = depth[r, c]
            out_tile[r, c] = number
            b0, b1 = np.float64(bary[r, c, 0]), np.float64(bary[r, c, 1])
            b2 = 1.0 - b0 - b1
            s = b0 * uv[f, 0, 0] + b1 * uv[f, 1, 0] + b2 * uv[f, 2, 0]
            t = b0 * uv[f, 0, 1] + b1 * uv[f, 1, 1] + b2 * uv[f, 2, 1]
            for k in range(3):
                out_normal[r, c, k] = normal[f, k]
            ph, pw = provenance.shape
            pr, pc = min(max(int(t * ph), 0), ph - 1), min(max(int(s * pw), 0), pw - 1)
            out_provenance[r, c] = provenance[pr, pc]
            n = level[f]
            h, w = shapes[n, 0], shapes[n, 1]
            x = min(max(s * w - 0.5, 0.0), w - 1.0)
            y = min(max(t * h - 0.5, 0.0), h - 1.0)
            x0, y0 = int(x), int(y)
            x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
            fx, fy = x - x0, y - y0
            top, bottom = starts[n] + y0 * w, starts[n] + y1 * w
            for k in range(3):
                value = (1 - fy) * ((1 - fx) * picture[top + x0, k] + fx * picture[top + x1, k]) + fy * (
                    (1 - fx) * picture[bottom + x0, k] + fx * picture[bottom + x1, k]
                )
                out_rgb[r, c, k] = np.uint8(value + 0.5)
