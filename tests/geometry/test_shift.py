"""Where tiles are cut must not show: the same heights, meshed from tiles half a tile further on."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import SurfaceSettings, extract
from cityweave.mesh import STEPS_PER_M
from tests.geometry import city
from tests.geometry.build import SHAPE, crossings, fit_tile

SIZE_M, GSD_M = 64, 0.5
HALF_M = SIZE_M // 2
FIRST, CELLS = -128, 512  # ground that is known, in cells
AT_M = 64.0  # the part of the town that is looked at begins here


def samples() -> np.ndarray:
    """One raster for both cuts."""
    x = FIRST * GSD_M + AT_M
    return city.raster(x, x, CELLS, CELLS, GSD_M, noise_m=0.2, holes=0.05, seed=5)


def surface(heights: np.ndarray, shift_m: int, at: np.ndarray) -> np.ndarray:
    """Heights of the mesh of the tile that begins at `shift_m`, at places given in metres."""

    def raster(xmin: float, ymin: float, cols: int, rows: int, gsd: float) -> np.ndarray:
        c, r = round((xmin + shift_m) / gsd) - FIRST, round((ymin + shift_m) / gsd) - FIRST
        assert c >= 0 and r >= 0 and c + cols <= CELLS and r + rows <= CELLS
        return heights[r : r + rows, c : c + cols]

    lattice = fit_tile(raster, SIZE_M)
    patch = extract(lattice, SHAPE, SurfaceSettings(1.0), 0, 0, SIZE_M, np.ones((3, 3), bool), (0, 0), 0.0, -20.0)
    mesh = close(patch, simplify(patch, (0.05,))[0], (0.0, 0.0, 0.0))
    place = (at - shift_m) * STEPS_PER_M + 0.5
    count, z = crossings(mesh, place, place)
    assert (count == 1).all()
    return z


def test_half_a_tile_further_on_the_surface_is_the_same() -> None:
    heights = samples()
    at = HALF_M + 2 + (np.arange(2 * HALF_M - 8) + 0.5) * GSD_M  # in both tiles, off their borders' last cells
    moved = np.abs(surface(heights, 0, at) - surface(heights, HALF_M, at))
    true = city.height(AT_M + at[None, :], AT_M + at[:, None])
    wall = ndimage.maximum_filter(true, 3) - ndimage.minimum_filter(true, 3) > 1.5
    near = ndimage.binary_dilation(wall, iterations=2)
    print(f"off walls: {np.mean(moved[~near] < 0.05):.4f} within 0.05 m; near: {np.mean(moved[near] < 0.05):.4f}")
    assert 0.05 < near.mean() < 0.6
    assert np.mean(moved[~near] < 0.05) >= 0.99
    assert np.mean(moved[near] < 0.05) >= 0.9
