"""The mesh of one tile: global ids, exact coordinates, labelled parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

STEPS_PER_M = 1024  # coordinates are whole multiples of 1/1024 m: exact in float32 within a tile
SURFACE, RIM, BOTTOM = 0, 1, 2  # parts; only SURFACE is scored and textured


@dataclass(frozen=True)
class TileMesh:
    """Triangles of one tile at one level of detail.

    `vertices` (n,3) int32 count 1/1024 m from `origin_m` (easting, northing, z0); x east, y north, z up.
    `ids` (n,) int64 name a vertex across the whole city: equal ids are the same point.
    `faces` (m,3) int32, counter-clockwise seen from outside. `part` (m,) uint8.
    """

    origin_m: tuple[float, float, float]
    vertices: np.ndarray
    ids: np.ndarray
    faces: np.ndarray
    part: np.ndarray

    def xyz(self) -> np.ndarray:
        """(n,3) float64 metres relative to the origin; exact."""
        return self.vertices / STEPS_PER_M

    def world(self) -> np.ndarray:
        """(n,3) float64 metres in the city's CRS and vertical reference; exact."""
        return self.xyz() + np.asarray(self.origin_m)

    def arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        return {
            f"{prefix}origin_m": np.asarray(self.origin_m, np.float64),
            f"{prefix}vertices": self.vertices,
            f"{prefix}ids": self.ids,
            f"{prefix}faces": self.faces,
            f"{prefix}part": self.part,
        }


def save_levels(path: Path, levels: list[TileMesh]) -> None:
    """Write levels of detail, finest first, as an uncompressed npz (its bytes depend on its content only)."""
    arrays: dict[str, np.ndarray] = {"levels": np.asarray(len(levels))}
    for number, mesh in enumerate(levels):
        arrays |= mesh.arrays(f"l{number}_")
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_levels(path: Path) -> list[TileMesh]:
    with np.load(path, allow_pickle=False) as data:
        return [
            TileMesh(
                origin_m=tuple(data[f"l{n}_origin_m"].tolist()),
                vertices=data[f"l{n}_vertices"],
                ids=data[f"l{n}_ids"],
                faces=data[f"l{n}_faces"],
                part=data[f"l{n}_part"],
            )
            for n in range(int(data["levels"]))
        ]
