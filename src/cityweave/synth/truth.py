"""What is exactly true of a scene, and the imperfect terrain that is handed out with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.grid import CellGrid
from cityweave.synth.noise import CODE_TERRAIN, hash2, value_noise
from cityweave.synth.scene import BUILDING, Material, Scene
from cityweave.synth.shading import band_fragments, bands, face_reach


@dataclass(frozen=True)
class Heights:
    """On cells, north-up, absolute heights. Surface and masks are those of the highest point at the cell's centre."""

    dsm: NDArray[np.float32]
    dtm: NDArray[np.float32]
    building: NDArray[np.uint8]
    tree: NDArray[np.uint8]


def true_heights(scene: Scene, grid: CellGrid) -> Heights:
    """By rasterising the mesh itself; the terrain is that of the mesh under everything else."""
    screen = np.stack(
        [
            (scene.vertices[:, 0] + scene.origin_m[0] - grid.box.xmin) / grid.gsd_m,
            (grid.box.ymax - scene.vertices[:, 1] - scene.origin_m[1]) / grid.gsd_m,
        ],
        axis=1,
    )
    z = np.ascontiguousarray(scene.vertices[:, 2])
    dsm = np.empty(grid.shape, np.float32)
    dtm = np.empty(grid.shape, np.float32)
    kind = np.empty(grid.shape, np.uint8)
    ground = scene.faces[scene.material == Material.GROUND]
    reach, ground_reach = face_reach(screen[:, 1], scene.faces), face_reach(screen[:, 1], ground)
    for rows in bands(grid.rows):
        piece = slice(*rows)
        top = band_fragments(screen, z, scene.faces, reach, grid.cols, rows)
        dsm[piece] = top.depth
        kind[piece] = np.where(top.seen, scene.material[np.maximum(top.face, 0)], Material.GROUND)
        dtm[piece] = band_fragments(screen, z, ground, ground_reach, grid.cols, rows).depth
    z0 = np.float32(scene.origin_m[2])
    building = np.isin(kind, np.array(BUILDING, dtype=np.uint8)).astype(np.uint8)
    tree = np.isin(kind, np.array([Material.TREE, Material.HEDGE], dtype=np.uint8)).astype(np.uint8)
    return Heights(dsm + z0, dtm + z0, building, tree)


def coarse_terrain(scene: Scene, grid: CellGrid, noise_m: float, seed: int) -> NDArray[np.float32]:
    """Terrain at the cell centres with a smooth error, as of a survey some years old."""
    x, y = np.meshgrid(grid.x_centres - scene.origin_m[0], grid.y_centres - scene.origin_m[1])
    z = scene.ground(x, y) + scene.origin_m[2]
    error = np.empty(grid.shape)
    _smooth_error(grid.row0, grid.rows, grid.col0, grid.cols, seed + 1000 * CODE_TERRAIN, error)
    return (z + noise_m * error).astype(np.float32)


@njit(cache=True)
def _smooth_error(row0, rows, col0, cols, seed, out):  # type: ignore[no-untyped-def]
    """About standard normal, correlated over some cells; a value belongs to a global cell, not to the box."""
    for r in range(rows):
        j = row0 + rows - 1 - r
        for c in range(cols):
            i = col0 + c
            slow = value_noise(i / 7.0, j / 7.0, seed) - 0.5
            quick = hash2(i, j, seed + 1) - 0.5
            out[r, c] = 3.2 * slow + 2.0 * quick
