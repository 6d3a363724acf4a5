"""The delivered city as the evaluation reads it: tiles, their meshes and textures, one at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cityweave.evaluate.surface import Triangles
from cityweave.grid import Box, Tile
from cityweave.manifest import Run
from cityweave.mesh import SURFACE, TileMesh
from cityweave.plan import city_tiles
from cityweave.render.city import is_done, textured_tile, tile_levels, tiles_with
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
        self.with_mesh = dict.fromkeys(tiles_with(run, "mesh"))  # in the city's order, quick to ask
        self.with_texture = [tile for tile in self.with_mesh if is_done(run, "texture", tile)]
        columns = len({tile.i for tile in self.tiles})
        self.window = 2 * columns + 5  # tiles held at a time when each is visited with its neighbours, row by row
        self._meshes = Recent(self.window)
        self._surfaces = Recent(self.window)
        self._textures = Recent(self.window)

    def scored_box(self, tile: Tile) -> Box | None:
        """The tile's part of the city, in metres from `origin`. The city may end inside a tile."""
        part = tile.core.intersection(self.run.config.city.box)
        return None if part is None else self.local(part)

    def local(self, box: Box) -> Box:
        x, y = float(self.origin[0]), float(self.origin[1])
        return Box(box.xmin - x, box.ymin - y, box.xmax - x, box.ymax - y)

    def mesh(self, tile: Tile) -> TileMesh:
        """The finest level of detail."""

        return self._meshes.get(tile, lambda: tile_levels(self.run, tile)[0])

    def surface(self, tile: Tile) -> Triangles:
        """The SURFACE part alone, without rim and bottom."""

        def make() -> Triangles:
            mesh = self.mesh(tile)
            faces = mesh.faces[mesh.part == SURFACE]
            return Triangles(mesh.world() - self.origin, mesh.ids, faces, np.zeros(len(faces), np.uint8))

        return self._surfaces.get(tile, make)

    def textured(self, tile: Tile) -> TexturedMesh:
        return self._textures.get(tile, lambda: textured_tile(self.run, tile, self.origin, mesh=self.mesh(tile)))

    def neighbours(self, tile: Tile, among: Container[Tile]) -> list[Tile]:
        """Those of the eight around it that are there."""
        return [other for other in tile.ring(1) if other != tile and other in among]
