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
from typing import Any

import numpy as np
from numba import njit

from cityweave.geometry.field import FieldShape, Lattice, neighbourhood
from cityweave.geometry.target import fill_holes, start_heights

WIDTH = 128  # pixels that are worked on together
MIDDLE, NORTH = WIDTH + 2, 2 * (WIDTH + 2)  # where things lie in their buffer: three rows of heights,
ROOT = 3 * (WIDTH + 2)  # then of the pixels the root, target and weight,
TARGET, WEIGHT, PULL = ROOT + WIDTH, ROOT + 2 * WIDTH, ROOT + 3 * WIDTH  # and nine gradients
SHARPEST_M2 = 0.0025  # |x| is sqrt(x^2 + this): its kink is smooth over some 5 cm
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


# `error_model="numpy"`: a test for division by zero in a loop would keep LLVM from making packed code of it.


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _tanh(x):  # type: ignore[no-untyped-def]
    """tanh to 1e-4 without an exponential: Lambert's fraction."""
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


@njit(cache=True, nogil=True, error_model="numpy")
def _pixels(buffer, w, softness, move):  # type: ignore[no-untyped-def]
    """One clamped Newton step of the roots of WIDTH pixels, one a node, and the gradient of their loss with respect to
    the nine heights that each hangs on. See `_row` for what lies where.

    Where the heights lie within a fraction of the softness tanh is its argument, and the root their weighted mean.
    Term by term and in one buffer at fixed places: only then does LLVM know that nothing overlaps, and works on several
    pixels at a time, five times as fast.
    """
    inv = 1.0 / softness
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    for i in range(WIDTH):
        h0, h1, h2 = buffer[i], buffer[i + 1], buffer[i + 2]
        h3, h4, h5 = buffer[MIDDLE + i], buffer[MIDDLE + i + 1], buffer[MIDDLE + i + 2]
        h6, h7, h8 = buffer[NORTH + i], buffer[NORTH + i + 1], buffer[NORTH + i + 2]
        lo = min(min(min(h0, h1), min(h2, h3)), min(min(h4, h5), min(min(h6, h7), h8)))
        hi = max(max(max(h0, h1), max(h2, h3)), max(max(h4, h5), max(max(h6, h7), h8)))
        at = min(max(buffer[ROOT + i], lo), hi)
        t0, t1, t2 = _tanh((at - h0) * inv), _tanh((at - h1) * inv), _tanh((at - h2) * inv)
        t3, t4, t5 = _tanh((at - h3) * inv), _tanh((at - h4) * inv), _tanh((at - h5) * inv)
        t6, t7, t8 = _tanh((at - h6) * inv), _tanh((at - h7) * inv), _tanh((at - h8) * inv)
        p0, p1, p2 = w0 * (1.0 - t0 * t0), w1 * (1.0 - t1 * t1), w2 * (1.0 - t2 * t2)
        p3, p4, p5 = w3 * (1.0 - t3 * t3), w4 * (1.0 - t4 * t4), w5 * (1.0 - t5 * t5)
        p6, p7, p8 = w6 * (1.0 - t6 * t6), w7 * (1.0 - t7 * t7), w8 * (1.0 - t8 * t8)
        s = w0 * t0 + w1 * t1 + w2 * t2 + w3 * t3 + w4 * t4 + w5 * t5 + w6 * t6 + w7 * t7 + w8 * t8
        total = 1e-9 + (p0 + p1 + p2 + p3 + p4 + p5 + p6 + p7 + p8)
        step = min(max(s / total * softness, -move), move)
        root = min(max(at - step, lo), hi)
        mean = w0 * h0 + w1 * h1 + w2 * h2 + w3 * h3 + w4 * h4 + w5 * h5 + w6 * h6 + w7 * h7 + w8 * h8
        flat = (hi - lo) * inv < FLAT_SHARE
        found = mean if flat else root
        off = found - buffer[TARGET + i]
        g = buffer[WEIGHT + i] * off / math.sqrt(off * off + SHARPEST_M2)
        scaled = g / total
        buffer[ROOT + i] = found
        buffer[PULL + i] = g * w0 if flat else scaled * p0
        buffer[PULL + WIDTH + i] = g * w1 if flat else scaled * p1
        buffer[PULL + 2 * WIDTH + i] = g * w2 if flat else scaled * p2
        buffer[PULL + 3 * WIDTH + i] = g * w3 if flat else scaled * p3
        buffer[PULL + 4 * WIDTH + i] = g * w4 if flat else scaled * p4
        buffer[PULL + 5 * WIDTH + i] = g * w5 if flat else scaled * p5
        buffer[PULL + 6 * WIDTH + i] = g * w6 if flat else scaled * p6
        buffer[PULL + 7 * WIDTH + i] = g * w7 if flat else scaled * p7
        buffer[PULL + 8 * WIDTH + i] = g * w8 if flat else scaled * p8


