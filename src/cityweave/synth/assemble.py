"""From collected polygons, boxes and trees to one scene cut to a box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.errors import ConfigError
from cityweave.grid import Box, CellGrid
from cityweave.synth.noise import hash2
from cityweave.synth.scene import PATCH_COLUMNS, Builder, Material, Scene, Style

TERRAIN_CELL_M = 2.0
LABEL_CELL_M = 0.2
FOOTPRINT_CELL_M = 0.5
MAX_LABEL_CELLS = 400_000_000

TerrainOf = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Part:
    """Bodies of one sort, in the city's CRS. Patches belong to objects; boxes may stand on an object of polygons."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]
    material: NDArray[np.uint8]
    patch: NDArray[np.int64]  # per face
    table: NDArray[np.float64]  # per patch
    owner: NDArray[np.int64]  # per patch, object number inside the part
    stands_on: NDArray[np.int64] | None = None  # per patch, -1 for the ground

    @property
    def objects(self) -> int:
        return int(self.owner.max()) + 1 if len(self.owner) else 0

    def sticking_out(self, box: Box) -> NDArray[np.bool_]:
        """Per object."""
        p = self.points
        out = (p[:, 0] < box.xmin) | (p[:, 0] > box.xmax) | (p[:, 1] < box.ymin) | (p[:, 1] > box.ymax)
        bad = np.zeros(self.objects, dtype=bool)
        if len(self.faces):
            bad[self.owner[self.patch[out[self.faces].any(axis=1)]]] = True
        return bad


def assemble(
    b: Builder, box: Box, origin_m: tuple[float, float, float], terrain_of: TerrainOf, bodies: Part | None = None
) -> Scene:
    """Builder to scene; `terrain_of(x, y)` gives ground heights in the city's CRS.

    `bodies` stand in for the builder's polygons.
    """
    ground, terrain_grid = _terrain(box, origin_m, terrain_of)
    bodies = bodies or _polygons(b)
    boxes, trees = _boxes(b), _trees(b)
    bad_bodies = bodies.sticking_out(box)
    bad_boxes = boxes.sticking_out(box)
    if boxes.stands_on is not None and len(bad_bodies):
        bad_boxes |= (boxes.stands_on >= 0) & bad_bodies[np.maximum(boxes.stands_on, 0)]
    bad_trees = trees.sticking_out(box) | _in_buildings(trees.table[:, :2], bodies, box)
    parts = [(bodies, bad_bodies), (boxes, bad_boxes), (trees, bad_trees)]
    labels, corner = ground_labels(b, box, origin_m)
    vertices, faces, material, patch, patches, objects = _joined(ground, parts, origin_m)
    return Scene(
        origin_m=origin_m,
        vertices=vertices,
        faces=faces,
        material=material,
        patch=patch,
        patches=patches,
        objects=objects,
        terrain=terrain_grid,
        terrain_cell_m=TERRAIN_CELL_M,
        terrain_corner=(box.xmin - origin_m[0], box.ymin - origin_m[1]),
        labels=labels,
        label_cell_m=LABEL_CELL_M,
        label_corner=corner,
    )


def _joined(ground, parts, origin_m):  # type: ignore[no-untyped-def]
    """Vertices, faces, material, patch, patches, objects of the scene, the ground first."""
    offset = np.array(origin_m)
    vertices, faces, material, patch = [ground[0]], [ground[1]], [ground[2]], [ground[3]]
    patches = [np.zeros((1, PATCH_COLUMNS))]
    objects = [np.zeros(1, dtype=np.int32)]
    n_vertices, n_patches, n_objects = len(ground[0]), 1, 1
    for part, bad in parts:
        if not len(part.faces):
            continue
        keep = ~bad[part.owner[part.patch]]
        table = part.table.copy()
        table[:, [0, 1, 4]] -= offset
        used, kept = _compact(part.points - offset, part.faces[keep])
        vertices.append(used)
        faces.append(kept + n_vertices)
        material.append(part.material[keep])
        patch.append(part.patch[keep] + n_patches)
        patches.append(table)
        objects.append((part.owner + n_objects).astype(np.int32))
        n_vertices, n_patches, n_objects = n_vertices + len(used), n_patches + len(table), n_objects + part.objects
    return (
        np.concatenate(vertices),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(material).astype(np.uint8),
        np.concatenate(patch).astype(np.int32),
        np.concatenate(patches),
        np.concatenate(objects),
    )


