"""A source view inside a tile: its camera, what of the tile it can see, and what a texel's colour is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from cityweave.cameras import PolyCamera, project_poly
from cityweave.render.rasterise_cuda import rasterise_here
from cityweave.texture.atlas import Triangles
from cityweave.texture.charts import face_frame

_ALIKE = 64.0  # of 127: normals within 60 degrees belong to one surface
_OTHER_SURFACE = 0.02  # share of a pixel whose centre shows another surface
_NOTHING = np.float32(-1e9)  # height where a view's z-buffer holds nothing: hides nothing


@dataclass(frozen=True)
class SourceView:
    """image: native type [bands, rows, cols], 1 or at least 3 bands; valid: bool [rows, cols].

    The camera takes tile-local metres. `gain` and `offset` (3,) take digital numbers to the 0..255 scale that all
    views and tiles share, before gamma.
    """

    name: str
    image: np.ndarray
    valid: np.ndarray
    camera: PolyCamera
    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class VisibilitySettings:
    """When a texel counts as seen, and how much a view's look at it is worth.

    bias_m: height a point may lie below the z-buffer and still be seen, on top of what the slope of its face makes of
        one pixel; at most largest_bias_m in all.
    edge_weight: factor for texels within a pixel of something that stands before them: their pixel mixes both.
    view_power: weights go with the seen area (pixels per m² of surface) to this power.
    """

    bias_m: float = 0.4
    largest_bias_m: float = 4.0
    edge_weight: float = 0.1
    view_power: float = 2.0
    smallest_cos: float = 0.05
    border_px: float = 8.0


@dataclass(frozen=True)
class PreparedView:
    """A view cut to what the tile needs: images and z-buffers start at pixel (row0, col0) of the source."""

    image: np.ndarray  # (3 or 1, rows, cols)
    quality: np.ndarray  # (rows, cols) float32 in 0..1: 0 invalid, rising from the picture's border
    height: np.ndarray  # (rows, cols) float32 of the highest surface at the pixel centre
    around: np.ndarray  # (rows, cols) float32, highest of the 3 x 3 pixels
    facing: np.ndarray  # (rows, cols, 3) int8, 127 times the normal seen at the pixel centre
    col0: int
    row0: int
    camera: tuple[np.ndarray, np.ndarray, np.ndarray]
    toward: np.ndarray  # (3,) unit vector to the camera
    move: np.ndarray  # (3,2): metres on the ground plane per pixel in u and v
    area_px: float  # pixels per m² of a surface that faces the camera
    gain: np.ndarray
    offset: np.ndarray


def prepare(
    view: SourceView, own: Triangles, occluders: Triangles, settings: VisibilitySettings
) -> PreparedView | None:
    """None when no pixel of the view shows the tile."""
    u, v = view.camera.project(*own.xyz.T)
    rows, cols = view.image.shape[1:]
    margin = 3
    col0, col1 = max(int(np.floor(u.min())) - margin, 0), min(int(np.ceil(u.max())) + margin, cols)
    row0, row1 = max(int(np.floor(v.min())) - margin, 0), min(int(np.ceil(v.max())) + margin, rows)
    if col0 >= col1 or row0 >= row1:
        return None
    window = (slice(row0, row1), slice(col0, col1))
    valid = view.valid[window]
    if not valid.any():
        return None
    scene = Triangles.joined([own, occluders])
    su, sv = view.camera.project(*scene.xyz.T)
    screen = np.stack([su - col0, sv - row0], axis=1)
    seen = rasterise_here(screen, scene.xyz[:, 2], scene.faces, col1 - col0, row1 - row0, "largest")
    height = np.where(seen.seen, seen.depth, _NOTHING).astype(np.float32)
    normal = np.rint(face_frame(scene.xyz, scene.faces).normal * 127.0).astype(np.int8)
    facing = normal[np.maximum(seen.face, 0)]
    image = view.image if view.image.shape[0] < 3 else view.image[:3]
    toward, move, area_px = _local_geometry(view.camera)
    border = _distance_to_border(view.image.shape[1:], settings.border_px)[window]
    bands = len(image)
    return PreparedView(
        image=np.ascontiguousarray(image[:1] if bands < 3 else image, dtype=image.dtype)[:, window[0], window[1]],
        quality=np.where(valid, border, 0.0).astype(np.float32),
        height=height,
        around=_highest_3x3(height),
        facing=facing,
        col0=col0,
        row0=row0,
        camera=view.camera.arrays(),
        toward=toward,
        move=move,
        area_px=area_px,
        gain=np.asarray(view.gain, np.float64),
        offset=np.asarray(view.offset, np.float64),
    )  # fmt: skip


def _distance_to_border(shape: tuple[int, ...], width_px: float) -> np.ndarray:
    """0 at the picture's edge, 1 from `width_px` inwards: views must not end in a step."""
    rows, cols = (np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) / max(width_px, 0.5) for n in shape)
    return np.minimum(np.minimum.outer(rows, cols), 1.0).astype(np.float32)