@njit(cache=True, nogil=True)
def _row(heights, j, z, target, weight, w, softness, move, buffer, grad):  # type: ignore[no-untyped-def]
    """`_pixels` for row j of the pixels of one place; heights and their gradient are padded by 2."""
    for first in range(0, z.shape[0], WIDTH):
        count = min(WIDTH, z.shape[0] - first)
        for k in range(3):
            buffer[k * (WIDTH + 2) : k * (WIDTH + 2) + count + 2] = heights[j + 1 + k, first + 1 : first + count + 3]
        buffer[ROOT : ROOT + count] = z[first : first + count]
        buffer[TARGET : TARGET + count] = target[first : first + count]
        buffer[WEIGHT : WEIGHT + count] = weight[first : first + count]
        _pixels(buffer, w, softness, move)
        z[first : first + count] = buffer[ROOT : ROOT + count]
        for k in range(9):
            pull = buffer[PULL + k * WIDTH : PULL + k * WIDTH + count]
            _add(grad[j + 1 + k // 3], first + 1 + k % 3, pull, 1.0)


@njit(cache=True, nogil=True)
def _add(row, first, values, times):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        row[first + i] += times * values[i]


@njit(cache=True, nogil=True)
def _corner(off_x, off_y):  # type: ignore[no-untyped-def]
    """Bilinear fractions of a place near a node, and the lower-left node of it from that node."""
    left = 0 if off_x >= 0.0 else -1
    low = 0 if off_y >= 0.0 else -1
    return off_x - left, off_y - low, left, low


@njit(cache=True, nogil=True)
def _interpolated(h, off_x, off_y, out):  # type: ignore[no-untyped-def]
    """`h` where a pixel of this place lies, for every node but the outermost."""
    tx, ty, left, low = _corner(off_x, off_y)
    cols = h.shape[1]
    for j in range(1, h.shape[0] - 1):
        a, b = h[j + low], h[j + low + 1]
        for i in range(1, cols - 1):
            south = a[i + left] * (1.0 - tx) + a[i + left + 1] * tx
            north = b[i + left] * (1.0 - tx) + b[i + left + 1] * tx
            out[j, i] = south * (1.0 - ty) + north * ty


@njit(cache=True, nogil=True)
def _data_step(h, z, target, weight, tables, off, softness, centred, move, grad):  # type: ignore[no-untyped-def]
    """One Newton step of every pixel's root and the gradient of sum weight |z - target|. `h` is padded by 2; pixels
    are [phase, j, i]."""
    rows = z.shape[1]
    buffer = np.zeros(PULL + 9 * WIDTH)
    heights = h.copy() if centred else h
    of_heights = np.zeros(h.shape) if centred else grad
    for q in range(z.shape[0]):
        if centred:
            _interpolated(h, off[q, 0], off[q, 1], heights)
            of_heights[:] = 0.0
        for j in range(rows):
            _row(heights, j, z[q, j], target[q, j], weight[q, j], tables[q], softness, move, buffer, of_heights)
        if centred:
            tx, ty, left, low = _corner(off[q, 0], off[q, 1])
            for j in range(1, rows + 3):
                row = of_heights[j, 1:-1]
                _add(grad[j + low], 1 + left, row, (1.0 - tx) * (1.0 - ty))
                _add(grad[j + low], 2 + left, row, tx * (1.0 - ty))
                _add(grad[j + low + 1], 1 + left, row, (1.0 - tx) * ty)
                _add(grad[j + low + 1], 2 + left, row, tx * ty)


@njit(cache=True, nogil=True, error_model="numpy")
def _tv(low, high, tv, out):  # type: ignore[no-untyped-def]
    """Gradient of the total variation between two rows of nodes with respect to the higher one."""
    for i in range(low.shape[0]):
        rise = high[i] - low[i]
        out[i] = tv * rise / math.sqrt(rise * rise + SHARPEST_M2)


@njit(cache=True, nogil=True, error_model="numpy")
def _turns(before, at, after, pitch, normal, first, second):  # type: ignore[no-untyped-def]
    """Gradients of normal |sin(slope after) - sin(slope before)| with respect to the two rises, smoothed near zero."""
    for i in range(at.shape[0]):
        d = at[i] - before[i]
        e = after[i] - at[i]
        ld = math.sqrt(pitch * pitch + d * d)
        le = math.sqrt(pitch * pitch + e * e)
        turn = e / le - d / ld
        g = normal * turn / math.sqrt(turn * turn + SHARPEST_M2) * pitch * pitch
        first[i] = -g / (ld * ld * ld)
        second[i] = g / (le * le * le)


@njit(cache=True, nogil=True)
def _within(own, other, jump, out):  # type: ignore[no-untyped-def]
    """Adds how far the others are above; those across a jump have no say."""
    for i in range(out.shape[0]):
        rise = other[i] - own[i]
        out[i] += rise if abs(rise) < jump else 0.0


@njit(cache=True, nogil=True)
def _pulled_along(own, other, bend, jump, grad):  # type: ignore[no-untyped-def]
    for i in range(bend.shape[0]):
        grad[i] += 0.25 * bend[i] if abs(other[i] - own[i]) < jump else 0.0


@njit(cache=True, nogil=True)
def _smooth_step(h, pitch, tv, laplacian, normal, jump, grad):  # type: ignore[no-untyped-def]
    """Adds the gradients of the regularisers of `FitSettings`."""
    rows, cols = h.shape
    first, second = np.empty(cols - 2), np.empty(cols - 2)
    for j in range(1, rows - 1):
        row = h[j]
        for other, at, place in ((row[2:], j, 2), (h[j + 1, 1:-1], j + 1, 1)):
            _tv(row[1:-1], other, tv, first)
            _add(grad[j], 1, first, -1.0)
            _add(grad[at], place, first, 1.0)
        if normal > 0.0:
            _turns(row[:-2], row[1:-1], row[2:], pitch, normal, first, second)
            for at, other, values in ((0, 1, first), (1, 2, second)):
                _add(grad[j], at, values, -1.0)
                _add(grad[j], other, values, 1.0)
            _turns(h[j - 1, 1:-1], row[1:-1], h[j + 1, 1:-1], pitch, normal, first, second)
            for at, other, values in ((j - 1, j, first), (j, j + 1, second)):
                _add(grad[at], 1, values, -1.0)
                _add(grad[other], 1, values, 1.0)
        if laplacian > 0.0:
            own = row[1:-1]
            first[:] = 0.0
            for other in (row[:-2], row[2:], h[j - 1, 1:-1], h[j + 1, 1:-1]):
                _within(own, other, jump, first)
            first *= 0.5 * laplacian
            _add(grad[j], 1, first, -1.0)
            for other, at, place in (
                (row[:-2], j, 0),
                (row[2:], j, 2),
                (h[j - 1, 1:-1], j - 1, 1),
                (h[j + 1, 1:-1], j + 1, 1),
            ):
                _pulled_along(own, other, first, jump, grad[at, place:])


@njit(cache=True, nogil=True)
def _pad_edges(h):  # type: ignore[no-untyped-def]
    rows, cols = h.shape
    for j in range(rows):
        b = min(max(j, 2), rows - 3)
        for i in range(cols):
            a = min(max(i, 2), cols - 3)
            if a != i or b != j:
                h[j, i] = h[b, a]


@njit(cache=True, nogil=True, error_model="numpy")
def _adam(h, grad, first, second, rate, c1, c2):  # type: ignore[no-untyped-def]
    """One step of a row of nodes; how far they moved together."""
    moved = 0.0
    for i in range(h.shape[0]):
        g = grad[i]
        first[i] = 0.9 * first[i] + 0.1 * g
        second[i] = 0.99 * second[i] + 0.01 * g * g
        d = rate * (first[i] / c1) / (math.sqrt(second[i] / c2) + 1e-3)
        h[i] -= d
        moved += abs(d)
    return moved


@njit(cache=True, nogil=True)
def _solve(  # type: ignore[no-untyped-def]
    h, target, weight, tables, off, softness, centred, pitch, steps, lr, tv, laplacian, normal, jump, tolerance
):
    z = np.empty(target.shape)
    for q in range(z.shape[0]):
        z[q] = h[2:-2, 2:-2]
    grad = np.zeros(h.shape)
    first = np.zeros(h.shape)
    second = np.zeros(h.shape)
    for _ in range(6):
        _data_step(h, z, target, weight, tables, off, softness, centred, 1e9, grad)
    nodes = (h.shape[0] - 4) * (h.shape[1] - 4)
    for step in range(steps):
        grad[:] = 0.0
        rate = lr * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))
        _data_step(h, z, target, weight, tables, off, softness, centred, 8.0 * softness, grad)
        _smooth_step(h, pitch, tv, laplacian, normal, jump, grad)
        c1 = 1.0 - 0.9 ** (step + 1)
        c2 = 1.0 - 0.99 ** (step + 1)
        moved = 0.0
        for j in range(2, h.shape[0] - 2):
            moved += _adam(h[j, 2:-2], grad[j, 2:-2], first[j, 2:-2], second[j, 2:-2], rate, c1, c2)
        _pad_edges(h)
        if moved / nodes < tolerance:
            return step + 1
    return steps


