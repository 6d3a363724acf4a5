"""Fits node heights to a height raster through the root of the field: the `direct` solver.

The published method renders a height map from an extracted mesh and lets the gradient flow back through
FlexiCubes. s is monotone in z, so its root can be taken per pixel instead, with the implicit gradient

    dz/dh_j = w_j sech^2_j / sum_k w_k sech^2_k.

How the published terms (A1-A6) map onto node heights:

A1-A3  the point cloud becomes the height raster and its mask; the rendered height map becomes the root.
A4     mean |H_pred - H_target| over valid pixels, here as a sum with a weight per pixel.
A5     Laplacian of mesh vertices. Here of nodes; a neighbour across a jump does not pull, because on the
       mesh the neighbours of a roof vertex at an eave are wall vertices. The published 0.5 acts on
       normalised coordinates, where it is nearly nothing (0.002 per metre for a 500 m division).
A6     total variation of rendered normals. Here of the horizontal part of the normal of each lattice profile
       along x and along y, d / sqrt(p^2 + d^2), which like A6 is bounded: a wall costs no more than an edge.
       The published 0.01 is worth 2.5 m of height error per unit of normal on a pixel of a 500 m division.
(none) Total variation of node heights: A4 alone follows outliers and leaves holes free. It permits jumps.

The FlexiCubes regulariser has no counterpart: there is no cube grid whose weights could degenerate.
All regularisers are stated in units of one fully trusted pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from cityweave.geometry.field import FieldShape, Lattice, neighbourhood
from cityweave.geometry.target import fill_holes, start_heights

FLAT_SHARE = 1.0  # of the softness: over less relief tanh is straight, and the root a mean to some millimetres


@dataclass(frozen=True)
class FitSettings:
    steps: int = 60
    lr_m: float = 0.4
    tv: float = 0.1  # pixels, per metre between two nodes
    laplacian: float = 0.02  # pixels per metre
    normal_tv: float = 0.5  # pixels x metres per unit of normal
    jump_m: float = 1.5  # nodes further apart than this are on two sides of a wall
    tolerance_m: float = 2e-4  # mean step below which the fit has converged


@njit(cache=True)
def _tanh(x):  # type: ignore[no-untyped-def]
    """tanh to 1e-4 without an exponential: Lambert's fraction, which LLVM turns into packed code."""
    x = min(max(x, -4.97), 4.97)
    y = x * x
    return x * (135135.0 + y * (17325.0 + y * (378.0 + y))) / (135135.0 + y * (62370.0 + y * (3150.0 + y * 28.0)))


