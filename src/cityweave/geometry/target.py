"""What a height raster says before anything is fitted: how far to trust each pixel, and where nodes start."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

TRUST_SIGMA_M = 2.0  # a pixel this certain, or more, has full weight
RAMP_JUMP_M = 3.0  # within 5 pixels: more than a roof rises
LEVEL_M = 0.6  # pixels that differ by less are one terrace
RAMP_SHARE = 0.15  # of a jump: closer to one end than this belongs to it


@njit(cache=True)
def _half_way(target, jump):  # type: ignore[no-untyped-def]
    """Pixels part-way up a wall: mixed or smeared, true of neither side. Over the 5 x 5 pixels round each; a narrow
    terrace has more pixels of its own height there than a smeared wall."""
    rows, cols = target.shape
    out = np.zeros(target.shape, np.bool_)
    for j in range(rows):
        for i in range(cols):
            v = target[j, i]
            lo = v
            hi = v
            level = 0
            for b in range(max(j - 2, 0), min(j + 3, rows)):
                for a in range(max(i - 2, 0), min(i + 3, cols)):
                    if target[b, a] < lo:  # false for NaN
                        lo = target[b, a]
                    if target[b, a] > hi:
                        hi = target[b, a]
                    level += abs(target[b, a] - v) < LEVEL_M
            part = RAMP_SHARE * (hi - lo)
            out[j, i] = level < 9 and hi - lo > jump and v - lo > part and hi - v > part
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
def start_heights(target, weight, m):  # type: ignore[no-untyped-def]
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
def fill_holes(h):  # type: ignore[no-untyped-def]
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