def _in_buildings(points: NDArray[np.float64], bodies: Part, box: Box) -> NDArray[np.bool_]:
    """Whether a point of the ground lies under a building."""
    footprints = list(bodies.points[bodies.faces[bodies.material == Material.HIDDEN]])
    rows, cols = int(box.height / FOOTPRINT_CELL_M) + 1, int(box.width / FOOTPRINT_CELL_M) + 1
    corner = np.array([box.xmin, box.ymin])
    covered = painted(footprints, [1] * len(footprints), corner, (rows, cols), FOOTPRINT_CELL_M)
    i = np.clip(((points - corner) / FOOTPRINT_CELL_M).astype(np.int64), 0, [cols - 1, rows - 1])
    return covered[i[:, 1], i[:, 0]] > 0  # type: ignore[no-any-return]


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


def _polygons(b: Builder) -> Part:
    if not b.polygons:
        return _nothing()
    sizes = np.array([len(p[0]) for p in b.polygons])
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    points = np.concatenate([p[0] for p in b.polygons])
    kinds = np.array([p[1] for p in b.polygons], dtype=np.uint8)
    patch = np.array([p[2] for p in b.polygons])
    faces, number = [], []
    for n in range(1, int(sizes.max()) - 1):  # the n-th triangle of every fan
        has = np.flatnonzero(sizes > n + 1)
        faces.append(np.stack([start[has], start[has] + n, start[has] + n + 1], axis=1))
        number.append(has)
    face, which = np.concatenate(faces), np.concatenate(number)
    order = np.argsort(which, kind="stable")
    which = which[order]
    return Part(points, face[order], kinds[which], patch[which], np.array(b.patches), np.array(b.owners))


def _nothing() -> Part:
    none = np.zeros(0, dtype=np.int64)
    corners = np.zeros((0, 3), np.int64)
    return Part(np.zeros((0, 3)), corners, none.astype(np.uint8), none, np.zeros((0, PATCH_COLUMNS)), none)


_BOX_FACES = np.array([
    [0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7], [4, 5, 6], [4, 6, 7],
    [0, 2, 1], [0, 3, 2],
])  # fmt: skip


def _boxes(b: Builder) -> Part:
    if not b.boxes:
        return _nothing()
    t = np.array(b.boxes)
    centre, along = t[:, 0:2], t[:, 2:4]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    half_a, half_b = along * t[:, 4:5] / 2, across * t[:, 5:6] / 2
    ring = [centre - half_a - half_b, centre + half_a - half_b, centre + half_a + half_b, centre - half_a + half_b]
    ends = [
        np.concatenate([np.stack(ring, 1), np.broadcast_to(t[:, k, None, None], (len(t), 4, 1))], axis=2)
        for k in (6, 7)
    ]
    points = np.concatenate(ends, axis=1).reshape(-1, 3)
    faces = (np.arange(len(t))[:, None, None] * 8 + _BOX_FACES[None]).reshape(-1, 3)
    number = np.repeat(np.arange(len(t)), len(_BOX_FACES))
    table = np.zeros((len(t), PATCH_COLUMNS))
    table[:, 0:2], table[:, 2:4] = centre, along
    table[:, 4], table[:, 5], table[:, 6] = t[:, 6], t[:, 7] - t[:, 6], t[:, 4]
    table[:, 7], table[:, 8:11], table[:, 11] = Style.BLANK, t[:, 9:12], t[:, 12]
    material = t[number, 8].astype(np.uint8)
    return Part(points, faces, material, number, table, np.arange(len(t)), t[:, 13].astype(np.int64))


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


