"""A tile's mesh and texture as the primitives of a GLB: surface with its picture, rim and bottom plain and labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cityweave.io.gltf import Material, Primitive, encode_jpeg, used_vertices, weld_corners
from cityweave.io.textures import TileTexture, halved, level_picture
from cityweave.mesh import BOTTOM, RIM, SURFACE, TileMesh

PART_NAMES = {SURFACE: "surface", RIM: "rim", BOTTOM: "bottom"}
PLAIN = Material("plain", None, (0.21, 0.20, 0.18))


@dataclass(frozen=True)
class PartMesh:
    """One part: `vertex` (n,) of the tile mesh for each vertex here, faces (m,3), uv (n,2) or None."""

    part: int
    vertex: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None


def split_parts(mesh: TileMesh, uv_mx3x2: np.ndarray) -> list[PartMesh]:
    parts = []
    for part in (SURFACE, RIM, BOTTOM):
        chosen = mesh.part == part
        if not chosen.any():
            continue
        if part == SURFACE:
            vertex, uv, faces = weld_corners(mesh.faces[chosen], uv_mx3x2[chosen])
            parts.append(PartMesh(part, vertex, faces, uv))
        else:
            vertex, faces = used_vertices(mesh.faces[chosen])
            parts.append(PartMesh(part, vertex, faces, None))
    return parts


def primitives(
    parts: list[PartMesh], position_nx3: np.ndarray, picture_material: int, plain: int
) -> tuple[Primitive, ...]:
    """`position_nx3` float32, one row per vertex of the tile mesh, in the axes of the file."""
    return tuple(
        Primitive(
            positions=position_nx3[part.vertex],
            faces=part.faces,
            uv=part.uv,
            material=picture_material if part.part == SURFACE else plain,
            extras={"part": PART_NAMES[part.part]},
        )
        for part in parts
    )


def level_texture(texture: TileTexture, level: int, halvings: int, quality: int) -> tuple[bytes, np.ndarray]:
    """JPEG bytes of a level's picture, halved so many times more, and the level's uv."""
    picture, uv = level_picture(texture, level)
    for _ in range(halvings):
        if min(picture.shape[:2]) < 2:
            break
        picture = halved(_even(picture), 1)
    return encode_jpeg(picture, quality), uv


def _even(picture: np.ndarray) -> np.ndarray:
    """Repeat the last row or column of an odd side: cutting it off would shift the whole picture under its uv."""
    rows, cols = (-n % 2 for n in picture.shape[:2])
    return np.pad(picture, ((0, rows), (0, cols), (0, 0)), mode="edge") if rows or cols else picture


def largest_gap_m(fine: TileMesh, coarse: TileMesh) -> float:
    """How far a coarser level is off the finest in height: the 99th percentile over cells of about a metre.

    Seen from above, which is how a city is approached; a wall that moved shows as its height over few cells.
    """
    from cityweave.render.rasterise import rasterise

    xy = fine.xyz()[:, :2]
    low, high = xy.min(axis=0), xy.max(axis=0)
    cols, rows = (max(int(np.ceil(n)), 1) for n in (high - low))
    heights = []
    for mesh in (fine, coarse):
        xyz = mesh.xyz()
        chosen = mesh.faces[mesh.part == SURFACE]
        heights.append(rasterise(xyz[:, :2] - low, xyz[:, 2], chosen, cols, rows, "largest").depth)
    gap = np.abs(heights[0] - heights[1])
    gap = gap[np.isfinite(gap)]
    return float(np.percentile(gap, 99)) if gap.size else 0.0
