"""Kernels of the surface extraction: wall edges, dual cells, their layers and places.

Points P(i, j) stand at ((i+1/2)c, (j+1/2)c); the dual cell (I, J) at (Ic, Jc) has the corners
0 = P(I-1, J-1), 1 = P(I, J-1), 2 = P(I, J), 3 = P(I-1, J), counter-clockwise. In a window, cell [r, c] has the
corners [r-1, c-1], [r-1, c], [r, c], [r, c-1]; row and column 0 of cell arrays are unused.

Everything is a pure function of what lies around: no window-relative number enters the arithmetic except as
an exact dyadic fraction, so two tiles that evaluate the same cell get the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cityweave.geometry.field import neighbourhood, value

LAYERS = 6  # a column's codes: layers 0-3 of its corners, 4 and 5 of the base under it
BASE = 4
HALF_WAY_SHARE = 0.12  # of a jump: closer to one end than this belongs to it
LEVEL_M = 1.0  # nodes that differ by less may be one roof
SIDE_TOLERANCE_M = 0.15  # how far an eave may stand out from the nodes beside it
MARGIN = 0.45  # a vertex stays this far (in cells) from its cell's centre at most: strictly inside


@njit(cache=True)
def sharpen(h, limit, passes):  # type: ignore[no-untyped-def]
    """Make walls of what the height model smeared and the blend averaged. `limit`: steeper than any roof, per node.

    Where more than 2 `limit` lie within a node's neighbours there is a jump. A node that is neither at its top nor at
    its foot, by more than a roof's slope accounts for, is half-way up a wall and snaps to the nearer end, or it would
    become a terrace; unless it is one, or a roof: three neighbours about as high. Beside a jump a node keeps to the
    heights of the nodes on its own side, or eaves fray.
    """
    rows, cols = h.shape
    for _ in range(passes):
        out = h.copy()
        for j in range(rows):
            for i in range(cols):
                v = h[j, i]
                if math.isnan(v):
                    continue
                lo = v
                hi = v
                nearest = np.inf
                level = 0
                for b in range(max(j - 1, 0), min(j + 2, rows)):
                    for a in range(max(i - 1, 0), min(i + 2, cols)):
                        if not math.isnan(h[b, a]) and (a != i or b != j):
                            lo = min(lo, h[b, a])
                            hi = max(hi, h[b, a])
                            nearest = min(nearest, abs(h[b, a] - v))
                            level += abs(h[b, a] - v) < LEVEL_M
                if hi - lo <= 1.5 * limit:
                    continue
                part = HALF_WAY_SHARE * (hi - lo)
                if nearest < max(0.5 * part, 0.35 * limit):  # it has company, as on a roof
                    part = max(part, 0.7 * limit)
                if level < 3 and hi - lo > 2.0 * limit and v - lo > part and hi - v > part:
                    out[j, i] = lo if v - lo <= hi - v else hi
                else:
                    out[j, i] = _keep_to_side(h, j, i, 0.5 * (lo + hi))
        h = out
    return h


@njit(cache=True)
def _keep_to_side(h, j, i, middle):  # type: ignore[no-untyped-def]
    """h[j, i] clamped to its neighbours on the same side of `middle`; itself when it is alone there."""
    rows, cols = h.shape
    v = h[j, i]
    lo = np.inf
    hi = -np.inf
    for b in range(max(j - 1, 0), min(j + 2, rows)):
        for a in range(max(i - 1, 0), min(i + 2, cols)):
            u = h[b, a]
            if not math.isnan(u) and (a != i or b != j) and (u > middle) == (v > middle):
                lo = min(lo, u)
                hi = max(hi, u)
    if lo > hi:
        return v
    return min(max(v, lo - SIDE_TOLERANCE_M), hi + SIDE_TOLERANCE_M)


@njit(cache=True)
def _is_wall(z0, z1, z2, z3, jump, steep):  # type: ignore[no-untyped-def]
    """Is z1-z2 a wall, given the points beyond it on both sides (NaN = none)? A step counts when it is
    steeper than any roof, or high and much steeper than what goes on up or down beside it."""
    d = z2 - z1
    if not abs(d) > jump:  # NaN: no edge
        return False
    if abs(d) > steep:
        return True
    beside = 0.0
    for e in (z1 - z0, z3 - z2):
        if not math.isnan(e) and e * d > 0.0:
            beside = max(beside, abs(e))
    return abs(d) >= 2.5 * beside


@njit(cache=True)
def find_walls(z, live, jump, steep):  # type: ignore[no-untyped-def]
    """wx[r, c]: wall between [r, c] and [r, c+1]; wy[r, c]: between [r, c] and [r+1, c]. Dead points have none."""
    rows, cols = z.shape
    wx = np.zeros((rows, cols), np.bool_)
    wy = np.zeros((rows, cols), np.bool_)
    for r in range(1, rows - 2):
        for c in range(1, cols - 2):
            if not live[r, c]:
                continue
            if live[r, c + 1]:
                wx[r, c] = _is_wall(z[r, c - 1], z[r, c], z[r, c + 1], z[r, c + 2], jump, steep)
            if live[r + 1, c]:
                wy[r, c] = _is_wall(z[r - 1, c], z[r, c], z[r + 1, c], z[r + 2, c], jump, steep)
    return wx, wy


@njit(cache=True)
def _crossing(h, fx, fy, dx, dy, z_mid, low_first, beta, centred, softness, w, hv):  # type: ignore[no-untyped-def]
    """Where along the edge from (fx, fy) to (fx+dx, fy+dy), in -1/2..1/2 about its middle, the field changes
    sign at mid height. Eight bisections: to 1/512 of a cell; all numbers stay dyadic."""
    a = 0.0
    b = 1.0
    for _ in range(8):
        t = 0.5 * (a + b)
        neighbourhood(h, fx + t * dx, fy + t * dy, beta, centred, w, hv)
        above = value(w, hv, z_mid, softness) > 0.0  # the surface is below z_mid here
        if above == low_first:
            a = t
        else:
            b = t
    return 0.5 * (a + b) - 0.5


@njit(cache=True)
def crossings(h, first_x, first_y, step, z, wx, wy, beta, centred, softness):  # type: ignore[no-untyped-def]
    """Places of the walls on their edges, -1/2..1/2 about the middle; `h` is the sharpened lattice."""
    rows, cols = z.shape
    cx = np.zeros((rows, cols))
    cy = np.zeros((rows, cols))
    w = np.empty(9)
    hv = np.empty(9)
    for r in range(rows - 1):
        for c in range(cols - 1):
            fx = first_x + c * step
            fy = first_y + r * step
            if wx[r, c]:
                mid = 0.5 * (z[r, c] + z[r, c + 1])
                cx[r, c] = _crossing(h, fx, fy, step, 0.0, mid, z[r, c] < z[r, c + 1], beta, centred, softness, w, hv)
            if wy[r, c]:
                mid = 0.5 * (z[r, c] + z[r + 1, c])
                cy[r, c] = _crossing(h, fx, fy, 0.0, step, mid, z[r, c] < z[r + 1, c], beta, centred, softness, w, hv)
    return cx, cy


@njit(cache=True)
def _set_corners(wx, wy, cx, cy, off, links):  # type: ignore[no-untyped-def]
    """Put the corner of a building where its two walls meet, and keep it out of the smoothing.

    The wall turns in a corner's cell and runs straight through both cells beside it. A step of an oblique wall
    turns back at once.
    """
    rows, cols = wx.shape
    for r in range(2, rows - 1):
        for c in range(2, cols - 1):
            across = wx[r - 1, c - 1] != wx[r, c - 1] and wy[r - 1, c - 1] != wy[r - 1, c]
            if links[r, c] != 2 or not across:
                continue
            down = wx[r - 1, c - 1]
            left = wy[r - 1, c - 1]
            q = r - 1 if down else r + 1
            p = c - 1 if left else c + 1
            straight = links[q, c] == 2 and wx[q - 1, c - 1] and wx[q, c - 1]
            straight = straight and links[r, p] == 2 and wy[r - 1, p - 1] and wy[r - 1, p]
            if straight:
                x = cx[r - 1, c - 1] if down else cx[r, c - 1]
                y = cy[r - 1, c - 1] if left else cy[r - 1, c]
                off[r, c, 0] = min(max(x, -MARGIN), MARGIN)
                off[r, c, 1] = min(max(y, -MARGIN), MARGIN)
                links[r, c] = 8


@njit(cache=True)
def place(wx, wy, cx, cy, live, rounds):  # type: ignore[no-untyped-def]
    """Offset of each cell's vertex from its centre, in cells.

    First the mean of its wall crossings; then `rounds` of smoothing along the wall, each vertex towards the middle of
    its two neighbours, kept inside the cell: what the lattice turned into stairs becomes a straight line again.
    Junctions, wall ends and the rim stay.
    """
    rows, cols = wx.shape
    off = np.zeros((rows, cols, 2))
    links = np.zeros((rows, cols), np.int8)
    for r in range(1, rows):
        for c in range(1, cols):
            n = 0
            x = 0.0
            y = 0.0
            if wx[r - 1, c - 1]:
                x += cx[r - 1, c - 1]
                y -= 0.5
                n += 1
            if wx[r, c - 1]:
                x += cx[r, c - 1]
                y += 0.5
                n += 1
            if wy[r - 1, c - 1]:
                y += cy[r - 1, c - 1]
                x -= 0.5
                n += 1
            if wy[r - 1, c]:
                y += cy[r - 1, c]
                x += 0.5
                n += 1
            if n == 1:
                if wx[r - 1, c - 1] or wx[r, c - 1]:
                    y = 0.0
                else:
                    x = 0.0
            if n > 0:
                off[r, c, 0] = min(max(x / n, -MARGIN), MARGIN)
                off[r, c, 1] = min(max(y / n, -MARGIN), MARGIN)
            whole = live[r - 1, c - 1] and live[r - 1, c] and live[r, c] and live[r, c - 1]
            links[r, c] = n if whole else 9
    _set_corners(wx, wy, cx, cy, off, links)
    start = off.copy()
    for _ in range(rounds):
        old = off.copy()
        for r in range(1, rows - 1):
            for c in range(1, cols - 1):
                if links[r, c] != 2:
                    continue
                x = 0.0
                y = 0.0
                if wx[r - 1, c - 1]:
                    x += old[r - 1, c, 0]
                    y += old[r - 1, c, 1] - 1.0
                if wx[r, c - 1]:
                    x += old[r + 1, c, 0]
                    y += old[r + 1, c, 1] + 1.0
                if wy[r - 1, c - 1]:
                    x += old[r, c - 1, 0] - 1.0
                    y += old[r, c - 1, 1]
                if wy[r - 1, c]:
                    x += old[r, c + 1, 0] + 1.0
                    y += old[r, c + 1, 1]
                for k in range(2):
                    v = 0.5 * (old[r, c, k] + 0.5 * (x if k == 0 else y))
                    v = min(max(v, start[r, c, k] - 0.35), start[r, c, k] + 0.35)
                    off[r, c, k] = min(max(v, -MARGIN), MARGIN)
    return off


@njit(cache=True)
def slopes(z, wx, wy, live, steep):  # type: ignore[no-untyped-def]
    """Rise per cell at every point, from the neighbours on the same side of every wall; beside a wall over two
    cells, since there a slope is extrapolated."""
    rows, cols = z.shape
    g = np.zeros((rows, cols, 2))
    for r in range(2, rows - 2):
        for c in range(2, cols - 2):
            if not live[r, c]:
                continue
            west = live[r, c - 1] and not wx[r, c - 1]
            east = live[r, c + 1] and not wx[r, c]
            south = live[r - 1, c] and not wy[r - 1, c]
            north = live[r + 1, c] and not wy[r, c]
            if west and east:
                x = 0.5 * (z[r, c + 1] - z[r, c - 1])
            elif west:
                x = 0.5 * (z[r, c] - z[r, c - 2]) if live[r, c - 2] and not wx[r, c - 2] else z[r, c] - z[r, c - 1]
            elif east:
                x = 0.5 * (z[r, c + 2] - z[r, c]) if live[r, c + 2] and not wx[r, c + 1] else z[r, c + 1] - z[r, c]
            else:
                x = 0.0
            if south and north:
                y = 0.5 * (z[r + 1, c] - z[r - 1, c])
            elif south:
                y = 0.5 * (z[r, c] - z[r - 2, c]) if live[r - 2, c] and not wy[r - 2, c] else z[r, c] - z[r - 1, c]
            elif north:
                y = 0.5 * (z[r + 2, c] - z[r, c]) if live[r + 2, c] and not wy[r + 1, c] else z[r + 1, c] - z[r, c]
            else:
                y = 0.0
            g[r, c, 0] = min(max(x, -steep), steep)
            g[r, c, 1] = min(max(y, -steep), steep)
    return g


@njit(cache=True)
def layers(z, live, wx, wy, off, steep, base):  # type: ignore[no-untyped-def]
    """Layer of every corner and height of every layer of every cell.

    lab[r, c, k]: layer of corner k, or the base label that a live neighbour of a dead corner k stands on.
    zl[r, c, layer]: height in 1/1024 m; `absent` where a cell has no such layer.
    pinched[r, c]: a saddle, two low against two high corners across. By id a vertical segment there would belong to
    four walls, so the nearer diagonal pair becomes one layer and walls skip what lies between.
    """
    rows, cols = z.shape
    absent = np.int32(-(2**31))
    lab = np.full((rows, cols, 4), np.int8(BASE))
    zl = np.full((rows, cols, LAYERS), absent)
    pinched = np.zeros((rows, cols), np.bool_)
    g = slopes(z, wx, wy, live, steep)
    cr = (-1, -1, 0, 0)
    cc = (-1, 0, 0, -1)
    alive = np.zeros(4, np.bool_)
    label = np.zeros(4, np.int64)
    estimate = np.zeros(4)
    key = np.zeros(4, np.int64)
    for r in range(1, rows):
        for c in range(1, cols):
            n_live = 0
            for k in range(4):
                p = r + cr[k]
                q = c + cc[k]
                alive[k] = live[p, q]
                label[k] = k
                if alive[k]:
                    n_live += 1
                    dx = -(cc[k] + 0.5) + off[r, c, 0]
                    dy = -(cr[k] + 0.5) + off[r, c, 1]
                    estimate[k] = z[p, q] + g[p, q, 0] * dx + g[p, q, 1] * dy
            if n_live == 0:
                continue
            walls = (wx[r - 1, c - 1], wy[r - 1, c], wx[r, c - 1], wy[r - 1, c - 1])
            for _ in range(3):
                for k in range(4):
                    o = (k + 1) % 4
                    if alive[k] and alive[o] and not walls[k]:
                        m = min(label[k], label[o])
                        label[k] = m
                        label[o] = m
            checker = n_live == 2 and alive[0] == alive[2]
            pinched[r, c] = checker
            distinct = 0
            for k in range(4):
                if not alive[k] or label[k] == k:
                    distinct += 1
            if distinct == 4 and n_live >= 3:
                for k in range(4):  # the very order that walls sort layers by
                    key[k] = round(estimate[k] * 1024.0) * 8 + k if alive[k] else -(1 << 60)
                if max(key[0], key[2]) < min(key[1], key[3]) or max(key[1], key[3]) < min(key[0], key[2]):
                    pinched[r, c] = True
                    even = abs(key[0] - key[2]) if alive[0] and alive[2] else 1 << 60
                    odd = abs(key[1] - key[3]) if alive[1] and alive[3] else 1 << 60
                    if even <= odd:
                        label[2] = label[0]
                    else:
                        label[3] = label[1]
            for k in range(4):
                if alive[k]:
                    lab[r, c, k] = label[k]
                    if label[k] == k:
                        n = 0
                        s = 0.0
                        for o in range(4):
                            if alive[o] and label[o] == k:
                                s += estimate[o]
                                n += 1
                        zl[r, c, k] = np.int32(round(s / n * 1024.0))
            zl[r, c, BASE] = base
            if checker:
                zl[r, c, BASE + 1] = base
    return lab, zl, pinched
