"""A town of boxes rendered through affine cameras, with exact heights: what matching is tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cityweave.cameras import PolyCamera
from cityweave.dsm.views import SweepView
from cityweave.grid import Box, CellGrid

FINE_M = 0.25


@dataclass(frozen=True)
class Scene:
    grid: CellGrid  # of FINE_M
    heights: np.ndarray

    def truth(self, grid: CellGrid) -> np.ndarray:
        """Heights at the cell centres of a coarser grid inside."""
        rows, cols = self.grid.window_of(CellGrid.covering(grid.box, FINE_M))
        k = round(grid.gsd_m / FINE_M)
        return self.heights[rows, cols][k // 2 :: k, k // 2 :: k]


def town(box: Box, relief_m: float = 6.0, towers: int = 1, seed: int = 3) -> Scene:
    """Blocks of 6-25 m, towers of 60-120 m, round trees, on a smooth slope."""
    grid = CellGrid.covering(box, FINE_M)
    x, y = np.meshgrid(grid.x_centres, grid.y_centres)
    ground = relief_m * (np.sin(x / 70) + np.cos(y / 90)) / 2
    heights = ground.copy()
    draw = np.random.default_rng(seed)
    for _ in range(round(box.width * box.height / 1500)):
        cx, cy = draw.uniform(box.xmin, box.xmax), draw.uniform(box.ymin, box.ymax)
        half = draw.uniform(5, 14, 2)
        inside = (abs(x - cx) < half[0]) & (abs(y - cy) < half[1])
        if inside.any():
            heights[inside] = ground[inside].min() + draw.uniform(6, 25)
    for _ in range(towers):
        cx = draw.uniform(box.xmin + 20, box.xmax - 20)
        cy = draw.uniform(box.ymin + 20, box.ymax - 20)
        inside = (abs(x - cx) < 9) & (abs(y - cy) < 9)
        heights[inside] = ground[inside].min() + draw.uniform(60, 120)
    for _ in range(round(box.width * box.height / 800)):
        cx, cy = draw.uniform(box.xmin, box.xmax), draw.uniform(box.ymin, box.ymax)
        radius = draw.uniform(1.5, 4)
        crown = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        tree = ground + 2 * radius + radius * np.sqrt(np.maximum(crown, 0))
        heights = np.where(crown > 0, np.maximum(heights, tree), heights)
    return Scene(grid, heights.astype(np.float32))


def camera(
    box: Box, off_nadir_deg: float, azimuth_deg: float, pixel_m: float, z_top_m: float
) -> tuple[PolyCamera, tuple]:
    """Affine camera whose image covers `box` at all heights up to `z_top_m`; also the image's (rows, cols)."""
    lean = np.tan(np.radians(off_nadir_deg))
    east, north = lean * np.sin(np.radians(azimuth_deg)), lean * np.cos(np.radians(azimuth_deg))
    west = box.xmin - max(east * z_top_m, 0)
    upper = box.ymax - min(north * z_top_m, 0)
    cols = int((box.width + abs(east) * z_top_m) / pixel_m)
    rows = int((box.height + abs(north) * z_top_m) / pixel_m)
    coefficients = np.zeros((2, 10))
    coefficients[0, :4] = -west / pixel_m, 1 / pixel_m, 0, -east / pixel_m
    coefficients[1, :4] = upper / pixel_m, 0, -1 / pixel_m, north / pixel_m
    return PolyCamera(coefficients, np.zeros(3), np.ones(3), 0.0), (rows, cols)


@njit(cache=True)
def _hash(i, j, seed):  # type: ignore[no-untyped-def]
    h = np.uint64(i * 73856093 + j * 19349663 + seed * 83492791 + 1013904223)
    h = (h ^ (h >> np.uint64(15))) * np.uint64(2246822519)
    h = (h ^ (h >> np.uint64(13))) * np.uint64(3266489917)
    return np.float64((h ^ (h >> np.uint64(16))) & np.uint64(0xFFFF)) / 65535.0


@njit(cache=True)
def _noise(x, y, seed):  # type: ignore[no-untyped-def]
    total = 0.0
    for octave in range(4):
        size = 0.6 * 2.0**octave
        i, j = np.floor(x / size), np.floor(y / size)
        a, b = x / size - i, y / size - j
        i0, j0, s = np.int64(i), np.int64(j), seed + octave
        total += (
            (1 - a) * (1 - b) * _hash(i0, j0, s) + a * (1 - b) * _hash(i0 + 1, j0, s)
            + (1 - a) * b * _hash(i0, j0 + 1, s) + a * b * _hash(i0 + 1, j0 + 1, s)
        )  # fmt: skip
    return total / 4


@njit(cache=True)
def _render(heights, x0, y1, fine, coefficients, rows, cols, top, contrast):  # type: ignore[no-untyped-def]
    """March every ray down to the height field; roofs and ground by plan position, walls by (around, up)."""
    pixel = 1 / coefficients[0, 1]
    east, north = -coefficients[0, 3] * pixel, coefficients[1, 3] * pixel
    out = np.empty((rows, cols), np.float32)
    step = min(0.5, 0.2 / max(abs(east), abs(north), 0.05))
    for r in range(rows):
        for c in range(cols):
            total = 0.0
            for sub in range(4):
                u, v = c + 0.25 + 0.5 * (sub % 2), r + 0.25 + 0.5 * (sub // 2)
                x, y = (u - coefficients[0, 0]) * pixel, (coefficients[1, 0] - v) * pixel
                z = top
                while True:
                    px, py = x + east * z, y + north * z
                    i, j = np.int64((y1 - py) / fine), np.int64((px - x0) / fine)
                    i, j = min(max(i, 0), heights.shape[0] - 1), min(max(j, 0), heights.shape[1] - 1)
                    if heights[i, j] >= z or z < -60:
                        break
                    z -= step
                wall = heights[i, j] > z + step
                if not wall:  # the ray met the top between two steps
                    z = max(z, heights[i, j])
                    px, py = x + east * z, y + north * z
                value = _noise(px + py, z, 17) * 0.8 if wall else _noise(px, py, 5)
                total += value
            out[r, c] = 400 + 1200 * contrast * total / 4
    return out


def views(
    scene: Scene, angles: Sequence[tuple[float, float]], pixel_m: float = 0.5, noise: float = 8.0, contrast: float = 1.0
) -> list[SweepView]:
    """One view per (off-nadir, azimuth); gain and offset differ between them."""
    top = float(scene.heights.max()) + 1
    out = []
    for number, (off_nadir_deg, azimuth_deg) in enumerate(angles):
        poly, (rows, cols) = camera(scene.grid.box, off_nadir_deg, azimuth_deg, pixel_m, top)
        box = scene.grid.box
        image = _render(scene.heights, box.xmin, box.ymax, FINE_M, poly.coefficients, rows, cols, top, contrast)
        image = image * (0.8 + 0.07 * number) + 30 * number
        image += np.random.default_rng([7, number]).normal(0, noise, image.shape).astype(np.float32)
        out.append(SweepView(f"v{number}", image, np.ones(image.shape, bool), poly))
    return out


SIX = ((5.0, 10.0), (12.0, 80.0), (15.0, 200.0), (20.0, 290.0), (26.0, 140.0), (24.0, 20.0))
