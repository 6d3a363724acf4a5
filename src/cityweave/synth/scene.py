"""What is rendered: one mesh with a material and a patch per face, ground labels, and the frame they live in.

Local metres: x east, y north, z up, relative to `origin_m` in the city's CRS and vertical reference.
A patch is one wall, roof side or object surface; its row of numbers steers the procedural shading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Material(IntEnum):
    """Of a face. Figures are written into truth meshes: never renumber."""

    GROUND = 0
    WALL = 1
    ROOF_TILE = 2
    ROOF_FLAT = 3
    ROOF_METAL = 4
    GLASS = 5
    EQUIPMENT = 6
    TREE = 7
    CAR = 8
    DECK = 9
    HIDDEN = 10
    HEDGE = 11
    TRUNK = 12


BUILDING = (
    Material.WALL,
    Material.ROOF_TILE,
    Material.ROOF_FLAT,
    Material.ROOF_METAL,
    Material.GLASS,
    Material.EQUIPMENT,
)


class Label(IntEnum):
    """What covers the ground."""

    ASPHALT = 0
    SIDEWALK = 1
    GRASS = 2
    PAVING = 3
    MARKING = 4
    WATER = 5
    PATH = 6
    GARDEN = 7
    PARKING = 8
    COURT = 9
    SOIL = 10
    PITCH = 11


# columns of a patch
PX, PY, DX, DY, Z0, HEIGHT, LENGTH, STYLE, RED, GREEN, BLUE, SEED = range(12)
PATCH_COLUMNS = 12


class Style(IntEnum):
    """Of a wall."""

    PLASTER = 0
    BRICK = 1
    CONCRETE = 2
    CURTAIN = 3
    HOUSE = 4
    BLANK = 5


@dataclass(frozen=True)
class Scene:
    origin_m: tuple[float, float, float]
    vertices: NDArray[np.float64]  # [n, 3] local metres
    faces: NDArray[np.int32]  # [m, 3]
    material: NDArray[np.uint8]  # [m]
    patch: NDArray[np.int32]  # [m]
    patches: NDArray[np.float64]  # [p, 12]
    objects: NDArray[np.int32]  # [p], which object a patch belongs to; 0 is the ground
    terrain: NDArray[np.float32]  # nodes [rows, cols], row 0 = south, local heights
    terrain_cell_m: float
    terrain_corner: tuple[float, float]  # local x, y of node (0, 0)
    labels: NDArray[np.uint8]  # [rows, cols], row 0 = south
    label_cell_m: float
    label_corner: tuple[float, float]

    def ground(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height of the terrain mesh's nodes, bilinear, at local points."""
        rows, cols = self.terrain.shape
        a = np.clip((x - self.terrain_corner[0]) / self.terrain_cell_m, 0, cols - 1.001)
        b = np.clip((y - self.terrain_corner[1]) / self.terrain_cell_m, 0, rows - 1.001)
        i, j = a.astype(np.int64), b.astype(np.int64)
        u, v = a - i, b - j
        z = self.terrain.astype(np.float64)
        low = z[j, i] * (1 - u) + z[j, i + 1] * u
        high = z[j + 1, i] * (1 - u) + z[j + 1, i + 1] * u
        return low * (1 - v) + high * v  # type: ignore[no-any-return]


@dataclass
class Builder:
    """Collects polygons; `objects` opens a new object, everything added after belongs to it."""

    polygons: list[tuple[NDArray[np.float64], int, int]] = field(default_factory=list)
    patches: list[tuple[float, ...]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    trees: list[tuple[float, ...]] = field(default_factory=list)
    paint: list[tuple[NDArray[np.float64], int]] = field(default_factory=list)
    current: int = 0
    tone: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of what buildings are made of

    def new_object(self) -> int:
        self.current += 1
        return self.current

    def add_patch(
        self,
        start: NDArray[np.float64],
        along: NDArray[np.float64],
        z0: float,
        height: float,
        length: float,
        style: int,
        rgb: tuple[float, float, float],
        seed: int,
    ) -> int:
        toned = [
            min(0.92, value * share) if share != 1.0 else value for value, share in zip(rgb, self.tone, strict=True)
        ]
        self.patches.append((start[0], start[1], along[0], along[1], z0, height, length, style, *toned, seed))
        self.owners.append(self.current)
        return len(self.patches) - 1

    def polygon(self, points: NDArray[np.float64], material: int, patch: int) -> None:
        """A flat convex polygon, counter-clockwise seen from outside."""
        self.polygons.append((points, int(material), patch))

    def label(self, polygon: NDArray[np.float64], label: int) -> None:
        """Paint a convex polygon of the ground; later paint covers earlier paint."""
        self.paint.append((np.asarray(polygon, dtype=np.float64), int(label)))

    def box(
        self,
        centre: NDArray[np.float64],
        along: NDArray[np.float64],
        length: float,
        width: float,
        z0: float,
        z1: float,
        material: int,
        rgb: tuple[float, float, float],
        seed: int = 0,
    ) -> None:
        """A closed box of its own, standing into whatever is below it."""
        size = (length, width, z0, z1)
        self.boxes.append((centre[0], centre[1], along[0], along[1], *size, int(material), *rgb, seed, -1))

    def fixture(self, *box: Any) -> None:
        """A box on the current object, which goes when that goes."""
        self.box(*box)
        self.boxes[-1] = (*self.boxes[-1][:-1], self.current)

    def tree(self, x: float, y: float, z: float, radius: float, height: float, kind: int, seed: int) -> None:
        self.trees.append((x, y, z, radius, height, kind, seed))
