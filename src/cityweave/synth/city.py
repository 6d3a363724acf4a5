"""The procedural city of a box: blocks, streets and river of the layout, cut to the box and made one scene."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.errors import ConfigError
from cityweave.grid import Box, CellGrid
from cityweave.synth.blocks import fill_block
from cityweave.synth.layout import Layout
from cityweave.synth.noise import hash2
from cityweave.synth.scene import PATCH_COLUMNS, Builder, Label, Material, Scene, Style
from cityweave.synth.streets import river, street

TERRAIN_CELL_M = 2.0
LABEL_CELL_M = 0.2
MAX_LABEL_CELLS = 400_000_000

Parts = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64], int]


def build_city(box: Box, origin_m: tuple[float, float, float], layout: Layout, max_height_m: float) -> Scene:
    """Things that would stick out of the box are left out whole, so no body is ever cut open."""
    b = Builder()
    cells = layout.blocks_in(*box.as_tuple())
    for i, j in cells:
        if layout.is_river(i):
            river(b, layout, i, j)
        else:
            fill_block(b, layout, i, j, max_height_m)
    for i, j in cells:
        street(b, layout, False, i, j)
        street(b, layout, True, i, j)
    return assemble(b, box, origin_m, layout.terrain)


def assemble(b: Builder, box: Box, origin_m: tuple[float, float, float], terrain_of) -> Scene:  # type: ignore[no-untyped-def]
    """Builder to scene; `terrain_of(x, y)` gives ground heights in the city's CRS."""
    ground, terrain_grid = _terrain(box, origin_m, terrain_of)
    groups = [_polygons(b), _boxes(b), _trees(b)]
    offset = np.array(origin_m)
    vertices, faces, material, patch = [ground[0]], [ground[1]], [ground[2]], [ground[3]]
    patches = [np.zeros((1, PATCH_COLUMNS))]
    objects = [np.zeros(1, dtype=np.int32)]
    n_vertices, n_patches, n_objects = len(ground[0]), 1, 1
    for points, corners, kind, owner_patch, table, owners in groups:
        keep, count = _inside(points, corners, owner_patch, owners, box)
        points = points - offset
        table = table.copy()
        if len(table):
            table[:, 0] -= offset[0]
            table[:, 1] -= offset[1]
            table[:, 4] -= offset[2]
        used, faces_kept = _compact(points, corners[keep])
        vertices.append(used)
        faces.append(faces_kept + n_vertices)
        material.append(kind[keep])
        patch.append(owner_patch[keep] + n_patches)
        patches.append(table)
        objects.append((owners + n_objects).astype(np.int32))
        n_vertices += len(used)
        n_patches += len(table)
        n_objects += count
    labels, corner = paint(b, box, origin_m)
    return Scene(
        origin_m,
        np.concatenate(vertices),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(material).astype(np.uint8),
        np.concatenate(patch).astype(np.int32),
        np.concatenate(patches),
        np.concatenate(objects),
        terrain_grid,
        TERRAIN_CELL_M,
        (box.xmin - origin_m[0], box.ymin - origin_m[1]),
        labels,
        LABEL_CELL_M,
        corner,
    )


def _inside(points, corners, patch, owners, box):  # type: ignore[no-untyped-def]
    """Faces of objects that lie wholly in the box, and how many object numbers are in use."""
    count = int(owners.max()) + 1 if len(owners) else 0
    if not len(corners):
        return np.zeros(0, dtype=bool), count
    out = (points[:, 0] < box.xmin) | (points[:, 0] > box.xmax) | (points[:, 1] < box.ymin) | (points[:, 1] > box.ymax)
    bad = np.zeros(count, dtype=bool)
    bad[owners[patch[out[corners].any(axis=1)]]] = True
    return ~bad[owners[patch]], count


def _compact(points, faces):  # type: ignore[no-untyped-def]
    used = np.zeros(len(points), dtype=bool)
    used[faces] = True
    number = np.cumsum(used) - 1
    return points[used], number[faces].reshape(-1, 3)


def _terrain(box, origin_m, terrain_of):  # type: ignore[no-untyped-def]
    """The ground as a triangulated lattice of exactly the box."""
    cols, rows = round(box.width / TERRAIN_CELL_M), round(box.height / TERRAIN_CELL_M)
    if abs(cols * TERRAIN_CELL_M - box.width) > 1e-6 or abs(rows * TERRAIN_CELL_M - box.height) > 1e-6:
        raise ConfigError(
            f"the synthetic city's box of {box.width} m x {box.height} m (bounds and margin) has sides that are no "
            f"multiples of {TERRAIN_CELL_M} m; whole even numbers of metres are accepted"
        )
    x = box.xmin + np.arange(cols + 1) * TERRAIN_CELL_M
    y = box.ymin + np.arange(rows + 1) * TERRAIN_CELL_M
    gx, gy = np.meshgrid(x, y)
    z = np.asarray(terrain_of(gx, gy)) - origin_m[2]
    points = np.stack([gx - origin_m[0], gy - origin_m[1], z], axis=-1).reshape(-1, 3)
    n = np.arange((rows + 1) * (cols + 1)).reshape(rows + 1, cols + 1)
    a, b_, c, d = n[:-1, :-1].ravel(), n[:-1, 1:].ravel(), n[1:, 1:].ravel(), n[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b_, c], 1), np.stack([a, c, d], 1)])
    zero = np.zeros(len(faces), dtype=np.int64)
    return (points, faces, zero.astype(np.uint8) + np.uint8(Material.GROUND), zero), z.astype(np.float32)


