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
A6     total variation of rendered normals. Here of the angle of each lattice profile along x and along y:
       |atan(d+ / p) - atan(d- / p)|, which like A6 is bounded, so that a wall costs no more than an edge.
       The published 0.01 is worth 2.5 m of height error per radian on a pixel of a 500 m division.
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

TRUST_SIGMA_M = 0.5  # a pixel this certain, or more, has full weight
RAMP_JUMP_M = 3.0  # within 5 pixels: more than a roof rises
RAMP_SHARE = 0.15  # of a jump: closer to one end than this belongs to it


@dataclass(frozen=True)
class FitSettings:
    steps: int = 60
    lr_m: float = 0.4
    tv: float = 0.6  # pixels, per metre between two nodes
    laplacian: float = 0.02  # pixels per metre
    normal_tv: float = 0.5  # pixels x metres per radian
    jump_m: float = 1.5  # nodes further apart than this are on two sides of a wall
    tolerance_m: float = 2e-4  # mean step below which the fit has converged


@njit(cache=True)
def _half_way(target, jump):  # type: ignore[no-untyped-def]
    """Pixels part-way up a wall: mixed or smeared, true of neither side. Over the 5 x 5 pixels round each."""
    rows, cols = target.shape
    out = np.zeros(target.shape, np.bool_)
    for j in range(rows):
        for i in range(cols):
            v = target[j, i]
            lo = v
            hi = v
            for b in range(max(j - 2, 0), min(j + 3, rows)):
                for a in range(max(i - 2, 0), min(i + 3, cols)):
                    if target[b, a] < lo:  # false for NaN
                        lo = target[b, a]
                    if target[b, a] > hi:
                        hi = target[b, a]
            part = RAMP_SHARE * (hi - lo)
            out[j, i] = hi - lo > jump and v - lo > part and hi - v > part
    return out


def pixel_weights(sigma: np.ndarray | None, filled: np.ndarray | None, target: np.ndarray) -> np.ndarray:
    """Trust per pixel: 1 for certain, falling with sigma; 0 where there is no data.

    Pixels that were filled in, or that are half-way up a wall, only hint.
    """
    weight = np.ones(target.shape, np.float32)
    if sigma is not None:
        weight = np.where(np.isfinite(sigma), TRUST_SIGMA_M / np.maximum(sigma, TRUST_SIGMA_M), weight)
        weight = np.maximum(weight, 0.1)
    if filled is not None:
        weight = np.where(filled, 0.25 * weight, weight)
    half_way = _half_way(np.ascontiguousarray(target, np.float32), RAMP_JUMP_M)
    weight = np.where(half_way, 0.1 * weight, weight)
    return np.where(np.isfinite(target), weight, 0.0).astype(np.float32)


@njit(cache=True)
def _weighted_median(v, w, n):  # type: ignore[no-untyped-def]
    """Lower weighted median; a mean of two values would put a node half-way up a wall. Sorts v, w in place."""
    for a in range(1, n):
        x = v[a]
        y = w[a]
        b = a - 1
        while b >= 0 and v[b] > x:
            v[b + 1] = v[b]
            w[b + 1] = w[b]
            b -= 1
        v[b + 1] = x
        w[b + 1] = y
    half = 0.0
    for a in range(n):
        half += w[a]
    half *= 0.5
    run = 0.0
    for a in range(n):
        run += w[a]
        if run >= half - 1e-9:
            return v[a]
    return v[n - 1]


@njit(cache=True)
def _start(target, weight, m):  # type: ignore[no-untyped-def]
    """Per node the median of its own pixels, with the ring of pixels round them as a lighter vote."""
    rows = target.shape[0] // m
    cols = target.shape[1] // m
    h = np.full((rows, cols), np.nan)
    v = np.empty((m + 2) * (m + 2))
    w = np.empty((m + 2) * (m + 2))
    for j in range(rows):
        for i in range(cols):
            n = 0
            own = 0
            for y in range(max(j * m - 1, 0), min((j + 1) * m + 1, rows * m)):
                for x in range(max(i * m - 1, 0), min((i + 1) * m + 1, cols * m)):
                    if weight[y, x] > 0.0:
                        inside = j * m <= y < (j + 1) * m and i * m <= x < (i + 1) * m
                        v[n] = target[y, x]
                        w[n] = weight[y, x] * (1.0 if inside else 0.25)
                        own += inside
                        n += 1
            if own > 0:
                h[j, i] = _weighted_median(v, w, n)
    return h


