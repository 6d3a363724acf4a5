"""The surface of one tile: 2.5D dual contouring of the field, with walls that are exactly vertical.

The zero set is a height function with plateaus at walls, so no voxel grid is needed. Lattice points carry heights;
a lattice edge across a jump is a *wall edge*. Every dual cell is one vertical *column*: its corners fall into layers
(connected over edges that are no walls), each layer is a vertex, all at the same (x, y). Every point becomes a quad of
the four columns round it, every wall edge a vertical polygon between the two columns beside it.

The non-vertical faces (`Patch.tri`) are a planar triangulation of the columns with a layer at every corner; walls
follow from it: an edge whose two faces disagree about the layers carries a wall (`wall_strips`, `strip_faces`). That
holds before and after simplification, and it is why the mesh is manifold by id whatever the heights are.

A point's quad belongs to the tile whose half-open core holds the point, a wall to the owner of its lower-index point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from cityweave.geometry import cells
from cityweave.geometry.cells import BASE, LAYERS
from cityweave.geometry.field import FieldShape, Lattice, root_grid
from cityweave.mesh import RIM, STEPS_PER_M, SURFACE

SMOOTHING_ROUNDS = 3
SHARPEN_PASSES = 3
POINT_RING = SMOOTHING_ROUNDS + 4  # foreign points that a border cell's place can depend on
LATTICE_RING = POINT_RING + SHARPEN_PASSES + 2  # nodes beyond the core that `extract` wants, at the widest
_ID_BIAS = 1 << 27


@dataclass(frozen=True)
class SurfaceSettings:
    cell_m: float
    wall_jump_m: float = 1.5  # a smaller step is a slope
    wall_slope_deg: float = 65.0  # a lattice edge steeper than this is a wall whatever goes on beside it

    @property
    def steep_m(self) -> float:
        return math.tan(math.radians(self.wall_slope_deg)) * self.cell_m


@dataclass(frozen=True)
class Patch:
    """Columns and non-vertical faces of one tile.

    A vertex is a code: column * LAYERS + layer. Column (r, c) of the (n+1) x (n+1) columns is dual cell
    (i0 + c, j0 + r) of the global lattice.
    """

    n: int  # points along a side of the core
    i0: int
    j0: int
    xy: np.ndarray  # (columns, 2) int32, 1/1024 m from the tile's lower-left corner
    z: np.ndarray  # (columns * LAYERS) int32, 1/1024 m from z0; ABSENT where there is no such layer
    pinched: np.ndarray  # (columns) bool
    tri: np.ndarray  # (m, 3) int32 codes, counter-clockwise from above
    strips: np.ndarray  # (k, 4) int32 codes of the border's walls and rims, see `strip_faces`
    strip_part: np.ndarray  # (k) uint8
    corners: np.ndarray  # (4) codes of the base vertices at the SW, SE, NE, NW corner
    absent_sides: np.ndarray  # (4) bool: no neighbour to the south, east, north, west

    def ids(self) -> np.ndarray:
        """Global id of every code."""
        side = self.n + 1
        column = np.arange(side * side, dtype=np.int64)
        cell = (self.j0 + column // side + _ID_BIAS << 31) | (self.i0 + column % side + _ID_BIAS << 3)
        return (cell[:, None] | np.arange(LAYERS)).ravel()

    def locked(self) -> np.ndarray:
        """Columns on the tile's border, which stay as they are at every level of detail."""
        side = self.n + 1
        mask = np.zeros((side, side), bool)
        mask[[0, -1], :] = True
        mask[:, [0, -1]] = True
        return mask.ravel()


