"""The 2.5D atlas of a tile: one plan view, and the walls of every level of detail in bands below it.

    rows 0 ..            top band: the tile seen from above on a city-wide texel grid, all levels share it
    then, per level k    its facade charts, packed into the left W >> k columns at 2^k times the texel size

Every level's walls get texels of their own instead of borrowing level 0's: a coarse wall stands somewhere else, and
the extra bands add a quarter, a sixteenth, ... of the first. `io.textures.level_picture` cuts a level's picture out.
Texture coordinates count from the top-left corner of the atlas, v down, as glTF has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cityweave.io.textures import AtlasLayout
from cityweave.mesh import SURFACE, TileMesh
from cityweave.render.rasterise import NO_FACE, rasterise
from cityweave.texture.charts import PLAIN, TOP, components, face_frame, facing, label_faces, shared_edges
from cityweave.texture.pack import shelf_pack

_PLAIN_TEXELS = 16  # one patch of plain colour for rim and bottom; still two texels after three halvings
_EDGE_INSET_PX = 0.5  # of the level's own texels; more makes roofs visibly smaller than their pictures
_STEEPEST_ROOF = 0.2  # z of its normal
_POLITE_SPLITS = 6  # rounds in which overlapping faces are moved to a chart together


@dataclass(frozen=True)
class AtlasSettings:
    """Texel sizes in metres on the ground and on level 0's walls; padding in texels on each side of a chart."""

    top_texel_m: float = 0.25
    facade_texel_m: float = 0.5
    padding_px: int = 2
    steep_deg: float = 65.0
    smallest_chart_m2: float = 2.0


