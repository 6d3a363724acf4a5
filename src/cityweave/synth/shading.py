"""Light on the scene: sun with cast shadows, sky with what surrounding buildings hide of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.render.rasterise import Fragments, rasterise
from cityweave.synth import materials as m
from cityweave.synth.scene import Scene

SHADOW_CELL_M = 0.3
SKY_CELL_M = 2.0
BAND_ROWS = 384


@dataclass(frozen=True)
class Sun:
    azimuth_deg: float
    elevation_deg: float

    @property
    def direction(self) -> NDArray[np.float64]:
        a, e = np.radians(self.azimuth_deg), np.radians(self.elevation_deg)
        return np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])


@dataclass(frozen=True)
class Shaded:
    """Arrays the kernel reads, the same for every view; a sun's own are in `SunMap`."""

    scene: Scene
    normals: NDArray[np.float32]
    slope: NDArray[np.float32]  # [rows, cols, 2] terrain gradient at nodes
    around: NDArray[np.float32]  # [rows, cols, 2] mean height of the surface near and farther
    around_corner: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class SunMap:
    sun: Sun
    depth: NDArray[np.float32]  # distance towards the sun of the nearest surface to it
    frame: NDArray[np.float64]  # [3, 4] local metres to (column, row, distance)


def bands(height: int) -> list[tuple[int, int]]:
    return [(r, min(r + BAND_ROWS, height)) for r in range(0, height, BAND_ROWS)]


def band_fragments(
    screen: NDArray[np.float64],
    depth: NDArray[np.float64],
    faces: NDArray[np.int32],
    reach: NDArray[np.float64],
    width: int,
    rows: tuple[int, int],
) -> Fragments:
    """Rows of a picture seen from above; `reach` [m, 2] is each face's lowest and highest v."""
    chosen = np.flatnonzero((reach[:, 1] >= rows[0]) & (reach[:, 0] <= rows[1]))
    moved = screen - np.array([0.0, rows[0]])
    part = rasterise(moved, depth, faces[chosen], width, rows[1] - rows[0], "largest")
    if len(chosen):
        hit = part.face >= 0
        part.face[hit] = chosen[part.face[hit]]
    return part