def point_heights(
    lattice: Lattice, shape: FieldShape, settings: SurfaceSettings, i0: int, j0: int, live: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the points (i0.., j0..) of `live`, quantised to 1/1024 m, and the sharpened node heights."""
    per_pitch = round(shape.pitch_m / settings.cell_m)
    h = cells.sharpen(lattice.h.astype(np.float64), settings.steep_m * per_pitch, SHARPEN_PASSES)
    step = 1.0 / per_pitch
    first_x, first_y = _node_units(i0, lattice.i0, step), _node_units(j0, lattice.j0, step)
    rows, cols = live.shape
    z = root_grid(h, first_x, first_y, step, cols, rows, shape.beta, shape.centred, shape.softness_m, live)
    if np.isnan(z[live]).any():
        raise ValueError("a point of the surface lies beyond the fitted nodes")
    return np.rint(z * STEPS_PER_M) / STEPS_PER_M, h


def _node_units(point: int, node: int, step: float) -> float:
    return (point + 0.5) * step - 0.5 - node


def extract(
    lattice: Lattice, shape: FieldShape, settings: SurfaceSettings, i0: int, j0: int, n: int, present: np.ndarray,
    origin_m: tuple[float, float], z0_m: float, base_m: float,
) -> Patch:  # fmt: skip
    """The patch of the tile whose core holds the n x n points from (i0, j0).

    `present[1 + dj, 1 + di]` says which of the 3 x 3 tiles exist. The lattice must reach LATTICE_RING nodes beyond the
    core; where there is no tile they may be NaN from the fourth node on.
    """
    ring = POINT_RING
    live = _live_points(present, n, ring)
    z, h = point_heights(lattice, shape, settings, i0 - ring, j0 - ring, live)
    z -= z0_m  # whole metres: exact
    wx, wy = cells.find_walls(z, live, settings.wall_jump_m, settings.steep_m)
    step = settings.cell_m / shape.pitch_m
    cx, cy = cells.crossings(
        h - z0_m, _node_units(i0 - ring, lattice.i0, step), _node_units(j0 - ring, lattice.j0, step), step, z, wx, wy,
        shape.beta, shape.centred, shape.softness_m,
    )  # fmt: skip
    off = cells.place(wx, wy, cx, cy, live, SMOOTHING_ROUNDS)
    base = np.int32(round((base_m - z0_m) * STEPS_PER_M))
    lab, zl, pinched = cells.layers(z, live, wx, wy, off, settings.steep_m, base)

    own = slice(ring, ring + n + 1)
    lab, zl, pinched, off = (a[own, own] for a in (lab, zl, pinched, off))
    index = np.arange(n + 1)
    scale = settings.cell_m * STEPS_PER_M
    x = np.rint((off[..., 0] + (index + i0)[None, :]) * scale) - round(origin_m[0]) * STEPS_PER_M
    y = np.rint((off[..., 1] + (index + j0)[:, None]) * scale) - round(origin_m[1]) * STEPS_PER_M
    xy = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.int32)
    zl = np.ascontiguousarray(zl.reshape(-1))
    lab = np.ascontiguousarray(lab)
    sides = present[[0, 1, 2, 1], [1, 2, 1, 0]]
    strips, strip_part = _border_strips(lab, sides, _checkers(present))
    return Patch(
        n, i0, j0, xy, zl, pinched.ravel(), _quads(lab, xy.astype(np.int64), zl), strips, strip_part,
        _corner_codes(n, _checkers(present)), ~sides,
    )  # fmt: skip


def _live_points(present: np.ndarray, n: int, ring: int) -> np.ndarray:
    live = np.zeros((n + 2 * ring, n + 2 * ring), bool)
    spans = (slice(0, ring), slice(ring, ring + n), slice(ring + n, None))
    for dj in range(3):
        for di in range(3):
            live[spans[dj], spans[di]] = present[dj, di]
    return live


def _checkers(present: np.ndarray) -> np.ndarray:
    """SW, SE, NE, NW corner of the tile: do only this tile and the one across meet there?"""
    out = []
    for di, dj in ((0, 0), (2, 0), (2, 2), (0, 2)):
        out.append(present[dj, di] and not present[dj, 1] and not present[1, di])
    return np.array(out)


def _corner_codes(n: int, checkers: np.ndarray) -> np.ndarray:
    """Base vertices at the tile's corners. The tile is corner 2, 3, 0, 1 of its SW, SE, NE, NW cell."""
    side = n + 1
    columns = (0, n, side * side - 1, side * n)
    lower = [int(checkers[k] and (2, 3, 0, 1)[k] >= 2) for k in range(4)]
    return np.array([columns[k] * LAYERS + BASE + lower[k] for k in range(4)], np.int32)


@njit(cache=True)
def _quads(lab, xy, z):  # type: ignore[no-untyped-def]
    """Two triangles a point. A diagonal is valid when both its triangles turn left; the flatter one wins, then the
    one that its place on the global checkerboard suggests."""
    n = lab.shape[0] - 1
    tri = np.empty((2 * n * n, 3), np.int32)
    side = n + 1
    m = 0
    for r in range(n):
        for c in range(n):
            col = (r * side + c, r * side + c + 1, (r + 1) * side + c + 1, (r + 1) * side + c)
            q = (
                col[0] * LAYERS + lab[r, c, 2],
                col[1] * LAYERS + lab[r, c + 1, 3],
                col[2] * LAYERS + lab[r + 1, c + 1, 0],
                col[3] * LAYERS + lab[r + 1, c, 1],
            )
            even = area2(xy, col[0], col[1], col[2]) > 0 and area2(xy, col[0], col[2], col[3]) > 0
            odd = area2(xy, col[0], col[1], col[3]) > 0 and area2(xy, col[1], col[2], col[3]) > 0
            rise_even = abs(z[q[0]] - z[q[2]])
            rise_odd = abs(z[q[1]] - z[q[3]])
            if even and odd:
                even = rise_even < rise_odd or (rise_even == rise_odd and (r + c) % 2 == 0)
            if even:
                tri[m, 0], tri[m, 1], tri[m, 2] = q[0], q[1], q[2]
                tri[m + 1, 0], tri[m + 1, 1], tri[m + 1, 2] = q[0], q[2], q[3]
            else:
                tri[m, 0], tri[m, 1], tri[m, 2] = q[0], q[1], q[3]
                tri[m + 1, 0], tri[m + 1, 1], tri[m + 1, 2] = q[1], q[2], q[3]
            m += 2
    return tri


@njit(cache=True)
def area2(xy, a, b, c):  # type: ignore[no-untyped-def]
    """Twice the signed area of three columns seen from above; exact in int64."""
    return (xy[b, 0] - xy[a, 0]) * (xy[c, 1] - xy[a, 1]) - (xy[b, 1] - xy[a, 1]) * (xy[c, 0] - xy[a, 0])


def _border_strips(lab: np.ndarray, present: np.ndarray, checkers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strips (own u, own v, outer u, outer v) along the border, u before v round the tile counter-clockwise.

    Towards a neighbour only the east and the north side are ours (there our point has the lower index); towards
    nothing every side is, and the strip is a rim down to the base.
    """
    n = lab.shape[0] - 1
    side = n + 1
    k = np.arange(n)
    # side: cells u, v (row, column), own corner in u and v, outer corner in u and v
    layout = (
        ((0, k), (0, k + 1), 2, 3, 1, 0),
        ((k, n), (k + 1, n), 3, 0, 2, 1),
        ((n, k + 1), (n, k), 0, 1, 3, 2),
        ((k + 1, 0), (k, 0), 1, 2, 0, 3),
    )
    strips, parts = [], []
    for number, (u, v, own_u, own_v, out_u, out_v) in enumerate(layout):
        if present[number] and number in (0, 3):
            continue
        column = [np.broadcast_to(np.asarray(p[0]) * side + np.asarray(p[1]), n) for p in (u, v)]
        own = [column[0] * LAYERS + lab[u][..., own_u], column[1] * LAYERS + lab[v][..., own_v]]
        if present[number]:
            outer = [column[0] * LAYERS + lab[u][..., out_u], column[1] * LAYERS + lab[v][..., out_v]]
        else:
            outer = [column[0] * LAYERS + BASE, column[1] * LAYERS + BASE]
            for code in _corner_codes(n, checkers):
                outer = [np.where(end // LAYERS == code // LAYERS, code, end) for end in outer]
        strips.append(np.stack(own + outer, axis=1))
        parts.append(np.full(n, SURFACE if present[number] else RIM, np.uint8))
    if not strips:
        return np.empty((0, 4), np.int32), np.empty(0, np.uint8)
    return np.concatenate(strips).astype(np.int32), np.concatenate(parts)


def wall_strips(tri: np.ndarray, columns: int) -> np.ndarray:
    """Strips of the edges inside the patch whose two faces disagree about the layers."""
    a = tri[:, [0, 1, 2]].ravel().astype(np.int64)
    b = tri[:, [1, 2, 0]].ravel().astype(np.int64)
    low, high = np.minimum(a // LAYERS, b // LAYERS), np.maximum(a // LAYERS, b // LAYERS)
    key = low * columns + high
    order = np.argsort(key, kind="stable")
    pair = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    e, o = order[pair], order[pair + 1]
    differ = (a[e] != b[o]) | (b[e] != a[o])
    e, o = e[differ], o[differ]
    return np.stack([a[e], b[e], b[o], a[o]], axis=1).astype(np.int32)


@njit(cache=True)
def _chain(start, end, z, pinched, out):  # type: ignore[no-untyped-def]
    """Codes from `start` to `end` of one column with every layer between them, so that all polygons that pass a
    piece of this vertical line have the same vertices on it."""
    out[0] = start
    if start == end:
        return 1
    n = 1
    col = start // LAYERS
    if not pinched[col]:
        a = _order(start, z)
        b = _order(end, z)
        for _ in range(4):
            best = -1
            best_key = 0
            here = _order(out[n - 1], z)
            for k in range(BASE):
                code = col * LAYERS + k
                if z[code] == -(2**31):
                    continue
                key = _order(code, z)
                if b > a and here < key < b and (best < 0 or key < best_key):
                    best = code
                    best_key = key
                if b < a and b < key < here and (best < 0 or key > best_key):
                    best = code
                    best_key = key
            if best < 0:
                break
            out[n] = best
            n += 1
    out[n] = end
    return n + 1


@njit(cache=True)
def _order(code, z):  # type: ignore[no-untyped-def]
    """Layers of a column from low to high, the base first, equal heights by layer."""
    k = code % LAYERS
    return -(1 << 60) + k if k >= BASE else np.int64(z[code]) * 8 + k


@njit(cache=True)
def strip_faces(strips, z, pinched):  # type: ignore[no-untyped-def]
    """Triangles of vertical strips and the strip each comes from.

    A strip (lu, lv, ru, rv) closes the gap between a face on the left that has the directed edge lu->lv and one on
    the right with rv->ru; either may be the higher one.
    """
    out = np.empty((strips.shape[0] * 8 + 8, 3), np.int32)
    source = np.empty(out.shape[0], np.int32)
    cu = np.empty(8, np.int64)
    cv = np.empty(8, np.int64)
    m = 0
    for s in range(strips.shape[0]):
        nu = _chain(np.int64(strips[s, 0]), np.int64(strips[s, 2]), z, pinched, cu)
        nv = _chain(np.int64(strips[s, 1]), np.int64(strips[s, 3]), z, pinched, cv)
        i = 0
        j = 0
        while i < nu - 1 or j < nv - 1:
            if i == nu - 1:
                step_u = False
            elif j == nv - 1:
                step_u = True
            else:  # the shorter diagonal
                up = abs(np.int64(z[cu[i + 1]]) - z[cv[j]])
                vp = abs(np.int64(z[cv[j + 1]]) - z[cu[i]])
                step_u = up < vp or (up == vp and cu[i] < cv[j])
            if m >= out.shape[0]:
                raise RuntimeError("more wall faces than a wall can have")
            if step_u:
                out[m, 0], out[m, 1], out[m, 2] = cv[j], cu[i], cu[i + 1]
                i += 1
            else:
                out[m, 0], out[m, 1], out[m, 2] = cv[j], cu[i], cv[j + 1]
                j += 1
            source[m] = s
            m += 1
    return out[:m], source[:m]
