"""All figures of the mesh: surface, walls, topology; tile by tile, each with its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.evaluate.city import City, Recent
from cityweave.evaluate.nearest import nearest_distance
from cityweave.evaluate.surface import (
    CAP_M,
    CLASSES,
    FACADE,
    GROUND,
    OCCLUDERS_M,
    OTHER,
    ROOF,
    STEEP,
    Samples,
    SurfaceScore,
    Triangles,
    reachable_samples,
)
from cityweave.evaluate.topology import count_edges
from cityweave.evaluate.truth import Truth
from cityweave.evaluate.walls import TRUE_WALL_DEG, WallShares, drop_points, is_vertical
from cityweave.grid import Box, CellGrid, Tile

# Materials of a truth mesh, as the synthetic city writes them; the stages know each other by files only.
_GROUND_MATERIALS = (0,)
_BUILDING_MATERIALS = (1, 2, 3, 4, 5, 6)
_HIDDEN_MATERIAL = 10
_GROUND_BELOW_M = 2.5  # predicted area lower than this above the true ground is ground
_OVERHANG_M = 4.0  # how far a tile's surface may reach over its core


class MeshScorer:
    """Draws each tile's points once and keeps them while neighbours may ask."""

    def __init__(self, city: City, truth: Truth, per_m2: float, gsd_m: float, seed: int) -> None:
        self.city, self.truth, self.per_m2, self.gsd_m, self.seed = city, truth, per_m2, gsd_m, seed
        self._true = Recent(city.window)
        self._predicted = Recent(city.window)

    def predicted(self, tile: Tile) -> Samples:
        def make() -> Samples:
            if tile not in self.city.with_mesh:
                return Samples.joined([])
            near = [self.city.surface(tile).near(self._around(tile))]
            own = near[0]
            for other in self.city.neighbours(tile, self.city.with_mesh):
                near.append(self.city.surface(other).near(self._around(tile)))
            # Limited to the city; a tile's surface may hang over its own core by a cell.
            keep = self.city.local(self.city.run.config.city.box)
            samples = reachable_samples(own, Triangles.joined(near), keep, self.per_m2, self.seed)
            return Samples(samples.points, samples.normals, self._predicted_class(samples))

        return self._predicted.get(tile, make)

    def true(self, tile: Tile) -> Samples:
        def make() -> Samples:
            box, mesh = self.city.scored_box(tile), self.truth.mesh
            if box is None or mesh is None:
                return Samples.joined([])
            visible = Triangles(mesh.points, mesh.ids, mesh.faces, mesh.label)
            own = visible.near(box)
            shown = own.label != _HIDDEN_MATERIAL
            own = Triangles(own.points, own.ids, own.faces[shown], own.label[shown])
            samples = reachable_samples(own, visible.near(self._around(tile)), box, self.per_m2, self.seed)
            return Samples(samples.points, samples.normals, _true_class(samples))

        return self._true.get(tile, make)

    def _around(self, tile: Tile) -> Box:
        return self.city.local(tile.core.grow(OCCLUDERS_M))

    def _cells_under(self, points: NDArray[np.float64], layer: str) -> NDArray[Any]:
        """A truth raster's values below the points."""
        x, y = points[:, 0] + self.city.origin[0], points[:, 1] + self.city.origin[1]
        g = self.gsd_m
        grid = CellGrid.covering(Box(x.min() - 3.0, y.min() - 3.0, x.max() + 3.0, y.max() + 3.0), g)
        rows = grid.row0 + grid.rows - 1 - np.floor(y / g).astype(np.int64)
        cols = np.floor(x / g).astype(np.int64) - grid.col0
        if layer == "ground":
            return self.truth.ground(grid)[rows, cols]  # type: ignore[index]
        from scipy.ndimage import maximum_filter

        buildings = self.truth.buildings(grid)
        return maximum_filter(buildings.view(np.uint8), 2 * round(2.0 / g) + 1)[rows, cols] > 0  # type: ignore[union-attr,no-any-return]

    def _predicted_class(self, samples: Samples) -> NDArray[np.uint8]:
        """By slope, height above the true ground, and whether a true building is within 2 m."""
        out = np.full(len(samples.points), OTHER, np.uint8)
        if not len(out) or not self.truth.is_synthetic:
            return out
        height = samples.points[:, 2] + self.city.origin[2] - self._cells_under(samples.points, "ground")
        building = self._cells_under(samples.points, "buildings")
        steep = np.abs(samples.normals[:, 2]) < STEEP
        out[~steep & (height < _GROUND_BELOW_M)] = GROUND
        out[~steep & building & (height >= _GROUND_BELOW_M)] = ROOF
        out[steep & building] = FACADE
        return out

    def true_walls_and_drops(self, tile: Tile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points on buildings' walls, and on everything that may explain vertical area of this tile."""
        around = [self.true(tile), *(self.true(other) for other in self.city.neighbours(tile, self.city.tiles))]
        faces = Samples.joined(around)
        faces = faces.chosen(is_vertical(faces.normals, TRUE_WALL_DEG) & faces.inside(self._reach(tile)))
        box = tile.core.grow(_OVERHANG_M + 2.0)
        grid = CellGrid.covering(box, self.gsd_m)
        drops = drop_points(self.truth.heights(grid), grid.x_centres, grid.y_centres) - self.city.origin
        return faces.points[faces.label == FACADE], np.concatenate([faces.points, drops])

    def _reach(self, tile: Tile) -> Box:
        return self.city.local(tile.core.grow(CAP_M + _OVERHANG_M))

    def score(self) -> tuple[SurfaceScore, WallShares]:
        surface, walls = SurfaceScore(), WallShares()
        for tile in self.city.tiles:
            around = self.city.neighbours(tile, self.city.tiles)
            reach = self._reach(tile)
            ours = Samples.joined([self.predicted(t) for t in (tile, *around)])
            theirs = Samples.joined([self.true(t) for t in (tile, *around)])
            ours, theirs = ours.chosen(ours.inside(reach)), theirs.chosen(theirs.inside(reach))
            own, true = self.predicted(tile), self.true(tile)
            surface.add(own.label, nearest_distance(own.points, theirs.points, CAP_M), of_truth=False)
            surface.add(true.label, nearest_distance(true.points, ours.points, CAP_M), of_truth=True)
            if len(own.points):
                walls.add(own.points, own.normals, *self.true_walls_and_drops(tile))
        return surface, walls


def _true_class(samples: Samples) -> NDArray[np.uint8]:
    material = samples.label
    building = np.isin(material, _BUILDING_MATERIALS)
    steep = np.abs(samples.normals[:, 2]) < STEEP
    out = np.full(len(material), OTHER, np.uint8)
    out[np.isin(material, _GROUND_MATERIALS) & ~steep] = GROUND
    out[building & steep] = FACADE
    out[building & ~steep] = ROOF
    return out


def topology(city: City) -> dict[str, int]:
    """Edges of the closed city and its triangles, rim and bottom included."""
    by_name = {tile.name: tile for tile in city.with_mesh}

    def corner_ids(name: str) -> NDArray[np.int64]:
        mesh = city.mesh(by_name[name])
        return mesh.ids[mesh.faces]

    used = Recent(city.window)
    neighbourhoods = [
        (tile.name, [other.name for other in city.neighbours(tile, city.with_mesh)]) for tile in city.with_mesh
    ]
    count = count_edges(neighbourhoods, corner_ids, lambda name: used.get(name, lambda: np.unique(corner_ids(name))))
    return {
        "boundary_edges": count.boundary,
        "nonmanifold_edges": count.nonmanifold,
        "triangles": count.triangles,
    }


def mesh_figures(
    city: City, truth: Truth, per_m2: float, gsd_m: float, seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    names = ("precision", "recall", "f1", "chamfer_m", "vertical_wall_share", "riser_share", "by_class")
    edges: dict[str, Any] = {"boundary_edges": None, "nonmanifold_edges": None, "triangles": None}
    if not city.with_mesh:
        return dict.fromkeys((*names, *edges)), dict.fromkeys((*names, *edges), "no tile has a mesh")
    edges = topology(city)
    if truth.mesh is None:
        return dict.fromkeys(names) | edges, dict.fromkeys(names, "there is no true mesh: the city is not synthetic")
    surface, walls = MeshScorer(city, truth, per_m2, gsd_m, seed).score()
    out = surface.figures() | {
        "chamfer_m": surface.chamfer_m(),
        "vertical_wall_share": walls.vertical_wall_share,
        "riser_share": walls.riser_share,
        "by_class": {name: surface.figures(code) for name, code in CLASSES.items()},
    }
    reasons = {}
    for name in ("chamfer_m", "vertical_wall_share", "riser_share"):
        if out[name] is None:
            reasons[name] = "the city has no wall" if name == "vertical_wall_share" else "a side has no points"
    for path, part in (("", out), *((f"by_class.{name}.", out["by_class"][name]) for name in CLASSES)):
        for key in ("precision", "recall", "f1"):
            if None in part[key].values():
                reasons[f"{path}{key}"] = "a side has no such points"
    return out | edges, reasons