def face_reach(v: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    corner = v[faces]
    return np.stack([corner.min(axis=1), corner.max(axis=1)], axis=1)


def depth_map(
    screen: NDArray[np.float64], depth: NDArray[np.float64], faces: NDArray[np.int32], width: int, height: int
) -> NDArray[np.float32]:
    reach = face_reach(screen[:, 1], faces)
    out = np.empty((height, width), dtype=np.float32)
    for rows in bands(height):
        out[rows[0] : rows[1]] = band_fragments(screen, depth, faces, reach, width, rows).depth
    return out


def turned(points_nx3: NDArray[np.float64], axes_3x3: NDArray[np.float64]) -> NDArray[np.float64]:
    """points @ axes.T without the linear algebra library, whose sums may depend on the number of threads."""
    x, y, z = points_nx3.T
    return np.stack([x * a[0] + y * a[1] + z * a[2] for a in axes_3x3], axis=1)


def face_normals(scene: Scene) -> NDArray[np.float32]:
    p = scene.vertices[scene.faces]
    n = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    length = np.linalg.norm(n, axis=1, keepdims=True)
    return (n / np.maximum(length, 1e-12)).astype(np.float32)


def prepare(scene: Scene, seed: int) -> Shaded:
    from scipy.ndimage import gaussian_filter

    slope_y, slope_x = np.gradient(scene.terrain.astype(np.float64), scene.terrain_cell_m)
    x0, y0 = scene.terrain_corner
    rows = max(2, int((scene.terrain.shape[0] - 1) * scene.terrain_cell_m / SKY_CELL_M))
    cols = max(2, int((scene.terrain.shape[1] - 1) * scene.terrain_cell_m / SKY_CELL_M))
    screen = (scene.vertices[:, :2] - np.array([x0, y0])) / SKY_CELL_M
    top = depth_map(screen, scene.vertices[:, 2], scene.faces, cols, rows)
    top = np.where(np.isfinite(top), top, np.nanmin(top)).astype(np.float64)
    around = np.stack([gaussian_filter(top, 5.0 / SKY_CELL_M), gaussian_filter(top, 16.0 / SKY_CELL_M)], axis=-1)
    slope = np.stack([slope_x, slope_y], axis=-1).astype(np.float32)
    return Shaded(scene, face_normals(scene), slope, around.astype(np.float32), (x0, y0), seed)


def sun_map(scene: Scene, sun: Sun) -> SunMap:
    d = sun.direction
    right = np.array([-d[1], d[0], 0.0])
    right /= np.linalg.norm(right)
    up = np.cross(d, right)
    axes = np.stack([right / SHADOW_CELL_M, up / SHADOW_CELL_M, d])
    q = turned(scene.vertices, axes)
    low = np.floor(q[:, :2].min(axis=0)) - 2.0
    size = np.ceil(q[:, :2].max(axis=0) - low).astype(int) + 3
    depth = depth_map(q[:, :2] - low, q[:, 2], scene.faces, int(size[0]), int(size[1]))
    depth[~np.isfinite(depth)] = -1e9
    frame = np.column_stack([axes, [-low[0], -low[1], 0.0]])
    return SunMap(sun, depth, frame)


@njit(cache=True, nogil=True, inline="always")
def _lit(p, q, r, frame, depth):  # type: ignore[no-untyped-def]
    """Share of four map cells round the point that do not hide the sun."""
    u = frame[0, 0] * p + frame[0, 1] * q + frame[0, 2] * r + frame[0, 3] - 0.5
    v = frame[1, 0] * p + frame[1, 1] * q + frame[1, 2] * r + frame[1, 3] - 0.5
    d = frame[2, 0] * p + frame[2, 1] * q + frame[2, 2] * r
    i, j = int(np.floor(u)), int(np.floor(v))
    if i < 0 or j < 0 or i + 1 >= depth.shape[1] or j + 1 >= depth.shape[0]:
        return 1.0
    a, b = u - i, v - j
    d += 0.12
    lit = 0.0
    if depth[j, i] <= d:
        lit += (1.0 - a) * (1.0 - b)
    if depth[j, i + 1] <= d:
        lit += a * (1.0 - b)
    if depth[j + 1, i] <= d:
        lit += (1.0 - a) * b
    if depth[j + 1, i + 1] <= d:
        lit += a * b
    return lit


@njit(cache=True, nogil=True)
def _bilinear2(grid, x, y):  # type: ignore[no-untyped-def]
    rows, cols = grid.shape[0], grid.shape[1]
    x, y = min(max(x, 0.0), cols - 1.001), min(max(y, 0.0), rows - 1.001)
    i, j = int(x), int(y)
    a, b = x - i, y - j
    p = (grid[j, i, 0] * (1 - a) + grid[j, i + 1, 0] * a) * (1 - b) + (
        grid[j + 1, i, 0] * (1 - a) + grid[j + 1, i + 1, 0] * a
    ) * b
    q = (grid[j, i, 1] * (1 - a) + grid[j, i + 1, 1] * a) * (1 - b) + (
        grid[j + 1, i, 1] * (1 - a) + grid[j + 1, i + 1, 1] * a
    ) * b
    return p, q


@njit(cache=True, nogil=True)
def _colour(material, row, x, y, z, nx, ny, nz, e, n, label, seed):  # type: ignore[no-untyped-def]
    """Reflectance at local (x, y, z); e, n are the same point's CRS coordinates, for ground patterns."""
    rgb = row[8:11]
    own = np.int64(row[11])
    dx, dy = x - row[0], y - row[1]
    if material == m.DECK and nz > 0.5:
        label = m.deck_label(
            dx * row[2] + dy * row[3], -dx * row[3] + dy * row[2], 0.5 * row[11] if row[11] > 0 else 8.0
        )
        material = m.GROUND
    if material == m.GROUND:
        return m.ground_colour(label, e, n, seed)
    if material == m.TREE:
        share = (z - row[4]) / row[5]
        return m.leaf_colour(e, n, z, share, row[3], own)
    a, b = dx * row[2] + dy * row[3], -dx * row[3] + dy * row[2]
    if material == m.WALL:
        return m.wall_colour(a, z - row[4], row[5], row[6], row[7], rgb, own)
    if material == m.ROOF_TILE:
        return m.tile_colour(a, np.hypot(b, z - row[4]), rgb, own)
    if material == m.ROOF_FLAT:
        return m.flat_colour(a, b, rgb, own)
    if material == m.ROOF_METAL:
        return m.metal_colour(a, b, rgb, own)
    if material == m.GLASS:
        if nz > 0.5:
            return m.glass_colour(a, b, rgb, own)
        return 0.6, 0.6, 0.6
    if material == m.HEDGE:
        return m.leaf_colour(e, n, z, 0.8, 0.0, own)
    if material == m.TRUNK:
        return 0.33, 0.26, 0.20
    return m.object_colour(a + 0.3 * z, b + 0.7 * z, rgb, own)


@njit(cache=True, nogil=True)
def _shade(face, bary, vertices, faces, material, patch, patches, normals, slope, terrain_frame, labels, label_frame,
           around, around_frame, frame, depth, sun, origin, seed, out):  # type: ignore[no-untyped-def]  # fmt: skip
    """out [h, w, 3]: radiance, NaN where nothing is seen. Frames are (corner x, corner y, cell)."""
    warm = min(max((sun[2] - 0.25) / 0.5, 0.0), 1.0)
    sun_r, sun_g, sun_b = 1.02, 0.93 + 0.04 * warm, 0.78 + 0.11 * warm
    for r in range(face.shape[0]):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                out[r, c, 0] = np.nan
                out[r, c, 1] = np.nan
                out[r, c, 2] = np.nan
                continue
            i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
            b0, b1 = float(bary[r, c, 0]), float(bary[r, c, 1])
            b2 = 1.0 - b0 - b1
            x = b0 * vertices[i0, 0] + b1 * vertices[i1, 0] + b2 * vertices[i2, 0]
            y = b0 * vertices[i0, 1] + b1 * vertices[i1, 1] + b2 * vertices[i2, 1]
            z = b0 * vertices[i0, 2] + b1 * vertices[i1, 2] + b2 * vertices[i2, 2]
            kind = material[f]
            row = patches[patch[f]]
            nx, ny, nz = float(normals[f, 0]), float(normals[f, 1]), float(normals[f, 2])
            label = 0
            if kind == m.GROUND:
                gx, gy = _bilinear2(
                    slope, (x - terrain_frame[0]) / terrain_frame[2], (y - terrain_frame[1]) / terrain_frame[2]
                )
                length = np.sqrt(1.0 + gx * gx + gy * gy)
                nx, ny, nz = -gx / length, -gy / length, 1.0 / length
                lc = min(max(int((x - label_frame[0]) / label_frame[2]), 0), labels.shape[1] - 1)
                lr = min(max(int((y - label_frame[1]) / label_frame[2]), 0), labels.shape[0] - 1)
                label = labels[lr, lc]
            elif kind == m.TREE:  # round, not faceted
                tx, ty = (x - row[0]) / row[2], (y - row[1]) / row[2]
                tz = (z - row[4] - 0.52 * row[5]) / (0.48 * row[5])
                length = max(np.sqrt(tx * tx + ty * ty + tz * tz), 0.05)
                nx, ny, nz = 0.7 * tx / length + 0.3 * nx, 0.7 * ty / length + 0.3 * ny, 0.7 * tz / length + 0.3 * nz
            red, green, blue = _colour(kind, row, x, y, z, nx, ny, nz, x + origin[0], y + origin[1], label, seed)
            cosine = nx * sun[0] + ny * sun[1] + nz * sun[2]
            if kind == m.TREE or kind == m.HEDGE:  # leaves scatter light round the crown
                cosine = 0.25 + 0.75 * cosine
            lit = 0.0
            if cosine > 0.0:
                lit = cosine * _lit(x + 0.22 * nx, y + 0.22 * ny, z + 0.22 * nz, frame, depth)
            near, far = _bilinear2(
                around, (x - around_frame[0]) / around_frame[2] - 0.5, (y - around_frame[1]) / around_frame[2] - 0.5
            )
            hidden = (
                min(max((near - z - 0.5) / 11.0, 0.0), 1.0) * 0.38 + min(max((far - z - 0.5) / 22.0, 0.0), 1.0) * 0.27
            )
            sky = (0.5 + 0.5 * nz) * (1.0 - hidden)
            bounce = 0.17 * (1.0 - 0.6 * nz)
            out[r, c, 0] = red * (sun_r * lit + 0.34 * sky + 0.9 * bounce)
            out[r, c, 1] = green * (sun_g * lit + 0.375 * sky + 0.85 * bounce)
            out[r, c, 2] = blue * (sun_b * lit + 0.44 * sky + 0.75 * bounce)


def shade(s: Shaded, light: SunMap, seen: Fragments) -> NDArray[np.float32]:
    """Radiance [h, w, 3] of what the pixels see, NaN where they see nothing."""
    scene = s.scene
    out = np.empty((*seen.face.shape, 3), dtype=np.float32)
    terrain_frame = np.array([*scene.terrain_corner, scene.terrain_cell_m])
    label_frame = np.array([*scene.label_corner, scene.label_cell_m])
    around_frame = np.array([*s.around_corner, SKY_CELL_M])
    arguments: tuple[Any, ...] = (
        seen.face, seen.bary, scene.vertices, scene.faces, scene.material, scene.patch, scene.patches, s.normals,
        s.slope, terrain_frame, scene.labels, label_frame, s.around, around_frame, light.frame, light.depth,
        light.sun.direction, np.array(scene.origin_m), s.seed, out,
    )  # fmt: skip
    _shade(*arguments)
    return out
