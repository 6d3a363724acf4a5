"""city.glb: the whole city in one file that any viewer opens, within a size budget.

The finest level of detail and the largest pictures that fit. Positions are metres from the city's origin, exact
multiples of 1/1024 within a tile; the file's axes are Y up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.grid import Tile
from cityweave.io.gltf import Material, Node, glb_bytes
from cityweave.io.textures import TileTexture
from cityweave.merge.tilemesh import PLAIN, level_texture, primitives, split_parts
from cityweave.mesh import TileMesh

_BYTES_PER_FACE = 26.0  # indices and, shared by about two faces, a vertex with its uv
_BYTES_PER_TEXEL = 0.35  # of a JPEG at the usual quality; a first guess, the real size decides
_GEOMETRY_SHARE = 0.6
_SMALLEST_PICTURE = 8  # halvings; beyond there is nothing left to halve


@dataclass(frozen=True)
class TileSize:
    """What a tile would cost, gathered while its 3D Tiles are written: per level, faces and texels."""

    tile: Tile
    faces: tuple[int, ...]
    texels: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    level: int  # levels coarser than a tile has mean its coarsest
    halvings: int


def size_of(tile: Tile, levels: Sequence[TileMesh], texture: TileTexture) -> TileSize:
    layout = texture.layout
    texels = []
    for k in range(len(levels)):
        rows = (layout.band_rows[0] >> k) + layout.band_rows[k + 1] - layout.band_rows[k]
        texels.append(rows * (layout.width >> k))
    return TileSize(tile, tuple(len(mesh.faces) for mesh in levels), tuple(texels))


def choose(sizes: Sequence[TileSize], budget_bytes: float) -> Choice:
    """The finest level whose triangles leave room for pictures, and how often those must be halved."""
    coarsest = max(len(size.faces) for size in sizes) - 1

    def total(values: Callable[[TileSize], tuple[int, ...]], level: int) -> int:
        return sum(values(size)[min(level, len(size.faces) - 1)] for size in sizes)

    level = coarsest
    for candidate in range(coarsest + 1):
        if total(lambda size: size.faces, candidate) * _BYTES_PER_FACE <= _GEOMETRY_SHARE * budget_bytes:
            level = candidate
            break
    room = budget_bytes - total(lambda size: size.faces, level) * _BYTES_PER_FACE
    halvings = 0
    while halvings < _SMALLEST_PICTURE:
        if total(lambda size: size.texels, level) / 4**halvings * _BYTES_PER_TEXEL <= room:
            break
        halvings += 1
    return Choice(level, halvings)


@dataclass(frozen=True)
class OverviewPart:
    """What a tile adds to the file."""

    node: Node
    material: Material


def overview_part(
    name: str,
    levels: Sequence[TileMesh],
    texture: TileTexture,
    choice: Choice,
    number: int,
    origin_m: tuple[float, float, float],
    quality: int,
) -> OverviewPart:
    """`number` is that of the tile's material in the file, from 1; 0 is the plain one."""
    level = min(choice.level, len(levels) - 1)
    mesh = levels[level]
    picture, uv = level_texture(texture, level, choice.halvings, quality)
    shift = np.asarray(mesh.origin_m) - np.asarray(origin_m)
    shapes = primitives(split_parts(mesh, uv), mesh.xyz().astype(np.float32), number, 0)
    return OverviewPart(
        Node(name, shapes, (float(shift[0]), float(shift[1]), float(shift[2]))), Material(name, picture)
    )


def write_overview(
    path: Path,
    sizes: Sequence[TileSize],
    parts: Callable[[Choice], Sequence[OverviewPart]],
    budget_mb: float,
    extras: dict[str, Any],
) -> Choice:
    """Pictures are halved until the file fits. If the coarsest triangles alone don't, the file is larger: the caller
    looks at its size. `parts` gives every tile's, in the order of their numbers."""
    budget = budget_mb * 1e6
    choice = choose(sizes, budget)
    while True:
        found = parts(choice)
        materials = [PLAIN, *(part.material for part in found)]
        data = glb_bytes([part.node for part in found], materials, z_up=True, extras=extras)
        if len(data) <= budget or choice.halvings >= _SMALLEST_PICTURE:
            break
        choice = Choice(choice.level, choice.halvings + 1)
    path.write_bytes(data)
    return choice