def _local_geometry(camera: PolyCamera) -> tuple[np.ndarray, np.ndarray, float]:
    """The camera's linear part at its centre: direction to the satellite, ground metres per pixel, pixels per m²."""
    linear = camera.coefficients[:, 1:4] / camera.scale  # (2,3) pixels per metre
    toward = np.cross(linear[0], linear[1])
    area_px = float(np.linalg.norm(toward))  # of a unit square across the ray
    toward = toward / area_px
    if toward[2] < 0:
        toward = -toward
    move = np.zeros((3, 2))
    move[:2] = np.linalg.inv(linear[:, :2])
    return toward, move, area_px


@njit(cache=True, nogil=True)
def _highest_3x3(height):  # type: ignore[no-untyped-def]
    rows, cols = height.shape
    wide = np.empty_like(height)
    for r in range(rows):
        for c in range(cols):
            best = height[r, c]
            if c > 0 and height[r, c - 1] > best:
                best = height[r, c - 1]
            if c + 1 < cols and height[r, c + 1] > best:
                best = height[r, c + 1]
            wide[r, c] = best
    out = np.empty_like(height)
    for r in range(rows):
        for c in range(cols):
            best = wide[r, c]
            if r > 0 and wide[r - 1, c] > best:
                best = wide[r - 1, c]
            if r + 1 < rows and wide[r + 1, c] > best:
                best = wide[r + 1, c]
            out[r, c] = best
    return out


def look(
    view: PreparedView,
    points: np.ndarray,
    normals: np.ndarray,
    slack_m: float,
    settings: VisibilitySettings,
    colour: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Fill colour (k,3) float32 and weight (k,) float32 of points (k,3) with unit normals; weight 0 is unseen.

    `slack_m` is added to the bias: how far the points may lie from the surface that was rasterised.
    """
    params = np.array(
        [
            settings.bias_m + slack_m,
            settings.largest_bias_m + slack_m,
            settings.edge_weight,
            settings.view_power,
            settings.smallest_cos,
        ]
    )
    offsets = np.array([view.col0, view.row0], np.float64)
    _look(
        points, normals, view.image, view.quality, view.height, view.around, view.facing, offsets, *view.camera,
        view.toward, view.move, view.area_px, view.gain, view.offset, params, colour, weight,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _look(  # type: ignore[no-untyped-def]
    points, normals, image, quality, height, around, facing, offsets, coef, centre, scale,
    toward, move, area_px, gain, offset, params, out_colour, out_weight,
):  # fmt: skip
    bias, most, edge_weight, power, least = params[0], params[1], params[2], params[3], params[4]
    bands, rows, cols = image.shape
    taps = np.zeros(4)
    for k in range(points.shape[0]):
        out_weight[k] = 0.0
        n0, n1, n2 = normals[k, 0], normals[k, 1], normals[k, 2]
        cosine = n0 * toward[0] + n1 * toward[1] + n2 * toward[2]
        if cosine < least:
            continue
        z = points[k, 2]
        u, v = project_poly(coef, centre, scale, points[k, 0], points[k, 1], z)
        x, y = u - offsets[0] - 0.5, v - offsets[1] - 0.5
        if not (x >= 0.0 and y >= 0.0 and x <= cols - 1.0 and y <= rows - 1.0):
            continue
        c, r = min(int(x), cols - 2), min(int(y), rows - 2)
        fx, fy = x - c, y - r
        # One pixel along the face changes the height by so much: the ground step, then along the ray to the face.
        slope = 0.0
        for j in range(2):
            slope += abs((n0 * move[0, j] + n1 * move[1, j]) / cosine * toward[2])
        near = min(bias + slope, most)
        taps[0], taps[1] = (1.0 - fx) * (1.0 - fy), fx * (1.0 - fy)
        taps[2], taps[3] = (1.0 - fx) * fy, fx * fy
        seen, fine, total = 0.0, 0.0, 0.0
        usable = True
        for t in range(4):
            row, col = r + t // 2, c + t % 2
            if taps[t] <= 0.0:
                continue
            if quality[row, col] == 0.0:  # interpolation must not reach into pixels without data
                usable = False
                break
            there = height[row, col]
            if there > z + near:
                taps[t] = 0.0
                continue
            seen += taps[t]
            fine += taps[t] * quality[row, col]
            # The pixel's centre shows something else: the far side of an edge, or the other side of a crease.
            alike = (n0 * facing[row, col, 0] + n1 * facing[row, col, 1] + n2 * facing[row, col, 2]) > _ALIKE
            if there < z - near or not alike:
                taps[t] *= _OTHER_SURFACE
            total += taps[t]
        if not usable or seen < 0.5:
            continue
        weight = fine * seen * (area_px * cosine) ** power * max(total / seen, edge_weight)
        nearest = around[int(y + 0.5), int(x + 0.5)]
        if nearest > z + min(bias + 2.0 * slope, most):
            weight *= edge_weight
        out_weight[k] = weight
        for b in range(3):
            i = b if bands >= 3 else 0
            value = 0.0
            for t in range(4):
                if taps[t] > 0.0:
                    value += taps[t] * image[i, r + t // 2, c + t % 2]
            out_colour[k, b] = value / total * gain[b] + offset[b]