@njit(cache=True)
def _fill(h):  # type: ignore[no-untyped-def]
    """Grow the known nodes over the holes, ring by ring, each by the median of its known neighbours."""
    rows, cols = h.shape
    v = np.empty(8)
    w = np.ones(8)
    holes = np.empty((h.size, 2), np.int64)
    n_holes = 0
    for j in range(rows):
        for i in range(cols):
            if math.isnan(h[j, i]):
                holes[n_holes, 0] = j
                holes[n_holes, 1] = i
                n_holes += 1
    new = np.empty(n_holes)
    while n_holes > 0:
        for k in range(n_holes):
            n = 0
            for b in range(max(holes[k, 0] - 1, 0), min(holes[k, 0] + 2, rows)):
                for a in range(max(holes[k, 1] - 1, 0), min(holes[k, 1] + 2, cols)):
                    if not math.isnan(h[b, a]):
                        v[n] = h[b, a]
                        w[n] = 1.0
                        n += 1
            new[k] = _weighted_median(v, w, n) if n > 0 else np.nan
        left = 0
        for k in range(n_holes):
            j = holes[k, 0]
            i = holes[k, 1]
            if math.isnan(new[k]):
                holes[left, 0] = j
                holes[left, 1] = i
                left += 1
            else:
                h[j, i] = new[k]
        n_holes = left


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
def _data_step(h, z, target, weight, tables, off, softness, centred, move, grad):  # type: ignore[no-untyped-def]
    """One Newton step of every pixel's root and the gradient of sum weight |z - target|. `h` is padded by 2."""
    rows = z.shape[0]
    cols = z.shape[1]
    phases = tables.shape[0]
    inv = 1.0 / softness
    hv = np.empty(9)
    sech = np.empty(9)
    loss = 0.0
    for j in range(rows):
        for i in range(cols):
            for q in range(phases):
                k = 0
                if centred:
                    tx = off[q, 0] if off[q, 0] >= 0 else off[q, 0] + 1.0
                    ty = off[q, 1] if off[q, 1] >= 0 else off[q, 1] + 1.0
                    sx = 0 if off[q, 0] >= 0 else -1
                    sy = 0 if off[q, 1] >= 0 else -1
                    for dj in range(-1, 2):
                        for di in range(-1, 2):
                            a = i + 2 + di + sx
                            b = j + 2 + dj + sy
                            hv[k] = (h[b, a] * (1 - tx) + h[b, a + 1] * tx) * (1 - ty) + (
                                h[b + 1, a] * (1 - tx) + h[b + 1, a + 1] * tx
                            ) * ty
                            k += 1
                else:
                    for dj in range(-1, 2):
                        for di in range(-1, 2):
                            hv[k] = h[j + 2 + dj, i + 2 + di]
                            k += 1
                lo = hv[0]
                hi = hv[0]
                for k in range(1, 9):
                    lo = min(lo, hv[k])
                    hi = max(hi, hv[k])
                zq = min(max(z[j, i, q], lo), hi)
                s = 0.0
                total = 0.0
                for k in range(9):
                    t = _tanh((zq - hv[k]) * inv)
                    sech[k] = tables[q, k] * (1.0 - t * t)
                    s += tables[q, k] * t
                    total += sech[k]
                total = max(total, 1e-9)
                zq -= min(max(s / (total * inv), -move), move)
                zq = min(max(zq, lo), hi)
                z[j, i, q] = zq
                wt = weight[j, i, q]
                if wt > 0.0:
                    r = zq - target[j, i, q]
                    loss += wt * abs(r)
                    g = wt * r / math.sqrt(r * r + 0.0025) / total
                    for k in range(9):
                        sech[k] *= g
                    k = 0
                    if centred:
                        for dj in range(-1, 2):
                            for di in range(-1, 2):
                                a = i + 2 + di + sx
                                b = j + 2 + dj + sy
                                grad[b, a] += sech[k] * (1 - tx) * (1 - ty)
                                grad[b, a + 1] += sech[k] * tx * (1 - ty)
                                grad[b + 1, a] += sech[k] * (1 - tx) * ty
                                grad[b + 1, a + 1] += sech[k] * tx * ty
                                k += 1
                    else:
                        for dj in range(-1, 2):
                            for di in range(-1, 2):
                                grad[j + 2 + dj, i + 2 + di] += sech[k]
                                k += 1
    return loss


@njit(cache=True)
def _profile(d, e, pitch, normal):  # type: ignore[no-untyped-def]
    """Gradient of normal |atan(e/p) - atan(d/p)| with respect to d and e, smoothed near zero."""
    turn = math.atan(e / pitch) - math.atan(d / pitch)
    g = normal * turn / math.sqrt(turn * turn + 0.0025) / pitch
    return -g / (1.0 + (d / pitch) ** 2), g / (1.0 + (e / pitch) ** 2)


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
    for _ in range(12):
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
    h = _start(np.ascontiguousarray(target, np.float64), weight.astype(np.float64), m)
    if not np.isfinite(h).any():
        raise ValueError("the height model holds no value here")
    _fill(h)
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
