"""A city's tiles as things to draw: read from their products, in metres from an origin that the caller chooses."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cityweave.grid import Tile
from cityweave.io.textures import level_picture, load_texture
from cityweave.manifest import Manifest, Run
from cityweave.mesh import SURFACE, TileMesh, load_levels
from cityweave.plan import city_tiles
from cityweave.render.textured import TexturedMesh


def is_done(run: Run, name: str, tile: Tile) -> bool:
    path = run.manifest_path(name, tile)
    return path.is_file() and Manifest.read(path).quarantined is None


def tiles_with(run: Run, name: str) -> list[Tile]:
    """Tiles whose manifest `name` is there and not quarantined, row by row from the south-west."""
    return [tile for tile in city_tiles(run.config) if is_done(run, name, tile)]


def tile_levels(run: Run, tile: Tile) -> list[TileMesh]:
    """Levels of detail, finest first."""
    return load_levels(Manifest.read(run.manifest_path("mesh", tile)).product("mesh"))


def textured_tile(
    run: Run,
    tile: Tile,
    origin: NDArray[np.float64],
    level: int = 0,
    mesh: TileMesh | None = None,
    name: str = "texture",
    layer: Literal["provenance", "lead"] = "provenance",
) -> TexturedMesh:
    """The surface of a tile with its texture; without rim and bottom. A level beyond the last is the last.

    `name` is the texture's manifest: others than the last are of a round of refinement. `layer` is what stands for
    provenance.
    """
    if mesh is None:
        levels = tile_levels(run, tile)
        level = min(level, len(levels) - 1)
        mesh = levels[level]
    texture = load_texture(Manifest.read(run.manifest_path(name, tile)).product(name))
    shown = mesh.part == SURFACE
    if level == 0:
        picture, uv, provenance = texture.colour, texture.uv[0], getattr(texture, layer)
    else:
        picture, uv = level_picture(texture, level)
        provenance = np.zeros(picture.shape[:2], np.uint8)  # kept for the finest level only
    return TexturedMesh(mesh.world() - origin, mesh.faces[shown], uv[shown], picture, provenance)
