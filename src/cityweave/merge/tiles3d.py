"""3D Tiles 1.1: one GLB per tile and level, refined coarse to fine, under a quadtree of the tiles.

Each vertex goes through float64 to EPSG:4978 and then into its tile's east-north-up frame, which the tileset's
transform undoes: grid coordinates called east and north would be metres off at a tile's corner. Quadtree nodes have no
content of their own, so the coarsest level of every tile in view is what a far camera gets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.grid import Tile
from cityweave.io.gltf import Material, Node, glb_bytes, y_up
from cityweave.io.textures import TileTexture
from cityweave.merge.earth import Placement
from cityweave.merge.tilemesh import PLAIN, largest_gap_m, level_texture, primitives, split_parts
from cityweave.mesh import TileMesh

_SLACK_RAD, _SLACK_M = 1e-9, 0.01  # edges are straight in space, parallels are not: millimetres


@dataclass(frozen=True)
class Region:
    """west, south, east, north in radians; lowest and highest height in metres above the ellipsoid."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @staticmethod
    def around(geodetic_nx3: np.ndarray) -> Region:
        radians = np.array([np.pi / 180, np.pi / 180, 1.0])
        slack = np.array([_SLACK_RAD, _SLACK_RAD, _SLACK_M])
        low, high = geodetic_nx3.min(axis=0) * radians - slack, geodetic_nx3.max(axis=0) * radians + slack
        return Region(tuple(low.tolist()), tuple(high.tolist()))

    @staticmethod
    def union(regions: Sequence[Region]) -> Region:
        low = tuple(min(r.low[k] for r in regions) for k in range(3))
        high = tuple(max(r.high[k] for r in regions) for k in range(3))
        return Region(low, high)  # type: ignore[arg-type]

    def volume(self) -> dict[str, Any]:
        (west, south, bottom), (east, north, top) = self.low, self.high
        return {"region": [west, south, east, north, bottom, top]}


@dataclass(frozen=True)
class TileNode:
    """A tile's branch of the tileset, and where it lies."""

    tile: Tile
    region: Region
    error_m: float
    entry: dict[str, Any]
    files: tuple[str, ...]


def write_tile(
    folder: Path, tile: Tile, levels: list[TileMesh], texture: TileTexture, placement: Placement, quality: int
) -> TileNode:
    """Write `{tile}_{level}.glb` for every level and describe them, coarsest outermost."""
    world = [mesh.world() for mesh in levels]
    placed = [placement.place(points) for points in world]
    region = Region.around(np.concatenate([geodetic for _, geodetic in placed]))
    box = _box(np.concatenate([local for local, _ in placed]))
    errors = [0.0]
    for mesh in levels[1:]:
        # A viewer needs errors that grow with the level, and more than zero where there is something finer.
        errors.append(round(max(largest_gap_m(levels[0], mesh), 1.5 * errors[-1], 0.05), 3))
    entry: dict[str, Any] | None = None
    files = []
    for k, (mesh, (local, _)) in enumerate(zip(levels, placed, strict=True)):
        name = f"{tile.name}_{k}.glb"
        (folder / name).write_bytes(_glb(mesh, k, texture, local, quality, tile.name))
        files.append(name)
        node: dict[str, Any] = {
            "boundingVolume": {"box": box},
            "geometricError": errors[k],
            "refine": "REPLACE",
            "content": {"uri": name},
        }
        if entry is not None:
            node["children"] = [entry]
        entry = node
    assert entry is not None
    entry["transform"] = placement.frame.matrix()
    return TileNode(tile, region, errors[-1], entry, tuple(files))


def _glb(mesh: TileMesh, level: int, texture: TileTexture, local: np.ndarray, quality: int, name: str) -> bytes:
    picture, uv = level_texture(texture, level, 0, quality)
    node = Node(name, primitives(split_parts(mesh, uv), y_up(local), 0, 1))
    return glb_bytes([node], [Material("surface", picture), PLAIN])


def _box(local_nx3: np.ndarray) -> list[float]:
    """Centre and three half axes in the tile's frame."""
    low, high = local_nx3.min(axis=0) - _SLACK_M, local_nx3.max(axis=0) + _SLACK_M
    centre, half = (low + high) / 2, (high - low) / 2
    return [*centre.tolist(), half[0], 0.0, 0.0, 0.0, half[1], 0.0, 0.0, 0.0, half[2]]


def write_tileset(path: Path, nodes: Sequence[TileNode], extras: dict[str, Any]) -> None:
    root = _quadtree(list(nodes))
    # A branch's own frame is its coarsest tile's; a root that is such a branch is wrapped, so that all look alike.
    if "content" in root:
        root = _parent(list(nodes), [root])
    document = {
        "asset": {"version": "1.1", "generator": "cityweave", "extras": extras},
        "geometricError": root["geometricError"],
        "root": root,
    }
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")


def _quadtree(nodes: list[TileNode]) -> dict[str, Any]:
    if len(nodes) == 1:
        return nodes[0].entry
    low = (min(n.tile.i for n in nodes), min(n.tile.j for n in nodes))
    span = max(max(n.tile.i for n in nodes) - low[0], max(n.tile.j for n in nodes) - low[1]) + 1
    half = 1 << ((span - 1).bit_length() - 1)  # the largest power of two below the span
    children = []
    for quarter in range(4):
        inside = [
            n
            for n in nodes
            if ((n.tile.i - low[0]) // half, (n.tile.j - low[1]) // half) == (quarter % 2, quarter // 2)
        ]
        if inside:
            children.append(_quadtree(inside))
    return _parent(nodes, children)


def _parent(nodes: list[TileNode], children: list[dict[str, Any]]) -> dict[str, Any]:
    """An empty node: its error is the size of what is missing while its children aren't there."""
    region = Region.union([node.region for node in nodes])
    spread = max(
        max(n.tile.core.xmax for n in nodes) - min(n.tile.core.xmin for n in nodes),
        max(n.tile.core.ymax for n in nodes) - min(n.tile.core.ymin for n in nodes),
    )
    error = max(float(spread), 2.0 * max(child["geometricError"] for child in children))
    return {
        "boundingVolume": region.volume(),
        "geometricError": error,
        "refine": "REPLACE",
        "children": children,
    }