@njit(cache=True)
def _phase_tables(m, beta, centred):  # type: ignore[no-untyped-def]
    """Weights of the nine terms for each of the m x m places of a pixel in its node's cell, and the shift of
    those places from the node, in pitches."""
    w = np.empty((m * m, 9))
    off = np.empty((m * m, 2))
    hv = np.empty(9)
    flat = np.zeros((3, 3))
    for q in range(m * m):
        off[q, 0] = (q % m + 0.5) / m - 0.5
        off[q, 1] = (q // m + 0.5) / m - 0.5
        neighbourhood(flat, 1.0 + off[q, 0], 1.0 + off[q, 1], beta, centred, w[q], hv)
    return w, off


@njit(cache=True)
def _load(h, j, i, off_x, off_y, centred, hv):  # type: ignore[no-untyped-def]
    """The nine heights of the pixel at this place in cell (j, i) of the padded lattice; returns their range."""
    tx, ty, a, b = _corner(j, i, off_x, off_y)
    k = 0
    lo = np.inf
    hi = -np.inf
    for dj in range(-1, 2):
        for di in range(-1, 2):
            if centred:
                low = h[b + dj, a + di] * (1.0 - tx) + h[b + dj, a + di + 1] * tx
                high = h[b + dj + 1, a + di] * (1.0 - tx) + h[b + dj + 1, a + di + 1] * tx
                v = low * (1.0 - ty) + high * ty
            else:
                v = h[j + 2 + dj, i + 2 + di]
            hv[k] = v
            lo = min(lo, v)
            hi = max(hi, v)
            k += 1
    return lo, hi


@njit(cache=True)
def _corner(j, i, off_x, off_y):  # type: ignore[no-untyped-def]
    """Bilinear fractions and lower-left node of a place in cell (j, i), for the reading `centred`."""
    a = i + 2 if off_x >= 0.0 else i + 1
    b = j + 2 if off_y >= 0.0 else j + 1
    return off_x - math.floor(off_x), off_y - math.floor(off_y), a, b


@njit(cache=True)
def _scatter(grad, j, i, off_x, off_y, centred, g):  # type: ignore[no-untyped-def]
    """Add the gradient of the nine heights of `_load` to the nodes they came from."""
    tx, ty, a, b = _corner(j, i, off_x, off_y)
    k = 0
    for dj in range(-1, 2):
        for di in range(-1, 2):
            if centred:
                grad[b + dj, a + di] += g[k] * (1.0 - tx) * (1.0 - ty)
                grad[b + dj, a + di + 1] += g[k] * tx * (1.0 - ty)
                grad[b + dj + 1, a + di] += g[k] * (1.0 - tx) * ty
                grad[b + dj + 1, a + di + 1] += g[k] * tx * ty
            else:
                grad[j + 2 + dj, i + 2 + di] += g[k]
            k += 1


@njit(cache=True)
def _newton(w, hv, lo, hi, z, inv, move, part):  # type: ignore[no-untyped-def]
    """One clamped Newton step of a root; `part` gets dz/dh_j. Where the heights lie within a fraction of the
    softness tanh is its argument, and the root their weighted mean."""
    if (hi - lo) * inv < FLAT_SHARE:
        z = 0.0
        for k in range(9):
            part[k] = w[k]
            z += w[k] * hv[k]
        return z
    z = min(max(z, lo), hi)
    s = 0.0
    total = 1e-9
    for k in range(9):
        t = _tanh((z - hv[k]) * inv)
        part[k] = w[k] * (1.0 - t * t)
        s += w[k] * t
        total += part[k]
    for k in range(9):
        part[k] /= total
    z -= min(max(s / (total * inv), -move), move)
    return min(max(z, lo), hi)


@njit(cache=True)
def _data_step(h, z, target, weight, tables, off, softness, centred, move, grad):  # type: ignore[no-untyped-def]
    """One Newton step of every pixel's root and the gradient of sum weight |z - target|. `h` is padded by 2."""
    inv = 1.0 / softness
    hv = np.empty(9)
    part = np.empty(9)
    cell = np.zeros(9)
    loss = 0.0
    lo = 0.0
    hi = 0.0
    for j in range(z.shape[0]):
        for i in range(z.shape[1]):
            for q in range(z.shape[2]):
                if q == 0 or centred:
                    lo, hi = _load(h, j, i, off[q, 0], off[q, 1], centred, hv)
                    cell[:] = 0.0
                zq = _newton(tables[q], hv, lo, hi, z[j, i, q], inv, move, part)
                z[j, i, q] = zq
                r = zq - target[j, i, q]
                loss += weight[j, i, q] * abs(r)
                g = weight[j, i, q] * r / math.sqrt(r * r + 0.0025)
                for k in range(9):
                    cell[k] += g * part[k]
                if centred or q == z.shape[2] - 1:
                    _scatter(grad, j, i, off[q, 0], off[q, 1], centred, cell)
    return loss


@njit(cache=True)
def _profile(d, e, pitch, normal):  # type: ignore[no-untyped-def]
    """Gradient of normal |sin(slope e) - sin(slope d)| with respect to the rises d and e, smoothed near zero."""
    ld = math.sqrt(pitch * pitch + d * d)
    le = math.sqrt(pitch * pitch + e * e)
    turn = e / le - d / ld
    g = normal * turn / math.sqrt(turn * turn + 0.0025) * pitch * pitch
    return -g / (ld * ld * ld), g / (le * le * le)


@njit(cache=True)
def _smooth_step(h, pitch, tv, laplacian, normal, jump, grad):  # type: ignore[no-untyped-def]
    """Adds the gradients of the regularisers of `FitSettings`."""
    rows, cols = h.shape
    for j in range(1, rows - 1):
        for i in range(1, cols - 1):
            c = h[j, i]
            east = h[j, i + 1] - c
            west = c - h[j, i - 1]
            north = h[j + 1, i] - c
            south = c - h[j - 1, i]
            g = tv * east / math.sqrt(east * east + 0.0025)
            grad[j, i] -= g
            grad[j, i + 1] += g
            g = tv * north / math.sqrt(north * north + 0.0025)
            grad[j, i] -= g
            grad[j + 1, i] += g
            if normal > 0.0:
                a, b = _profile(west, east, pitch, normal)
                grad[j, i - 1] -= a
                grad[j, i] += a - b
                grad[j, i + 1] += b
                a, b = _profile(south, north, pitch, normal)
                grad[j - 1, i] -= a
                grad[j, i] += a - b
                grad[j + 1, i] += b
            if laplacian > 0.0:
                e = east if abs(east) < jump else 0.0
                w = west if abs(west) < jump else 0.0
                n = north if abs(north) < jump else 0.0
                s = south if abs(south) < jump else 0.0
                lap = 2.0 * laplacian * 0.25 * (e - w + n - s)
                grad[j, i] -= lap
                if e != 0.0:
                    grad[j, i + 1] += 0.25 * lap
                if w != 0.0:
                    grad[j, i - 1] += 0.25 * lap
                if n != 0.0:
                    grad[j + 1, i] += 0.25 * lap
                if s != 0.0:
                    grad[j - 1, i] += 0.25 * lap


@njit(cache=True)
def _pad_edges(h):  # type: ignore[no-untyped-def]
    rows, cols = h.shape
    for j in range(rows):
        b = min(max(j, 2), rows - 3)
        for i in range(cols):
            a = min(max(i, 2), cols - 3)
            if a != i or b != j:
                h[j, i] = h[b, a]


@njit(cache=True)
def _solve(  # type: ignore[no-untyped-def]
    h, target, weight, tables, off, softness, centred, pitch, steps, lr, tv, laplacian, normal, jump, tolerance
):
    z = np.empty(target.shape)
    for j in range(z.shape[0]):
        for i in range(z.shape[1]):
            for q in range(z.shape[2]):
                z[j, i, q] = h[j + 2, i + 2]
    grad = np.zeros(h.shape)
    first = np.zeros(h.shape)
    second = np.zeros(h.shape)
    for _ in range(6):
        _data_step(h, z, target, weight, tables, off, softness, centred, 1e9, grad)
    used = steps
    for step in range(steps):
        grad[:] = 0.0
        rate = lr * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))
        _data_step(h, z, target, weight, tables, off, softness, centred, 8.0 * softness, grad)
        _smooth_step(h, pitch, tv, laplacian, normal, jump, grad)
        c1 = 1.0 - 0.9 ** (step + 1)
        c2 = 1.0 - 0.99 ** (step + 1)
        moved = 0.0
        for j in range(2, h.shape[0] - 2):
            for i in range(2, h.shape[1] - 2):
                g = grad[j, i]
                first[j, i] = 0.9 * first[j, i] + 0.1 * g
                second[j, i] = 0.99 * second[j, i] + 0.01 * g * g
                d = rate * (first[j, i] / c1) / (math.sqrt(second[j, i] / c2) + 1e-3)
                h[j, i] -= d
                moved += abs(d)
        _pad_edges(h)
        if moved / ((h.shape[0] - 4) * (h.shape[1] - 4)) < tolerance:
            used = step + 1
            break
    return used


