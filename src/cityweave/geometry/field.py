"""The Z-monotonic field (eq. 5 of Orbit2Ground) on one global lattice of node heights.

    s(x, y, z) = sum_j w_j tanh((z - h_j) / softness),   w = softmax(beta / (d + EPSILON)),

over a 3x3 neighbourhood, d in units of the pitch p. Node (i, j) stands at ((i+1/2)p, (j+1/2)p) from the
CRS origin. s rises with z, so it has one root: the height of the surface. Where neighbours differ by
much more than the softness, s is a plateau between them and its sign changes *sideways*: that is a wall.

Appendix B.2 allows two readings of "neighbourhood":

`nodes`    the neighbours are the 3x3 lattice nodes round the query; h_j are their own heights. Walls are
           jumps, but s is not continuous where the 3x3 set changes.
`centred`  the neighbours are nine offsets about the query itself; h is sampled bilinearly there. s is
           continuous and slopes are exact everywhere, but h is a ramp one pitch wide at a wall.

Lattice arrays are indexed [j, i] with j north (ascending), unlike rasters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

EPSILON = 0.25
"""Keeps beta / (d + EPSILON) finite at a node; fixed, because beta alone sets the sharpness."""

Reading = Literal["nodes", "centred"]


@dataclass(frozen=True)
class FieldShape:
    """What turns node heights into a field. Identical for every division of a city, or seams would open."""

    pitch_m: float
    softness_m: float
    beta: float
    reading: Reading = "nodes"

    def __post_init__(self) -> None:
        if self.pitch_m <= 0 or self.softness_m <= 0 or self.beta <= 0:
            raise ValueError(f"pitch, softness and beta must be positive, got {self}")
        if self.reading not in ("nodes", "centred"):
            raise ValueError(f"reading must be 'nodes' or 'centred', got {self.reading!r}")

    @property
    def centred(self) -> bool:
        return self.reading == "centred"


@dataclass(frozen=True)
class Lattice:
    """Node heights h [j, i] float32 (NaN = no node); h[0, 0] is the node (i0, j0) of the global lattice."""

    h: np.ndarray
    i0: int
    j0: int
    pitch_m: float

    def window(self, i0: int, j0: int, cols: int, rows: int) -> Lattice:
        r, c = j0 - self.j0, i0 - self.i0
        if r < 0 or c < 0 or r + rows > self.h.shape[0] or c + cols > self.h.shape[1]:
            raise ValueError(
                f"window {cols}x{rows} at ({i0}, {j0}) is outside a lattice {self.h.shape[::-1]} "
                f"at ({self.i0}, {self.j0})"
            )
        return Lattice(self.h[r : r + rows, c : c + cols], i0, j0, self.pitch_m)


@njit(cache=True)
def neighbourhood(h, fx, fy, beta, centred, w, hv):  # type: ignore[no-untyped-def]
    """Fill w[9], hv[9] for the query (fx, fy) in node units (node i of `h` is at fx = i)."""
    rows, cols = h.shape
    ic = int(math.floor(fx + 0.5))
    jc = int(math.floor(fy + 0.5))
    top = -1.0
    n = 0
    for dj in range(-1, 2):
        for di in range(-1, 2):
            if centred:
                d = math.sqrt(di * di + dj * dj)
                qx = min(max(fx + di, 0.0), cols - 1.0)
                qy = min(max(fy + dj, 0.0), rows - 1.0)
                i = min(int(qx), cols - 2)
                j = min(int(qy), rows - 2)
                tx = qx - i
                ty = qy - j
                low = h[j, i] * (1.0 - tx) + h[j, i + 1] * tx
                high = h[j + 1, i] * (1.0 - tx) + h[j + 1, i + 1] * tx
                hv[n] = low * (1.0 - ty) + high * ty
            else:
                i = ic + di
                j = jc + dj
                dx = fx - i
                dy = fy - j
                d = math.sqrt(dx * dx + dy * dy)
                hv[n] = h[min(max(j, 0), rows - 1), min(max(i, 0), cols - 1)]
            e = beta / (d + EPSILON)
            w[n] = e
            top = max(top, e)
            n += 1
    total = 0.0
    for k in range(9):
        w[k] = math.exp(w[k] - top)
        total += w[k]
    for k in range(9):
        w[k] /= total


@njit(cache=True)
def value(w, hv, z, softness):  # type: ignore[no-untyped-def]
    s = 0.0
    for k in range(9):
        s += w[k] * math.tanh((z - hv[k]) / softness)
    return s


@njit(cache=True)
def root(w, hv, softness):  # type: ignore[no-untyped-def]
    """The z with s = 0: Newton kept inside a shrinking bracket that starts at [min h, max h]."""
    lo = hv[0]
    hi = hv[0]
    z = 0.0
    for k in range(9):
        lo = min(lo, hv[k])
        hi = max(hi, hv[k])
        z += w[k] * hv[k]
    for _ in range(60):
        if hi - lo < 1e-6:
            break
        s = 0.0
        slope = 0.0
        for k in range(9):
            t = math.tanh((z - hv[k]) / softness)
            s += w[k] * t
            slope += w[k] * (1.0 - t * t)
        if s > 0.0:
            hi = z
        else:
            lo = z
        new = z - s * softness / slope if slope > 1e-12 else lo - 1.0
        if new <= lo or new >= hi:
            new = 0.5 * (lo + hi)
        if abs(new - z) < 1e-7:
            z = new
            break
        z = new
    return z


@njit(cache=True)
def _roots(h, fx, fy, beta, centred, softness):  # type: ignore[no-untyped-def]
    out = np.empty(fx.shape[0])
    w = np.empty(9)
    hv = np.empty(9)
    for n in range(fx.shape[0]):
        neighbourhood(h, fx[n], fy[n], beta, centred, w, hv)
        out[n] = root(w, hv, softness)
    return out


@njit(cache=True)
def _values(h, fx, fy, z, beta, centred, softness):  # type: ignore[no-untyped-def]
    out = np.empty(fx.shape[0])
    w = np.empty(9)
    hv = np.empty(9)
    for n in range(fx.shape[0]):
        neighbourhood(h, fx[n], fy[n], beta, centred, w, hv)
        out[n] = value(w, hv, z[n], softness)
    return out


@njit(cache=True)
def root_grid(h, first_x, first_y, step, cols, rows, beta, centred, softness, need):  # type: ignore[no-untyped-def]
    """Roots on a regular grid in node units, [rows, cols]; NaN where `need` is False."""
    out = np.full((rows, cols), np.nan)
    w = np.empty(9)
    hv = np.empty(9)
    for r in range(rows):
        for c in range(cols):
            if need[r, c]:
                neighbourhood(h, first_x + c * step, first_y + r * step, beta, centred, w, hv)
                out[r, c] = root(w, hv, softness)
    return out


def _node_units(lattice: Lattice, x, y):  # type: ignore[no-untyped-def]
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    fx = x.ravel() / lattice.pitch_m - 0.5 - lattice.i0
    fy = y.ravel() / lattice.pitch_m - 0.5 - lattice.j0
    return np.ascontiguousarray(fx), np.ascontiguousarray(fy), x.shape


def heights(lattice: Lattice, shape: FieldShape, x, y) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Height of the zero set above the points (x, y), in CRS metres."""
    fx, fy, dims = _node_units(lattice, x, y)
    return _roots(lattice.h, fx, fy, shape.beta, shape.centred, shape.softness_m).reshape(dims)


def values(lattice: Lattice, shape: FieldShape, x, y, z) -> np.ndarray:  # type: ignore[no-untyped-def]
    """s at the points (x, y, z); in (-1, 1), negative below the surface."""
    x, y, z = np.broadcast_arrays(*(np.asarray(a, float) for a in (x, y, z)))
    fx, fy, dims = _node_units(lattice, x, y)
    z = np.ascontiguousarray(z.ravel())
    return _values(lattice.h, fx, fy, z, shape.beta, shape.centred, shape.softness_m).reshape(dims)