def fit(
    target: np.ndarray, weight: np.ndarray, i0: int, j0: int, shape: FieldShape, gsd_m: float, settings: FitSettings,
    device: str = "cpu",
) -> tuple[Lattice, int]:  # fmt: skip
    """Fit the nodes under `target` [y ascending, x] (NaN = no data); node (i0, j0) owns its first m x m pixels.

    Returns the lattice and the steps taken. On the CPU single-threaded and free of chance: same input, same bytes.
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

    def by_phase(raster: np.ndarray) -> np.ndarray:  # [phase, j, i]
        cells = raster.reshape(rows, m, cols, m).transpose(1, 3, 0, 2)
        return np.ascontiguousarray(cells.reshape(m * m, rows, cols), dtype=np.float64)

    tables, off = _phase_tables(m, shape.beta, shape.centred)
    share = m * m / 4.0  # weights are stated for 4 pixels a node: keep their balance at other ratios
    arrays = (padded, by_phase(np.nan_to_num(target)), by_phase(weight), tables, off)
    numbers: tuple[Any, ...] = (
        shape.softness_m, shape.centred, shape.pitch_m, settings.steps, settings.lr_m, settings.tv * share,
        settings.laplacian * share, settings.normal_tv * share, settings.jump_m, settings.tolerance_m,
    )  # fmt: skip
    if device == "cpu":
        steps = _solve(*arrays, *numbers)
    else:
        from cityweave.geometry import direct_torch

        steps = direct_torch.solve(*arrays, numbers, device)
    return Lattice(padded[2:-2, 2:-2].astype(np.float32), i0, j0, shape.pitch_m), int(steps)
