"""Fewer triangles within a bound on the error, with walls that stay exactly vertical and seams that stay put.

What is simplified is the planar triangulation of columns (`Patch.tri`), not the 3D mesh: a column collapses into a
neighbouring column with all its layers at once, so every wall stays between two verticals. Quadrics choose
the order; what may happen is decided by exact tests:

- every new face has a positive area seen from above, in whole numbers: the surface stays single-valued, and no
  edge can come to be twice, since two straight edges between the same columns would coincide;
- layers map one to one, keep their order, and none disappears from the ring round a column: the union stays
  manifold by id, because walls are derived from those rings;
- every vertex removed so far stays within `max_error_m` of the faces that replaced it, measured across the face
  or sideways from its outline: a bound on the error, not a target count.

Columns of the border and pinched columns never move.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cityweave.geometry.surface import LAYERS, Patch, area2, strip_faces, wall_strips
from cityweave.mesh import STEPS_PER_M

MAX_FAN = 40
BLOCK_COLUMNS = 64
_SLIVER = 0.01  # least height of a new face over its longest edge
_SHORT_FIRST = 1e-4  # where nothing is at stake, short edges go first, or flat ground becomes slivers


@njit(cache=True)
def _plane(x, y, z, a, b, c):  # type: ignore[no-untyped-def]
    """Unit normal and offset of a triangle, and its area."""
    ux, uy, uz = x[b] - x[a], y[b] - y[a], z[b] - z[a]
    vx, vy, vz = x[c] - x[a], y[c] - y[a], z[c] - z[a]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    norm = np.sqrt(nx * nx + ny * ny + nz * nz)
    if norm < 1e-12:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    nx, ny, nz = nx / norm, ny / norm, nz / norm
    return nx, ny, nz, -(nx * x[a] + ny * y[a] + nz * z[a]), 0.5 * norm


@njit(cache=True)
def _quadrics(faces, x, y, z):  # type: ignore[no-untyped-def]
    q = np.zeros((x.shape[0], 10))
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        nx, ny, nz, d, area = _plane(x, y, z, a, b, c)
        for v in (a, b, c):
            q[v, 0] += area * nx * nx
            q[v, 1] += area * nx * ny
            q[v, 2] += area * nx * nz
            q[v, 3] += area * nx * d
            q[v, 4] += area * ny * ny
            q[v, 5] += area * ny * nz
            q[v, 6] += area * ny * d
            q[v, 7] += area * nz * nz
            q[v, 8] += area * nz * d
            q[v, 9] += area * d * d
    return q


@njit(cache=True)
def _cost(q, x, y, z):  # type: ignore[no-untyped-def]
    return (
        x * (q[0] * x + 2.0 * (q[1] * y + q[2] * z + q[3]))
        + y * (q[4] * y + 2.0 * (q[5] * z + q[6]))
        + z * (q[7] * z + 2.0 * q[8])
        + q[9]
    )


@njit(cache=True)
def _push(cost, half, n, c, h):  # type: ignore[no-untyped-def]
    """Binary heap over (cost, half-edge); the caller keeps room."""
    i = n
    while i > 0:
        p = (i - 1) // 2
        if cost[p] < c or (cost[p] == c and half[p] <= h):
            break
        cost[i] = cost[p]
        half[i] = half[p]
        i = p
    cost[i] = c
    half[i] = h


@njit(cache=True)
def _pop(cost, half, n):  # type: ignore[no-untyped-def]
    """Remove the least of n entries; it is read from slot 0 by the caller before."""
    n -= 1
    c = cost[n]
    h = half[n]
    i = 0
    while True:
        k = 2 * i + 1
        if k >= n:
            break
        if k + 1 < n and (cost[k + 1] < cost[k] or (cost[k + 1] == cost[k] and half[k + 1] < half[k])):
            k += 1
        if c < cost[k] or (c == cost[k] and h <= half[k]):
            break
        cost[i] = cost[k]
        half[i] = half[k]
        i = k
    cost[i] = c
    half[i] = h


@njit(cache=True)
def _next(h):  # type: ignore[no-untyped-def]
    return h - 2 if h % 3 == 2 else h + 1


@njit(cache=True)
def _prev(h):  # type: ignore[no-untyped-def]
    return h + 2 if h % 3 == 0 else h - 1


@njit(cache=True)
def _candidate(h, tri, twin, col, x, y, z, fixed, n_layers, q):  # type: ignore[no-untyped-def]
    """Cost of collapsing the origin's column of half-edge h into its end's, or -1 when the layers forbid it."""
    t = twin[h]
    if t < 0:
        return -1.0
    k1, m1 = tri[h], tri[_next(h)]
    m2, k2 = tri[t], tri[_next(t)]
    u = col[k1]
    if fixed[u] or (k1 == k2) != (m1 == m2) or n_layers[u] != (1 if k1 == k2 else 2):
        return -1.0
    if k1 != k2 and (z[k1] < z[k2]) != (z[m1] < z[m2]):
        return -1.0
    c = _cost(q[k1], x[m1], y[m1], z[m1])
    if k1 != k2:
        c += _cost(q[k2], x[m2], y[m2], z[m2])
    dx, dy = x[k1] - x[m1], y[k1] - y[m1]
    return max(c, 0.0) + _SHORT_FIRST * (dx * dx + dy * dy)


@njit(cache=True)
def _fan(h, tri, twin, col, fan):  # type: ignore[no-untyped-def]
    """Half-edges out of the origin of h, counter-clockwise from h; their number, or 0 at a border or too many."""
    n = 0
    g = h
    while True:
        if n == MAX_FAN:
            return 0
        fan[n] = g
        n += 1
        g = twin[_prev(g)]
        if g < 0:
            return 0
        if g == h:
            return n


@njit(cache=True)
def _layers_survive(fan, d, tri, twin):  # type: ignore[no-untyped-def]
    """Rings of the four columns round the edge keep every layer and its neighbours; see the module."""
    h = fan[0]
    last = fan[d - 1]
    k1, m1, phi = tri[h], tri[_next(h)], tri[_prev(h)]
    k2, m2, chi = tri[last], tri[_prev(last)], tri[_next(last)]
    changes = 0
    for i in range(1, d):
        if tri[fan[i]] != tri[fan[i - 1]]:
            changes += 1
            if tri[fan[i]] != k2:
                return False
    if changes != (0 if k1 == k2 else 1):
        return False
    same_x = tri[_next(fan[1])] == phi
    same_u = tri[fan[1]] == k1
    t = twin[_next(h)]  # from x to v, seen from beyond
    if t < 0:
        if not (same_x and same_u):
            return False
    elif not (same_x or tri[t] == phi) or not (same_u or tri[_next(t)] == m1):
        return False
    same_y = tri[_prev(fan[d - 2])] == chi
    same_u = tri[fan[d - 2]] == k2
    t = twin[_next(last)]  # from v to y, seen from beyond
    if t < 0:
        return same_y and same_u
    return (same_y or tri[_next(t)] == chi) and (same_u or tri[t] == m2)


@njit(cache=True)
def _outline(new, i, x, y, z, a, b, c):  # type: ignore[no-untyped-def]
    """Row i of `new`: three inward edge functions, the height as gx, gy, g0, and the cosine of the slope."""
    ids = (a, b, c)
    for e in range(3):
        p, q = ids[e], ids[(e + 1) % 3]
        dx, dy = x[q] - x[p], y[q] - y[p]
        n = np.sqrt(dx * dx + dy * dy)
        new[i, 3 * e] = -dy / n
        new[i, 3 * e + 1] = dx / n
        new[i, 3 * e + 2] = (dy * x[p] - dx * y[p]) / n
    nx, ny, nz, d, _ = _plane(x, y, z, a, b, c)
    new[i, 9] = -nx / nz
    new[i, 10] = -ny / nz
    new[i, 11] = -d / nz
    new[i, 12] = nz


@njit(cache=True)
def _best_face(new, first, end, px, py, pz, bound):  # type: ignore[no-untyped-def]
    """The new face nearest to a removed vertex, or -1 when it is further than the bound from all."""
    best = -1
    best_error = bound
    for i in range(first, end):
        e = abs(new[i, 9] * px + new[i, 10] * py + new[i, 11] - pz) * new[i, 12]
        if e > best_error:
            continue
        for k in range(3):
            e = max(e, -(new[i, 3 * k] * px + new[i, 3 * k + 1] * py + new[i, 3 * k + 2]))
        if e < best_error or (best < 0 and e <= best_error):
            best = i
            best_error = e
    return best


@njit(cache=True)
def _shapes_fit(fan, d, tri, col, ixy, x, y):  # type: ignore[no-untyped-def]
    v = tri[_next(fan[0])]
    for i in range(1, d - 1):
        p, q = tri[_next(fan[i])], tri[_prev(fan[i])]
        a2 = area2(ixy, col[v], col[p], col[q])
        if a2 <= 0:
            return False
        longest = max(
            (x[v] - x[p]) ** 2 + (y[v] - y[p]) ** 2,
            (x[v] - x[q]) ** 2 + (y[v] - y[q]) ** 2,
            (x[q] - x[p]) ** 2 + (y[q] - y[p]) ** 2,
        )
        if a2 < _SLIVER * longest * (STEPS_PER_M * STEPS_PER_M):
            return False
    return True


@njit(cache=True)
def _points_fit(fan, d, tri, head, after, x, y, z, bound, new, points, face_of):  # type: ignore[no-untyped-def]
    """Give every removed vertex of the fan, and the ones about to go, to a new face. Number of points, or -1."""
    h = fan[0]
    k1, k2 = tri[h], tri[fan[d - 1]]
    m1, m2 = tri[_next(h)], tri[_prev(fan[d - 1])]
    for i in range(1, d - 1):
        to = m1 if tri[fan[i]] == k1 else m2
        _outline(new, i, x, y, z, to, tri[_next(fan[i])], tri[_prev(fan[i])])
    n = 0
    for k in (k1, k2):
        if n == 1 and k2 == k1:
            break
        points[n] = k
        face_of[n] = _best_face(new, 1, d - 1, x[k], y[k], z[k], bound)
        if face_of[n] < 0:
            return -1
        n += 1
    for i in range(d):
        p = head[fan[i] // 3]
        while p >= 0:
            if n == points.shape[0]:
                return -1
            points[n] = p
            face_of[n] = _best_face(new, 1, d - 1, x[p], y[p], z[p], bound)
            if face_of[n] < 0:
                return -1
            n += 1
            p = after[p]
    return n


@njit(cache=True)
def _pair(twin, a, b):  # type: ignore[no-untyped-def]
    if a >= 0:
        twin[a] = b
    if b >= 0:
        twin[b] = a


@njit(cache=True)
def _collapse(fan, d, tri, twin, alive, head, after, q, n_points, points, face_of):  # type: ignore[no-untyped-def]
    h = fan[0]
    last = fan[d - 1]
    k1, k2 = tri[h], tri[last]
    m1, m2 = tri[_next(h)], tri[_prev(last)]
    for i in range(d):
        head[fan[i] // 3] = -1
    for i in range(1, d - 1):
        tri[fan[i]] = m1 if tri[fan[i]] == k1 else m2
    # x-v seen from beyond meets u-x of the next face, which is v-x now; y likewise.
    _pair(twin, twin[_next(h)], fan[1])
    _pair(twin, twin[_next(last)], _prev(fan[d - 2]))
    alive[h // 3] = False
    alive[last // 3] = False
    for i in range(n_points):
        f = fan[face_of[i]] // 3
        after[points[i]] = head[f]
        head[f] = points[i]
    q[m1] += q[k1]
    if k2 != k1:
        q[m2] += q[k2]


@njit(cache=True)
def _run(  # type: ignore[no-untyped-def]
    tri, twin, alive, head, after, col, ixy, x, y, z, fixed, n_layers, q, bound, block, order, starts
):
    """Collapse until no candidate within the bound is left, block after block. Returns the number of collapses."""
    largest = 0
    for b in range(starts.shape[0] - 1):
        largest = max(largest, starts[b + 1] - starts[b])
    room = largest * 12
    cost = np.empty(room)
    half = np.empty(room, np.int64)
    price = np.full(tri.shape[0], -1.0)  # what a half-edge costs now; an entry with another cost is stale
    fan = np.empty(MAX_FAN, np.int64)
    new = np.empty((MAX_FAN, 13))
    points = np.empty(20000, np.int64)
    face_of = np.empty(20000, np.int64)
    done = 0
    for b in range(starts.shape[0] - 1):
        n = 0
        for f in order[starts[b] : starts[b + 1]]:
            if alive[f]:
                for h in range(3 * f, 3 * f + 3):
                    price[h] = _candidate(h, tri, twin, col, x, y, z, fixed, n_layers, q)
                    if price[h] >= 0.0:
                        _push(cost, half, n, price[h], h)
                        n += 1
        while n > 0:
            c, h = cost[0], half[0]
            _pop(cost, half, n)
            n -= 1
            if not alive[h // 3] or price[h] != c:
                continue
            d = _fan(h, tri, twin, col, fan)
            if d < 3 or not _shapes_fit(fan, d, tri, col, ixy, x, y) or not _layers_survive(fan, d, tri, twin):
                continue
            n_points = _points_fit(fan, d, tri, head, after, x, y, z, bound, new, points, face_of)
            if n_points < 0:
                continue
            _collapse(fan, d, tri, twin, alive, head, after, q, n_points, points, face_of)
            done += 1
            # Both directions of every edge at v. The border breaks v's ring, so walk it from both sides of the fan.
            closed = False
            for way in range(2):
                g = fan[1] if way == 0 else fan[d - 2]
                start = g
                if closed:
                    break
                while n + 4 < room:
                    for e in (g, twin[g], _prev(g), twin[_prev(g)]):
                        if e >= 0:
                            p = _candidate(e, tri, twin, col, x, y, z, fixed, n_layers, q)
                            if p != price[e]:
                                price[e] = p
                                if p >= 0.0 and block[e // 3] == b:
                                    _push(cost, half, n, p, e)
                                    n += 1
                    g = twin[_prev(g)] if way == 0 else (_next(twin[g]) if twin[g] >= 0 else -1)
                    closed = g == start
                    if g < 0 or closed:
                        break
    return done


def _blocks(patch: Patch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every face its block of columns, the faces in the order of the blocks, and where each block begins there.

    One queue for a whole tile jumps about in memory: on 4 million points it takes three times as long.
    """
    side = patch.n + 1
    column = patch.tri[:, 0] // LAYERS
    across = -(-side // BLOCK_COLUMNS)
    block = column // side // BLOCK_COLUMNS * across + column % side // BLOCK_COLUMNS
    order = np.argsort(block, kind="stable")
    return block, order, np.searchsorted(block[order], np.arange(across * across + 1))


def _twins(tri: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Opposite half-edge of each, -1 on the border; half-edge 3f+k runs from corner k of face f to the next."""
    a = col[tri.ravel()].astype(np.int64)
    b = col[tri[:, [1, 2, 0]].ravel()].astype(np.int64)
    key = np.minimum(a, b) * (int(col.max()) + 1) + np.maximum(a, b)
    order = np.argsort(key, kind="stable")
    pair = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    twin = np.full(key.size, -1, np.int64)
    twin[order[pair]], twin[order[pair + 1]] = order[pair + 1], order[pair]
    return twin


def simplify(patch: Patch, bounds_m: tuple[float, ...]) -> list[np.ndarray]:
    """Faces (codes, like `Patch.tri`) of each level; every bound counts from the full surface.

    A bound of 0 keeps the full surface. Bounds must not fall from one level to the next.
    """
    columns = patch.xy.shape[0]
    walls, _ = strip_faces(wall_strips(patch.tri, columns), patch.z, patch.pinched)
    codes, flat = np.unique(np.concatenate([patch.tri, walls]), return_inverse=True)
    faces = flat.reshape(-1, 3)
    tri = np.ascontiguousarray(faces[: len(patch.tri)].ravel()).astype(np.int64)
    col = (codes // LAYERS).astype(np.int64)
    ixy = patch.xy.astype(np.int64)
    x, y = (np.ascontiguousarray(ixy[col, k] / STEPS_PER_M) for k in range(2))
    z = patch.z[codes] / STEPS_PER_M
    twin = _twins(faces[: len(patch.tri)], col)
    alive = np.ones(len(patch.tri), bool)
    head = np.full(len(patch.tri), -1, np.int64)
    after = np.full(len(codes), -1, np.int64)
    n_layers = np.bincount(col, minlength=columns)
    fixed = patch.locked() | patch.pinched
    q = _quadrics(faces, x, y, z)
    blocks = _blocks(patch)
    out = []
    for bound in bounds_m:
        if bound > 0:
            for _ in range(3):  # a refusal may fall when its surroundings have changed
                done = _run(tri, twin, alive, head, after, col, ixy, x, y, z, fixed, n_layers, q, bound, *blocks)
                if done < 0.01 * alive.sum():
                    break
        out.append(codes[tri.reshape(-1, 3)[alive]].astype(np.int32))
    return out
