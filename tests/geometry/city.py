"""A small analytic city: the height of any point, so that any raster of it and any mesh of it can be judged."""

from __future__ import annotations

import numpy as np


def _turned(x, y, cx, cy, deg):
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    return (x - cx) * c + (y - cy) * s, -(x - cx) * s + (y - cy) * c


# cx, cy, length, width, angle, eave height, roof ("flat" or rise of the ridge in metres)
BUILDINGS = [
    (40, 44, 30, 18, 0, 12, 0.0),
    (90, 40, 40, 14, 0, 9, 5.0),
    (150, 50, 36, 24, 0, 21, 0.0),
    (206, 44, 28, 12, 90, 7, 4.5),
    (44, 100, 34, 12, 30, 8, 4.0),
    (100, 104, 30, 30, 45, 18, 0.0),
    (128, 128, 24, 24, 0, 100, 0.0),
    (170, 110, 30, 16, 20, 15, 0.0),
    (216, 112, 26, 26, 0, 30, 0.0),
    (216, 112, 12, 12, 0, 45, 0.0),
    (50, 160, 44, 16, 0, 10, 6.0),
    (110, 176, 20, 40, 10, 14, 0.0),
    (160, 170, 16, 50, 0, 11, 5.5),
    (210, 176, 40, 20, 60, 24, 0.0),
    (60, 216, 50, 20, 5, 6, 3.0),
    (128, 226, 36, 22, 0, 16, 0.0),
    (200, 226, 44, 14, 15, 9, 4.0),
]
SIZE_M = 256


def ground(x, y):
    return 3.0 + 0.02 * x + 1.5 * np.sin(x / 60.0) * np.cos(y / 45.0)


def height(x, y):
    """Height of the city's top at (x, y); the pattern repeats every 256 m."""
    u, v = np.mod(x, SIZE_M), np.mod(y, SIZE_M)
    z = ground(u, v) + 0.02 * (x - u)
    for cx, cy, length, width, angle, eave, rise in BUILDINGS:
        a, b = _turned(u, v, cx, cy, angle)
        base = ground(float(cx), float(cy)) + 0.02 * (x - u)
        roof = base + eave + rise * (1.0 - np.abs(b) / (width / 2))
        inside = (np.abs(a) <= length / 2) & (np.abs(b) <= width / 2)
        z = np.where(inside, np.maximum(z, roof), z)
    return z


def raster(xmin, ymin, cols, rows, gsd, noise_m=0.0, holes=0.0, seed=0):
    """Heights at cell centres, y ascending; holes are blobs of NaN, with half of them beside walls."""
    x = (np.arange(cols) + 0.5) * gsd + xmin
    y = (np.arange(rows) + 0.5) * gsd + ymin
    z = height(x[None, :], y[:, None])
    rng = np.random.default_rng([seed, 7])
    if noise_m:
        z = z + rng.normal(0.0, noise_m, z.shape)
    if holes:
        blocks = rng.random((rows // 6 + 1, cols // 6 + 1)) < holes
        z = np.where(np.kron(blocks, np.ones((6, 6), bool))[:rows, :cols], np.nan, z)
    return z.astype(np.float32)


def near_edge(xmin, ymin, cols, rows, gsd, reach_m=1.5, jump_m=1.5):
    """Cells within reach of a jump of the true surface."""
    pad = int(np.ceil(reach_m / gsd))
    z = raster(xmin - pad * gsd, ymin - pad * gsd, cols + 2 * pad, rows + 2 * pad, gsd)
    lo, hi = z.copy(), z.copy()
    for axis in (0, 1):
        shifts = [np.roll(lo, k, axis) for k in range(-pad, pad + 1)]
        lo = np.min(shifts, axis=0)
        hi = np.max([np.roll(hi, k, axis) for k in range(-pad, pad + 1)], axis=0)
    return (hi - lo > jump_m + 2.5 * reach_m)[pad : pad + rows, pad : pad + cols]