def fit(
    target: np.ndarray, weight: np.ndarray, i0: int, j0: int, shape: FieldShape, gsd_m: float, settings: FitSettings
) -> tuple[Lattice, int]:
    """Fit the nodes under `target` [y ascending, x] (NaN = no data); node (i0, j0) owns its first m x m pixels.

    Returns the lattice and the steps taken. Single-threaded and free of chance: same input, same bytes.
    """
    m = round(shape.pitch_m / gsd_m)
    if m < 1 or not math.isclose(m * gsd_m, shape.pitch_m):
        raise ValueError(f"the pitch ({shape.pitch_m} m) must be an integer multiple of the cell ({gsd_m} m)")
    if target.shape != weight.shape or target.shape[0] % m or target.shape[1] % m:
        raise ValueError(f"target {target.shape} and weight {weight.shape} must agree and be multiples of {m}")
    weight = np.where(np.isfinite(target), weight, 0.0)
    h = start_heights(np.ascontiguousarray(target, np.float64), weight.astype(np.float64), m)
    if not np.isfinite(h).any():
        raise ValueError("the height model holds no value here")
    fill_holes(h)
    padded = np.pad(h, 2, mode="edge")
    rows, cols = h.shape

    def by_phase(raster: np.ndarray) -> np.ndarray:  # [j, i, phase]
        cells = raster.reshape(rows, m, cols, m).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(cells.reshape(rows, cols, m * m), dtype=np.float64)

    tables, off = _phase_tables(m, shape.beta, shape.centred)
    share = m * m / 4.0  # weights are stated for 4 pixels a node: keep their balance at other ratios
    steps = _solve(
        padded, by_phase(np.nan_to_num(target)), by_phase(weight), tables, off, shape.softness_m, shape.centred,
        shape.pitch_m, settings.steps, settings.lr_m, settings.tv * share, settings.laplacian * share,
        settings.normal_tv * share, settings.jump_m, settings.tolerance_m,
    )  # fmt: skip
    return Lattice(padded[2:-2, 2:-2].astype(np.float32), i0, j0, shape.pitch_m), int(steps)
