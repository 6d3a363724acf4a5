"""The delivered city as the evaluation reads it: tiles, their meshes and textures, one at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cityweave.evaluate.surface import Triangles
from cityweave.grid import Box, Tile
from cityweave.io.textures import load_texture
from cityweave.manifest import Manifest, Run
from cityweave.mesh import SURFACE, TileMesh, load_levels
from cityweave.plan import city_tiles
from cityweave.render.textured import TexturedMesh

T = TypeVar("T")


class Recent:
    """Keeps the values asked for last: neighbours ask for the same tile within a few steps."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[object, object] = OrderedDict()

    def get(self, key: object, make: Callable[[], T]) -> T:
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = make()
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
        return self._kept[key]  # type: ignore[return-value]


class City:
    """Tiles that are there; `origin` (E, N, height) is what the metres of the evaluation count from."""

    def __init__(self, run: Run, origin: NDArray[np.float64]) -> None:
        self.run = run
        self.origin = origin
        self.tiles = city_tiles(run.config)
        self.with_mesh = [tile for tile in self.tiles if self._is_done("mesh", tile)]
        self.with_texture = [tile for tile in self.with_mesh if self._is_done("texture", tile)]
        columns = len({tile.i for tile in self.tiles})
        self.window = 2 * columns + 5  # tiles held at a time when each is visited with its neighbours, row by row
        self._meshes = Recent(self.window)
        self._textures = Recent(self.window)

    def _is_done(self, name: str, tile: Tile) -> bool:
        path = self.run.manifest_path(name, tile)
        return path.is_file() and Manifest.read(path).quarantined is None

    def scored_box(self, tile: Tile) -> Box | None:
        """The tile's part of the city, in metres from `origin`. The city may end inside a tile."""
        part = tile.core.intersection(self.run.config.city.box)
        return None if part is None else self.local(part)

    def local(self, box: Box) -> Box:
        x, y = float(self.origin[0]), float(self.origin[1])
        return Box(box.xmin - x, box.ymin - y, box.xmax - x, box.ymax - y)

    @property
    def area_km2(self) -> float:
        parts = [tile.core.intersection(self.run.config.city.box) for tile in self.tiles]
        return sum(part.width * part.height for part in parts if part is not None) / 1e6

    def mesh(self, tile: Tile) -> TileMesh:
        """The finest level of detail."""

        def load() -> TileMesh:
            return load_levels(Manifest.read(self.run.manifest_path("mesh", tile)).product("mesh"))[0]

        return self._meshes.get(tile, load)

    def surface(self, tile: Tile) -> Triangles:
        """The SURFACE part alone, without rim and bottom."""
        mesh = self.mesh(tile)
        faces = mesh.faces[mesh.part == SURFACE]
        return Triangles(mesh.world() - self.origin, mesh.ids, faces, np.zeros(len(faces), np.uint8))

    def textured(self, tile: Tile) -> TexturedMesh:
        def load() -> TexturedMesh:
            mesh = self.mesh(tile)
            texture = load_texture(Manifest.read(self.run.manifest_path("texture", tile)).product("texture"))
            shown = mesh.part == SURFACE
            return TexturedMesh(
                mesh.world() - self.origin,
                mesh.faces[shown],
                texture.uv[0][shown],
                texture.colour,
                texture.provenance,
            )

        return self._textures.get(tile, load)

    def neighbours(self, tile: Tile, among: list[Tile]) -> list[Tile]:
        """Those of the eight around it that are there."""
        known = set(among)
        return [other for other in tile.ring(1) if other != tile and other in known]
