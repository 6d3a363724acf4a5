"""Inputs that break other programs: each becomes a closed mesh, and how far off it is has a bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import SurfaceSettings, extract
from cityweave.mesh import STEPS_PER_M, SURFACE, TileMesh
from tests.geometry import city
from tests.geometry.audit import audit
from tests.geometry.build import SHAPE, crossings, fit_tile

SIZE_M = 64
GSD_M = 0.5
Height = Callable[[np.ndarray, np.ndarray], np.ndarray]


def places(xmin: float, ymin: float, cols: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(cols)[None, :] + 0.5) * GSD_M + xmin, (np.arange(rows)[:, None] + 0.5) * GSD_M + ymin


def built(height: Height, spoilt: Callable[[np.ndarray, np.random.Generator], np.ndarray], base_m: float) -> TileMesh:
    """The mesh of a tile without neighbours, checked to be closed."""
    draw = np.random.default_rng(3)

    def raster(xmin: float, ymin: float, cols: int, rows: int, gsd: float) -> np.ndarray:
        x, y = places(xmin, ymin, cols, rows)
        return spoilt(np.broadcast_to(height(x, y), (rows, cols)).astype(np.float32), draw)

    alone = np.zeros((3, 3), bool)
    alone[1, 1] = True
    lattice = fit_tile(raster, SIZE_M)
    patch = extract(lattice, SHAPE, SurfaceSettings(1.0), 0, 0, SIZE_M, alone, (0, 0), 0.0, base_m)
    mesh = close(patch, simplify(patch, (0.15,))[0], (0.0, 0.0, 0.0))
    found = audit([(mesh.ids, mesh.faces)])
    assert (found.boundary_edges, found.nonmanifold_edges) == (0, 0)
    return mesh


def errors(mesh: TileMesh, height: Height) -> tuple[np.ndarray, np.ndarray]:
    """Off the truth at cell centres two metres and more inside, and how far from any jump of it they are (cells)."""
    from scipy import ndimage

    x, y = places(2, 2, 2 * SIZE_M - 8, 2 * SIZE_M - 8)
    count, z = crossings(mesh, x[0] * STEPS_PER_M + 0.5, y[:, 0] * STEPS_PER_M + 0.5)
    assert (count == 1).all()
    true = np.broadcast_to(height(x, y), z.shape)
    jump = ndimage.maximum_filter(true, 3) - ndimage.minimum_filter(true, 3) > 2.5
    away = ndimage.distance_transform_edt(~jump) if jump.any() else np.full(true.shape, np.inf)
    return np.abs(z - true), away


def vertical_share(mesh: TileMesh) -> float:
    p = mesh.xyz()[mesh.faces[mesh.part == SURFACE]]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    area = np.linalg.norm(normal, axis=1)
    return float(area[np.abs(normal[:, 2]) < 0.087 * area].sum() / area.sum())


def noisy(z: np.ndarray, draw: np.random.Generator, sigma_m: float = 0.2) -> np.ndarray:
    return (z + draw.normal(0, sigma_m, z.shape)).astype(np.float32)


def town(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return city.height(x + 80, y + 80)


def test_two_fifths_of_the_heights_missing() -> None:
    def spoilt(z: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        rows, cols = z.shape
        blocks = np.kron(draw.random((rows // 4 + 1, cols // 4 + 1)) < 0.4, np.ones((4, 4), bool))
        z = noisy(z, draw)
        z[blocks[:rows, :cols]] = np.nan
        return z

    error, away = errors(built(town, spoilt, -20.0), town)
    assert error[away > 4].mean() < 0.1 and np.percentile(error[away > 4], 99) < 0.5
    assert np.mean(error[away <= 4] < 1.0) > 0.75  # a hole of 2 m beside a wall hides where it stands


def test_one_in_twenty_off_by_fifty_metres() -> None:
    def spoilt(z: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        wrong = draw.random(z.shape) < 0.05
        return np.where(wrong, z + draw.choice([-50, 50], z.shape), noisy(z, draw)).astype(np.float32)

    error, away = errors(built(town, spoilt, -80.0), town)
    assert error[away > 2].mean() < 0.08 and np.percentile(error[away > 2], 99) < 0.4
    assert error.max() < 130  # the tower's own height: nowhere a spike
    assert np.mean(error[away > 2] > 5) == 0


def sheds_and_tower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = 0.01 * x + 0 * y
    for left in (8, 16, 24):
        z = np.where((abs(x - left) < 3) & (abs(y - 20) < 2), 3.0, z)
    return np.where((abs(x - 36) < 6) & (abs(y - 20) < 6), 200.0, z)


def test_a_tower_of_200_m_beside_sheds_of_3_m() -> None:
    mesh = built(sheds_and_tower, lambda z, draw: noisy(z, draw, 0.1), -20.0)
    error, away = errors(mesh, sheds_and_tower)
    assert error[away > 2].mean() < 0.05 and error[away > 2].max() < 0.6
    assert np.mean(error[away <= 2] < 1.0) > 0.9
    assert abs(mesh.xyz()[:, 2].max() - 200.0) < 0.3


def test_water_that_hardly_shows_a_height() -> None:
    def level(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0 * (x + y) + 4.0

    def spoilt(z: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        z = noisy(z, draw, 0.5)
        z[draw.random(z.shape) < 0.9] = np.nan
        return z

    mesh = built(level, spoilt, -20.0)
    error, _ = errors(mesh, level)
    assert error.mean() < 0.3 and error.max() < 1.5
    assert vertical_share(mesh) == 0


def test_steep_terrain_is_a_slope_and_no_stairs() -> None:
    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.9 * x + 6 * np.sin(y / 9) + 0.3 * y

    mesh = built(slope, lambda z, draw: noisy(z, draw, 0.15), -60.0)
    error, _ = errors(mesh, slope)
    assert error.mean() < 0.1 and np.percentile(error, 99) < 0.6  # where it falls by 53 degrees
    assert vertical_share(mesh) < 0.01


@pytest.mark.parametrize("known", [0.0, 0.001])
def test_next_to_nothing_known_is_refused_or_flat(known: float) -> None:
    def level(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0 * (x + y) + 4.0

    def spoilt(z: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        return np.where(draw.random(z.shape) < known, z, np.nan).astype(np.float32)

    if known:
        error, _ = errors(built(level, spoilt, -20.0), level)
        assert error.max() < 0.01
    else:
        with pytest.raises(ValueError, match="no value"):
            built(level, spoilt, -20.0)
