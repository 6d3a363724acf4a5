"""Unseen views from the street: where one can stand, looking along it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cityweave.cameras import Pinhole
from cityweave.grid import Box, CellGrid
from cityweave.synth.scene import Scene
from cityweave.synth.truth import true_heights

EYE_M = 2.0
_CELL_M = 1.0
_CLEAR_M = 4.0  # around where one stands
_LOW_M = 0.5  # what is lower hides nothing
_HEADINGS = 24
_LOOK_AHEAD_M, _LOOK_UP_M = 30.0, 3.0  # a little upwards: the sky says nothing, but fronts reach up
_FOV_DEG = 75.0


def street_cameras(scene: Scene, core: Box, count: int, size_px: int) -> list[tuple[str, Pinhole]]:
    """In the scene's frame, far from one another, each where one sees farthest. `core` in the CRS."""
    from scipy.ndimage import distance_transform_edt

    grid = CellGrid.covering(core, _CELL_M)
    heights = true_heights(scene, grid)
    free = heights.dsm - heights.dtm < _LOW_M
    clear = distance_transform_edt(np.pad(free, 1))[1:-1, 1:-1] * _CELL_M >= _CLEAR_M
    rows, cols = np.nonzero(clear)
    if not len(rows):
        return []
    angles = np.arange(_HEADINGS) * 2 * np.pi / _HEADINGS
    runs = np.stack([_free_run(free, rows, cols, angle) for angle in angles], axis=1)
    best, far = runs.argmax(axis=1), runs.max(axis=1).astype(np.float64)
    out: list[tuple[str, Pinhole]] = []
    apart = np.full(len(rows), np.inf)
    for number in range(min(count, len(rows))):
        # A place counts by how far it shows, and the less the nearer it is to one that was taken.
        chosen = int(np.argmax(np.minimum(far, apart)))
        apart = np.minimum(apart, np.hypot(rows - rows[chosen], cols - cols[chosen]))
        x, y = grid.x_centres[cols[chosen]] - scene.origin_m[0], grid.y_centres[rows[chosen]] - scene.origin_m[1]
        z = float(scene.ground(np.array([x]), np.array([y]))[0]) + EYE_M
        ahead = np.array([np.sin(angles[best[chosen]]), np.cos(angles[best[chosen]])]) * _LOOK_AHEAD_M
        target = np.array([x + ahead[0], y + ahead[1], z + _LOOK_UP_M])
        camera = Pinhole.look_at(np.array([x, y, z]), target, _FOV_DEG, size_px, size_px)
        out.append((f"street_{number:02d}", camera))
    return out


def _free_run(
    free: NDArray[np.bool_], rows: NDArray[np.int64], cols: NDArray[np.int64], angle: float
) -> NDArray[np.int64]:
    """Cells that one sees along a heading before something stands there or the core ends."""
    high, wide = free.shape
    run, going = np.zeros(len(rows), np.int64), np.ones(len(rows), bool)
    step = 0
    while going.any():
        step += 1
        row = np.rint(rows - step * np.cos(angle)).astype(np.int64)
        col = np.rint(cols + step * np.sin(angle)).astype(np.int64)
        inside = (row >= 0) & (row < high) & (col >= 0) & (col < wide)
        going &= inside
        going[going] = free[row[going], col[going]]
        run[going] = step
    return run
