"""How upright walls come out, by reading, softness and node spacing.

    python bench/wall_shapes.py > bench/records/walls.md

Blocks of 3 to 30 m, turned by 0, 20 and 45 degrees, as a height model of 0.5 m cells shows them: the mean of each cell,
noise of 0.1 m. Fitted and meshed by the stage's own functions, simplified to 0.05 m. Wall is what is steeper than 45
degrees within 1.5 m of a block's outline; counted is how much of it lies within 5 degrees of vertical, how far it
stands from the outline, and how many of the cells within 1 m of an outline have a height that is 1 m off or more.
"""

from __future__ import annotations

import itertools
import time
from typing import Literal

import numpy as np

from cityweave.geometry import direct
from cityweave.geometry.field import FieldShape, Lattice
from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import LATTICE_RING, SurfaceSettings, extract
from cityweave.geometry.target import pixel_weights
from cityweave.mesh import SURFACE, TileMesh
from cityweave.render.rasterise import rasterise

GSD_M, FINE = 0.5, 8  # samples along a cell
SIZE_M, RING_M = 192, 48
HEIGHTS_M = (3, 6, 10, 20, 30)
TURNS_DEG = (0, 20, 45)
HALF_M = (9.0, 6.0)  # half the sides of a block
NOISE_M = 0.1
PITCHES_M = (0.5, 1.0, 2.0)
SOFTNESSES_M = (0.25, 0.5, 1.0, 3.125)
READINGS: tuple[Literal["nodes", "centred"], ...] = ("nodes", "centred")
NEAR_WALL_M, BESIDE_M = 1.5, 1.0
HEAD = """## geometry: how upright walls are

Blocks of 3 to 30 m by `bench/wall_shapes.py`, {date}: share of wall area within 5 degrees of vertical, by height of the
block; how far walls stand from where they should, mean over all; and cells within 1 m of an outline that are 1 m off or
more. The mesh has an upright wall wherever heights jump from one point to the next, so reading and softness decide next
to nothing; the node spacing decides how far off walls stand.

| reading | nodes | softness | 3 m | 6 m | 10 m | 20 m | 30 m | off sideways | cells off |
|---|---|---|---|---|---|---|---|---|---|"""


def blocks() -> list[tuple[float, float, float, float]]:
    """x, y, turn and height."""
    step = SIZE_M / len(HEIGHTS_M)
    return [
        (step * (k + 0.5) + 0.13 * k, SIZE_M / 3 * (row + 0.5) + 0.21 * k, float(turn), float(height))
        for row, turn in enumerate(TURNS_DEG)
        for k, height in enumerate(HEIGHTS_M)
    ]


def inside_m(x: np.ndarray, y: np.ndarray, block: tuple[float, float, float, float]) -> np.ndarray:
    """Distance to a block's outline, positive inside."""
    cx, cy, turn, _ = block
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    a, b = np.abs((x - cx) * c + (y - cy) * s) - HALF_M[0], np.abs(-(x - cx) * s + (y - cy) * c) - HALF_M[1]
    outside = np.hypot(np.maximum(a, 0), np.maximum(b, 0))
    return np.where((a < 0) & (b < 0), -np.maximum(a, b), -outside)


def heights(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = 0.01 * x + 0 * y
    for block in blocks():
        z = np.where(inside_m(x, y, block) > 0, block[3], z)
    return z


def raster() -> np.ndarray:
    cells = round((SIZE_M + 2 * RING_M) / GSD_M)
    place = (np.arange(cells * FINE) + 0.5) * GSD_M / FINE - RING_M
    fine = heights(place[None, :], place[:, None])
    mean = fine.reshape(cells, FINE, cells, FINE).mean((1, 3))
    return (mean + np.random.default_rng(1).normal(0, NOISE_M, mean.shape)).astype(np.float32)


def meshed(target: np.ndarray, shape: FieldShape) -> TileMesh:
    first = round(-RING_M / shape.pitch_m)
    lattice, _ = direct.fit(target, pixel_weights(None, None, target), first, first, shape, GSD_M, direct.FitSettings())
    n = round(SIZE_M / shape.pitch_m)
    side = n + 2 * LATTICE_RING
    window: Lattice = lattice.window(-LATTICE_RING, -LATTICE_RING, side, side)
    settings = SurfaceSettings(shape.pitch_m)
    patch = extract(window, shape, settings, 0, 0, n, np.ones((3, 3), bool), (0.0, 0.0), 0.0, -20.0)
    return close(patch, simplify(patch, (0.05,))[0], (0.0, 0.0, 0.0))


def measured(mesh: TileMesh) -> tuple[list[float], float, float]:
    faces = mesh.faces[mesh.part == SURFACE]
    corners = mesh.xyz()[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    lean = np.degrees(np.arcsin(np.clip(np.abs(normal[:, 2]) / np.maximum(area, 1e-12), 0, 1)))
    centre = corners.mean(axis=1)
    share, offset = {}, []
    for height in HEIGHTS_M:
        upright, total = 0.0, 0.0
        for block in blocks():
            if block[3] != height:
                continue
            distance = np.abs(inside_m(centre[:, 0], centre[:, 1], block))
            wall = (distance < NEAR_WALL_M) & (lean < 45)
            total += area[wall].sum()
            upright += area[wall & (lean < 5)].sum()
            offset.append((distance * area)[wall].sum() / max(area[wall].sum(), 1e-9))
        share[height] = upright / total if total else float("nan")
    return [share[height] for height in HEIGHTS_M], float(np.mean(offset)), cells_off(mesh, faces)


def cells_off(mesh: TileMesh, faces: np.ndarray) -> float:
    cells = round(SIZE_M / GSD_M)
    points = mesh.xyz()
    seen = rasterise(points[:, :2] / GSD_M, points[:, 2], faces, cells, cells, "largest")
    place = (np.arange(cells) + 0.5) * GSD_M
    x, y = place[None, :], place[:, None]
    beside = np.zeros((cells, cells), bool)
    for block in blocks():
        beside |= np.abs(inside_m(x, y, block)) < BESIDE_M
    corner = points[faces[np.maximum(seen.face, 0)]]
    normal = np.cross(corner[..., 1, :] - corner[..., 0, :], corner[..., 2, :] - corner[..., 0, :])
    at = np.stack(np.broadcast_arrays(x, y), axis=-1)
    slope = ((at - corner[..., 0, :2]) * normal[..., :2]).sum(-1) / np.where(normal[..., 2] == 0, 1, normal[..., 2])
    z = corner[..., 0, 2] - slope
    return float(np.mean((np.abs(z - heights(x, y)) >= 1)[beside & seen.seen]))


def main() -> None:
    target = raster()
    print(HEAD.format(date=time.strftime("%Y-%m-%d")))
    for reading, pitch_m, softness_m in itertools.product(READINGS, PITCHES_M, SOFTNESSES_M):
        share, offset_m, off = measured(meshed(target, FieldShape(pitch_m, softness_m, 2.0, reading)))
        cells = " | ".join(f"{value:.2f}" for value in share)
        print(f"| {reading} | {pitch_m:g} m | {softness_m:g} m | {cells} | {offset_m:.2f} m | {off:.3f} |", flush=True)


if __name__ == "__main__":
    main()