@dataclass(frozen=True)
class Triangles:
    """Plain triangles in tile-local metres."""

    xyz: np.ndarray  # (n,3) float64
    faces: np.ndarray  # (m,3) int32

    @staticmethod
    def joined(parts: list[Triangles]) -> Triangles:
        if not parts:
            return Triangles(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
        starts = np.cumsum([0] + [len(part.xyz) for part in parts])
        return Triangles(
            np.concatenate([part.xyz for part in parts]),
            np.concatenate([part.faces + np.int32(s) for part, s in zip(parts, starts, strict=False)]),
        )

    def near(self, low_xy: np.ndarray, high_xy: np.ndarray) -> Triangles:
        """The faces whose box in plan meets [low, high]; vertices are kept as they are."""
        corner = self.xyz[self.faces][:, :, :2]
        meets = (corner.max(axis=1) >= low_xy).all(axis=1) & (corner.min(axis=1) <= high_xy).all(axis=1)
        return Triangles(self.xyz, self.faces[meets])


def surface_triangles(mesh: TileMesh, origin_m: tuple[float, float, float] | None = None) -> Triangles:
    """SURFACE faces of a mesh, in metres from `origin_m` (default: its own origin)."""
    xyz = mesh.xyz()
    if origin_m is not None:
        xyz = xyz + (np.asarray(mesh.origin_m) - np.asarray(origin_m))
    return Triangles(xyz, mesh.faces[mesh.part == SURFACE])


@dataclass(frozen=True)
class Band:
    """Texels of one part of the atlas: which triangle lies under each centre, and where on it.

    face: int32 [rows, cols] into `triangles.faces`, -1 outside charts; bary: float32 [rows, cols, 2].
    chart: (charts, 4) int32 x0, y0, width, height within the band; `facing` (charts, 2); empty for the top band.
    """

    row0: int
    face: np.ndarray
    bary: np.ndarray
    triangles: Triangles
    normal: np.ndarray  # (m,3) unit
    chart: np.ndarray
    facing: np.ndarray
    texel_m: float

    def points(self, texel: np.ndarray) -> np.ndarray:
        """(k,3) float64 local metres of flat texel numbers that lie in a chart."""
        face, bary = self.face.ravel()[texel], self.bary.reshape(-1, 2)[texel].astype(np.float64)
        corner = self.triangles.xyz[self.triangles.faces[face]]
        return (
            bary[:, :1] * corner[:, 0] + bary[:, 1:] * corner[:, 1] + (1.0 - bary.sum(axis=1))[:, None] * corner[:, 2]
        )

    def normals(self, texel: np.ndarray) -> np.ndarray:
        return self.normal[self.face.ravel()[texel]]

    def texel_m2(self, texel: np.ndarray) -> np.ndarray:
        """(k,) surface under each texel: walls are unrolled, a roof is seen in plan and larger than that."""
        area = np.full(len(texel), self.texel_m**2)
        return area if len(self.chart) else area / np.maximum(self.normals(texel)[:, 2], _STEEPEST_ROOF)


@dataclass(frozen=True)
class Atlas:
    layout: AtlasLayout
    uv: list[np.ndarray]  # per level float32 (m,3,2) in 0..1
    bands: list[Band]  # the top band, then one per level
    plain_box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the plain patch


@dataclass(frozen=True)
class _Facades:
    """Facade charts of one level laid out in their band: `faces` (f,), corners (f,3,2) in texels."""

    faces: np.ndarray
    corner_px: np.ndarray
    chart: np.ndarray
    facing: np.ndarray
    rows: int


def build_atlas(levels: list[TileMesh], around: Triangles, settings: AtlasSettings) -> Atlas:
    """`around`: the neighbours' surfaces in this tile's local metres; they fill the plan view's gutter."""
    labels = [label_faces(mesh, settings.steep_deg, settings.smallest_chart_m2 * 4**k) for k, mesh in enumerate(levels)]
    origin, shape = _plan_extent(levels, settings)
    width = _atlas_width(levels, labels, shape[1], settings)
    step = 2 ** (len(levels) - 1)
    top_rows = -(-max(shape[0], _PLAIN_TEXELS) // (2 * step)) * 2 * step
    facades = [
        _lay_facades(mesh, label, settings.facade_texel_m * 2**k, settings.padding_px, width >> k)
        for k, (mesh, label) in enumerate(zip(levels, labels, strict=True))
    ]
    starts = np.cumsum([top_rows] + [part.rows for part in facades]).tolist()
    layout = AtlasLayout(
        width=width, height=starts[-1], band_rows=tuple(starts), top_texel_m=settings.top_texel_m,
        top_origin_m=origin,
    )  # fmt: skip
    plain = (width - _PLAIN_TEXELS, 0, width, _PLAIN_TEXELS)
    uv = [
        _texture_coordinates(mesh, labels[k], facades[k], layout, starts[k], plain, _EDGE_INSET_PX * 2**k)
        for k, mesh in enumerate(levels)
    ]
    bands = [_top_band(levels[0], labels[0], around, layout, shape)]
    for k, (mesh, part) in enumerate(zip(levels, facades, strict=True)):
        bands.append(_facade_band(mesh, part, starts[k], width >> k, settings.facade_texel_m * 2**k))
    return Atlas(layout, uv, bands, plain)


def _plan_extent(levels: list[TileMesh], settings: AtlasSettings) -> tuple[tuple[float, float], tuple[int, int]]:
    """West and north edge of the plan view in local metres, its rows and columns; on the city-wide texel grid."""
    texel, east, north = settings.top_texel_m, levels[0].origin_m[0], levels[0].origin_m[1]
    xy = np.concatenate([mesh.xyz()[:, :2] for mesh in levels])
    (xmin, ymin), (xmax, ymax) = xy.min(axis=0), xy.max(axis=0)
    pad = settings.padding_px
    col0, col1 = np.floor((east + xmin) / texel) - pad, np.ceil((east + xmax) / texel) + pad
    row0, row1 = np.floor((north + ymin) / texel) - pad, np.ceil((north + ymax) / texel) + pad
    return (float(col0 * texel - east), float(row1 * texel - north)), (int(row1 - row0), int(col1 - col0))


def _atlas_width(levels: list[TileMesh], labels: list[np.ndarray], top_cols: int, settings: AtlasSettings) -> int:
    needed = [top_cols + _PLAIN_TEXELS, 64]
    for k, (mesh, label) in enumerate(zip(levels, labels, strict=True)):
        faces = np.flatnonzero(label >= 0)
        if not len(faces):
            continue
        corner = mesh.xyz()[mesh.faces[faces]][:, :, :2].transpose(1, 0, 2).reshape(-1, 2)
        _, low, high = _extremes(np.tile(label[faces], 3), corner)
        diagonal = np.hypot(*(high - low).T).max()  # however a part of the chart is turned, it is no longer than this
        texels = int(np.ceil(diagonal / (settings.facade_texel_m * 2**k))) + 2 * settings.padding_px + 2
        needed.append(texels << k)
    return -(-max(needed) // 32) * 32


def _extremes(group: np.ndarray, value: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    count = int(group.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, group, value)
    np.maximum.at(high, group, value)
    return count, low, high


def _lay_facades(mesh: TileMesh, label: np.ndarray, texel_m: float, padding: int, width: int) -> _Facades:
    """Unroll, pack, look for texels that two faces claim, split those charts, and again until there are none."""
    faces = np.flatnonzero(label >= 0)
    if not len(faces):
        none = np.zeros((0, 4), np.int32)
        return _Facades(faces, np.zeros((0, 3, 2)), none, np.zeros((0, 2)), 0)
    chart = label[faces].astype(np.int64)
    corners = mesh.xyz()[mesh.faces[faces]]  # (f,3,3)
    frame = face_frame(mesh.xyz(), mesh.faces)
    pairs = shared_edges(mesh.faces, faces)
    attempt = 0
    while True:
        charts = int(chart.max()) + 1
        direction = facing(frame, faces, chart, charts)
        right = np.stack([-direction[:, 1], direction[:, 0]], axis=1)[chart]
        along = (corners[:, :, :2] * right[:, None, :]).sum(axis=2)
        local = np.stack([along, -corners[:, :, 2]], axis=2) / texel_m  # (f,3,2), v down
        _, low, high = _extremes(np.tile(chart, 3), local.transpose(1, 0, 2).reshape(-1, 2))
        low = np.floor(low)
        size = np.maximum(np.ceil(high - low), 1).astype(np.int64) + 2 * padding
        place, rows = shelf_pack(size[:, 0], size[:, 1], width)
        corner_px = local - low[chart][:, None, :] + (place[chart] + padding)[:, None, :]
        bad = overlapping(corner_px, width, rows)
        if not bad.any():
            break
        chart = _split(chart, bad, pairs, together=attempt < _POLITE_SPLITS)
        attempt += 1
    rectangles = np.concatenate([place, size], axis=1).astype(np.int32)
    return _Facades(faces, corner_px, rectangles, direction, -(-rows // 4) * 4)


def overlapping(corner_px: np.ndarray, width: int, rows: int) -> np.ndarray:
    """Which faces (f,) lie on a texel centre that a face of lower number claims too."""
    count = len(corner_px)
    screen = corner_px.reshape(-1, 2)
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    rank = np.repeat(np.arange(count, dtype=np.float64), 3)  # constant on a face: the z-buffer picks first and last
    first = rasterise(screen, rank, faces, width, rows, "smallest").face
    last = rasterise(screen, rank, faces, width, rows, "largest").face
    bad = np.zeros(count, bool)
    bad[last[last != first]] = True
    return bad


def _split(chart: np.ndarray, bad: np.ndarray, pairs: np.ndarray, together: bool) -> np.ndarray:
    """Move the bad faces out of their charts, connected ones into a common new chart; numbers stay dense."""
    new = chart.copy()
    if together:
        root = components(pairs, bad, chart)
        _, number = np.unique(root[bad], return_inverse=True)
    else:
        number = np.arange(int(bad.sum()))
    new[bad] = int(chart.max()) + 1 + number
    return np.unique(new, return_inverse=True)[1]


def _texture_coordinates(
    mesh: TileMesh,
    label: np.ndarray,
    part: _Facades,
    layout: AtlasLayout,
    row0: int,
    plain: tuple[int, int, int, int],
    inset_px: float,
) -> np.ndarray:
    plan = layout.plan_px(mesh.xyz())
    plan += inset_px * _inward(plan, mesh.faces, label)
    px = plan[mesh.faces]  # (m,3,2)
    px[label == PLAIN] = (plain[0] + plain[2]) / 2, (plain[1] + plain[3]) / 2
    px[part.faces] = part.corner_px + np.array([0, row0])
    # Coarse levels may reach past the plan view's edge by rounding only; keep every lookup inside the picture.
    uv = px / [layout.width, layout.height]
    return np.clip(uv, 0.0, 1.0).astype(np.float32)


def _inward(plan_nx2: np.ndarray, faces_mx3: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Per vertex (n,2), the way from a wall's edge into the roof or ground that ends there; 0 off the walls.

    In the plan view a roof's last texel touches the street's first. A lookup right on the edge would mix the two, so
    texture coordinates keep a little inside. The length is such that every edge at a corner moves by one.
    """
    corner = faces_mx3.astype(np.int64)
    top, wall = corner[label == TOP], corner[label >= 0]

    def edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start, end = np.concatenate(faces.T), np.concatenate(np.roll(faces, -1, axis=1).T)
        return start, end, np.minimum(start, end) << 32 | np.maximum(start, end)

    start, end, key = edges(top)
    chosen = np.isin(key, edges(wall)[2])
    start, end = start[chosen], end[chosen]
    along = plan_nx2[end] - plan_nx2[start]
    length = np.hypot(along[:, 0], along[:, 1])
    # Counter-clockwise seen from above, and v counts down: the inside is to the left of the direction of travel.
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.where(length > 0, length, np.inf)[:, None]
    ends, count = np.concatenate([start, end]), len(plan_nx2)
    total = np.stack([np.bincount(ends, np.tile(normal[:, k], 2), count) for k in range(2)], axis=1)
    number = np.bincount(np.concatenate([start, end]), np.tile(length > 0, 2), count)
    square = (total * total).sum(axis=1)
    clear = square > 0.2 * number**2  # else the edges face each other: there is no inside
    return np.where(clear[:, None], total * (number / np.where(clear, square, 1.0))[:, None], 0.0)


def _top_band(
    mesh: TileMesh, label: np.ndarray, around: Triangles, layout: AtlasLayout, shape: tuple[int, int]
) -> Band:
    """Roofs and ground first; what they leave free goes to leaning walls and, in the gutter, to the neighbours."""
    own = Triangles(mesh.xyz(), mesh.faces)
    scene = Triangles.joined([own, around])
    screen = layout.plan_px(scene.xyz)
    rows, cols = layout.band_rows[0], layout.width
    first = np.flatnonzero(label == TOP)
    second = np.concatenate([np.flatnonzero(label >= 0), np.arange(len(own.faces), len(scene.faces))])
    face = np.full((rows, cols), NO_FACE, np.int32)
    bary = np.zeros((rows, cols, 2), np.float32)
    plan_face, plan_bary = face[: shape[0], : shape[1]], bary[: shape[0], : shape[1]]
    for chosen in (first, second):
        seen = rasterise(screen, scene.xyz[:, 2], scene.faces[chosen], shape[1], shape[0], "largest")
        free = (plan_face < 0) & seen.seen
        plan_face[free] = chosen[seen.face[free]]
        plan_bary[free] = seen.bary[free]
    normal = face_frame(scene.xyz, scene.faces).normal
    return Band(0, face, bary, scene, normal, np.zeros((0, 4), np.int32), np.zeros((0, 2)), layout.top_texel_m)


def _facade_band(mesh: TileMesh, part: _Facades, row0: int, width: int, texel_m: float) -> Band:
    triangles = Triangles(mesh.xyz(), mesh.faces[part.faces])
    normal = face_frame(triangles.xyz, triangles.faces).normal
    if not part.rows:
        empty = np.full((0, width), NO_FACE, np.int32)
        bary = np.zeros((0, width, 2), np.float32)
        return Band(row0, empty, bary, triangles, normal, part.chart, part.facing, texel_m)
    screen = part.corner_px.reshape(-1, 2)
    faces = np.arange(len(screen), dtype=np.int32).reshape(-1, 3)
    seen = rasterise(screen, np.zeros(len(screen)), faces, width, part.rows)
    return Band(row0, seen.face, seen.bary, triangles, normal, part.chart, part.facing, texel_m)