def _polygons(b: Builder):  # type: ignore[no-untyped-def]
    if not b.polygons:
        return _nothing()
    sizes = np.array([len(p[0]) for p in b.polygons])
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    points = np.concatenate([p[0] for p in b.polygons])
    kinds = np.array([p[1] for p in b.polygons], dtype=np.uint8)
    patch = np.array([p[2] for p in b.polygons])
    faces, owner = [], []
    for n in range(1, int(sizes.max()) - 1):  # the n-th triangle of every fan
        has = np.flatnonzero(sizes > n + 1)
        faces.append(np.stack([start[has], start[has] + n, start[has] + n + 1], axis=1))
        owner.append(has)
    face, which = np.concatenate(faces), np.concatenate(owner)
    order = np.argsort(which, kind="stable")
    which = which[order]
    return points, face[order], kinds[which], patch[which], np.array(b.patches), np.array(b.owners)


def _nothing():  # type: ignore[no-untyped-def]
    empty = np.zeros(0, dtype=np.int64)
    return (
        np.zeros((0, 3)),
        np.zeros((0, 3), np.int64),
        empty.astype(np.uint8),
        empty,
        np.zeros((0, PATCH_COLUMNS)),
        empty,
    )


_BOX_FACES = np.array(
    [[0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7], [4, 5, 6], [4, 6, 7]]
    + [[0, 2, 1], [0, 3, 2]]
)  # fmt: skip


def _boxes(b: Builder):  # type: ignore[no-untyped-def]
    if not b.boxes:
        return _nothing()
    t = np.array(b.boxes)
    centre, along = t[:, 0:2], t[:, 2:4]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    half_a, half_b = along * t[:, 4:5] / 2, across * t[:, 5:6] / 2
    ring = np.stack(
        [centre - half_a - half_b, centre + half_a - half_b, centre + half_a + half_b, centre - half_a + half_b], 1
    )
    low = np.concatenate([ring, np.broadcast_to(t[:, 6, None, None], (len(t), 4, 1))], axis=2)
    high = np.concatenate([ring, np.broadcast_to(t[:, 7, None, None], (len(t), 4, 1))], axis=2)
    points = np.concatenate([low, high], axis=1).reshape(-1, 3)
    faces = (np.arange(len(t))[:, None, None] * 8 + _BOX_FACES[None]).reshape(-1, 3)
    number = np.repeat(np.arange(len(t)), len(_BOX_FACES))
    table = np.zeros((len(t), PATCH_COLUMNS))
    table[:, 0:2], table[:, 2:4] = centre, along
    table[:, 4], table[:, 5], table[:, 6] = t[:, 6], t[:, 7] - t[:, 6], t[:, 4]
    table[:, 7], table[:, 8:11], table[:, 11] = Style.BLANK, t[:, 9:12], t[:, 12]
    return points, faces, t[number, 8].astype(np.uint8), number, table, np.arange(len(t))