def _trees(b: Builder) -> Part:
    """A crown and a trunk each; a tree's patch holds its middle, its radius and kind, its foot and height."""
    if not b.trees:
        return _nothing()
    t = np.array(b.trees)
    ball, ball_faces = _icosphere()
    crowns = np.empty((len(t), len(ball), 3))
    _crowns(t, ball, crowns)
    turn = np.arange(5) * 2 * np.pi / 5
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    trunk_xy = t[:, None, 0:2] + circle[None] * (0.11 * t[:, None, 3:4] + 0.05)
    ends = [t[:, 2] - 0.5, t[:, 2] + 0.4 * t[:, 4]]
    trunk = [np.concatenate([trunk_xy, np.broadcast_to(z[:, None, None], (len(t), 5, 1))], axis=2) for z in ends]
    points = np.concatenate([crowns, *trunk], axis=1)
    m = len(ball)
    side = [[m + k, m + (k + 1) % 5, m + 5 + (k + 1) % 5] for k in range(5)]
    side += [[m + k, m + 5 + (k + 1) % 5, m + 5 + k] for k in range(5)]
    caps = [[m + 5, m + 6 + k, m + 7 + k] for k in range(3)] + [[m, m + 2 + k, m + 1 + k] for k in range(3)]
    each = np.concatenate([ball_faces, np.array(side + caps)])
    faces = (np.arange(len(t))[:, None, None] * points.shape[1] + each[None]).reshape(-1, 3)
    number = np.repeat(np.arange(len(t)), len(each))
    one = np.concatenate([np.full(len(ball_faces), Material.TREE), np.full(len(side + caps), Material.TRUNK)])
    table = np.zeros((len(t), PATCH_COLUMNS))
    table[:, 0:2], table[:, 2], table[:, 3] = t[:, 0:2], t[:, 3], t[:, 5]
    table[:, 4], table[:, 5], table[:, 11] = t[:, 2], t[:, 4], t[:, 6]
    material = np.tile(one, len(t)).astype(np.uint8)
    return Part(points.reshape(-1, 3), faces, material, number, table, np.arange(len(t)))


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


def ground_labels(
    b: Builder, box: Box, origin_m: tuple[float, float, float]
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Ground labels on cells counted from the CRS origin; row 0 is the south. Unpainted ground is asphalt."""
    grid = CellGrid.covering(box, LABEL_CELL_M)
    if grid.rows * grid.cols > MAX_LABEL_CELLS:
        raise ConfigError(
            f"a synthetic city of {box.width:.0f} m x {box.height:.0f} m needs more than {MAX_LABEL_CELLS} ground "
            "cells; a smaller box is accepted"
        )
    corner = np.array([grid.col0 * LABEL_CELL_M, grid.row0 * LABEL_CELL_M])
    labels = painted([p for p, _ in b.paint], [n for _, n in b.paint], corner, grid.shape, LABEL_CELL_M)
    return labels, (float(corner[0] - origin_m[0]), float(corner[1] - origin_m[1]))


def painted(
    polygons: list[NDArray[np.float64]],
    labels: list[int],
    corner: NDArray[np.float64],
    shape: tuple[int, int],
    cell_m: float,
) -> NDArray[np.uint8]:
    """Convex polygons on cells, row 0 = south, later ones over earlier ones; 0 where there is none."""
    out = np.zeros(shape, dtype=np.uint8)
    if polygons:
        start = np.concatenate([[0], np.cumsum([len(p) for p in polygons])])
        points = np.concatenate([p[:, :2] for p in polygons]) - corner
        _paint(points, start, np.array(labels, dtype=np.uint8), cell_m, out)
    return out