def _icosphere() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """An icosahedron divided once: 42 points, 80 faces."""
    g = (1 + 5**0.5) / 2
    points = [[-1, g, 0], [1, g, 0], [-1, -g, 0], [1, -g, 0], [0, -1, g], [0, 1, g], [0, -1, -g], [0, 1, -g]]
    points += [[g, 0, -1], [g, 0, 1], [-g, 0, -1], [-g, 0, 1]]
    faces = [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6]]
    faces += [[7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10]]
    faces += [[8, 6, 7], [9, 8, 1]]
    p = [np.array(q, dtype=float) / np.linalg.norm(q) for q in points]
    middle: dict[tuple[int, int], int] = {}

    def mid(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in middle:
            m = p[a] + p[b]
            p.append(m / np.linalg.norm(m))
            middle[key] = len(p) - 1
        return middle[key]

    out = []
    for a, b, c in faces:
        ab, bc, ca = mid(a, b), mid(b, c), mid(c, a)
        out += [[a, ab, ca], [b, bc, ab], [c, ca, bc], [ab, bc, ca]]
    return np.array(p), np.array(out)


@njit(cache=True)
def _crowns(trees, ball, out):  # type: ignore[no-untyped-def]
    for n in range(trees.shape[0]):
        x, y, z, radius, height, kind, seed = trees[n]
        low = z + 0.10 * height
        half = 0.5 * (z + height - low)
        for k in range(ball.shape[0]):
            uz = ball[k, 2]
            rough = 0.84 + 0.3 * hash2(k, 0, np.int64(seed))
            wide = radius * rough
            if kind == 1.0:  # conifer: a cone rather than a ball
                wide *= 0.62 * (1.08 - uz) / max(np.sqrt(1.0 - uz * uz), 0.25)
            out[n, k, 0] = x + wide * ball[k, 0]
            out[n, k, 1] = y + wide * ball[k, 1]
            out[n, k, 2] = low + half * (1.0 + uz * (0.93 + 0.07 * rough))


def _trees(b: Builder):  # type: ignore[no-untyped-def]
    if not b.trees:
        return _nothing()
    t = np.array(b.trees)
    ball, ball_faces = _icosphere()
    crowns = np.empty((len(t), len(ball), 3))
    _crowns(t, ball, crowns)
    turn = np.arange(5) * 2 * np.pi / 5
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    trunk_xy = t[:, None, 0:2] + circle[None] * (0.11 * t[:, None, 3:4] + 0.05)
    low = np.concatenate([trunk_xy, np.broadcast_to((t[:, 2] - 0.5)[:, None, None], (len(t), 5, 1))], axis=2)
    high = np.concatenate([trunk_xy, np.broadcast_to((t[:, 2] + 0.4 * t[:, 4])[:, None, None], (len(t), 5, 1))], axis=2)
    points = np.concatenate([crowns, low, high], axis=1)
    m = len(ball)
    trunk_faces = [[m + k, m + (k + 1) % 5, m + 5 + (k + 1) % 5] for k in range(5)]
    trunk_faces += [[m + k, m + 5 + (k + 1) % 5, m + 5 + k] for k in range(5)]
    trunk_faces += [[m + 5, m + 6 + k, m + 7 + k] for k in range(3)] + [[m, m + 2 + k, m + 1 + k] for k in range(3)]
    each = np.concatenate([ball_faces, np.array(trunk_faces)])
    faces = (np.arange(len(t))[:, None, None] * points.shape[1] + each[None]).reshape(-1, 3)
    number = np.repeat(np.arange(len(t)), len(each))
    one = np.concatenate([np.full(len(ball_faces), Material.TREE), np.full(len(trunk_faces), Material.TRUNK)])
    table = np.zeros((len(t), PATCH_COLUMNS))
    table[:, 0:2], table[:, 2], table[:, 3] = t[:, 0:2], t[:, 3], t[:, 5]
    table[:, 4], table[:, 5], table[:, 11] = t[:, 2], t[:, 4], t[:, 6]
    return points.reshape(-1, 3), faces, np.tile(one, len(t)).astype(np.uint8), number, table, np.arange(len(t))


@njit(cache=True)
def _paint(points, start, label, cell, out):  # type: ignore[no-untyped-def]
    rows, cols = out.shape
    for n in range(label.size):
        s, e = start[n], start[n + 1]
        c0 = max(int(np.floor(points[s:e, 0].min() / cell)), 0)
        c1 = min(int(np.ceil(points[s:e, 0].max() / cell)), cols)
        r0 = max(int(np.floor(points[s:e, 1].min() / cell)), 0)
        r1 = min(int(np.ceil(points[s:e, 1].max() / cell)), rows)
        for r in range(r0, r1):
            y = (r + 0.5) * cell
            lo, hi = 1e9, -1e9  # a convex polygon crosses a row in one piece
            for k in range(s, e):
                m = k + 1 if k + 1 < e else s
                ya, yb = points[k, 1], points[m, 1]
                if (ya <= y) != (yb <= y):
                    x = points[k, 0] + (y - ya) / (yb - ya) * (points[m, 0] - points[k, 0])
                    lo, hi = min(lo, x), max(hi, x)
            for c in range(max(c0, int(np.ceil(lo / cell - 0.5))), min(c1, int(np.ceil(hi / cell - 0.5)))):
                out[r, c] = label[n]


def paint(b: Builder, box: Box, origin_m: tuple[float, float, float]) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Ground labels on cells counted from the CRS origin; row 0 is the south. Unpainted ground is asphalt."""
    grid = CellGrid.covering(box, LABEL_CELL_M)
    if grid.rows * grid.cols > MAX_LABEL_CELLS:
        raise ConfigError(
            f"a synthetic city of {box.width:.0f} m x {box.height:.0f} m needs more than {MAX_LABEL_CELLS} ground cells; "
            "a smaller box is accepted"
        )
    labels = np.full(grid.shape, Label.ASPHALT, dtype=np.uint8)
    corner = np.array([grid.col0 * LABEL_CELL_M, grid.row0 * LABEL_CELL_M])
    if b.paint:
        sizes = np.array([len(p) for p, _ in b.paint])
        start = np.concatenate([[0], np.cumsum(sizes)])
        points = np.concatenate([p for p, _ in b.paint]) - corner
        _paint(points, start, np.array([n for _, n in b.paint], dtype=np.uint8), LABEL_CELL_M, labels)
    return labels, (float(corner[0] - origin_m[0]), float(corner[1] - origin_m[1]))
