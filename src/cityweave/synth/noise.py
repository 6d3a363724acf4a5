"""Value noise on hashed integer lattices: the same place looks the same in every view and every box."""

from __future__ import annotations

import numpy as np
from numba import njit

# seeds of the random draws of each subject; a subject added later must take a new number
CODE_LAYOUT, CODE_BLOCK, CODE_STREET, CODE_SENSOR, CODE_TERRAIN, CODE_MODEL = 101, 102, 103, 104, 105, 106
CODE_AERIAL, CODE_POINTING = 107, 108


def generator(seed: int, code: int, *ids: int) -> np.random.Generator:
    """The stream of one thing, named by its global ids (which may be negative)."""
    return np.random.default_rng([seed, code, *[i & 0xFFFFFFFF for i in ids]])


@njit(cache=True, nogil=True, inline="always")
def hash2(ix, iy, seed):  # type: ignore[no-untyped-def]
    """Two integers and a seed to a number in [0, 1)."""
    h = np.uint64(ix) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(iy) * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= np.uint64(seed) * np.uint64(0x165667B19E3779F9)
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    return float(h >> np.uint64(40)) * (1.0 / 16777216.0)


@njit(cache=True, nogil=True)
def value_noise(x, y, seed):  # type: ignore[no-untyped-def]
    """Smooth noise in [0, 1) with a lattice of 1."""
    fx, fy = np.floor(x), np.floor(y)
    ix, iy = np.int64(fx), np.int64(fy)
    tx, ty = x - fx, y - fy
    tx = tx * tx * (3.0 - 2.0 * tx)
    ty = ty * ty * (3.0 - 2.0 * ty)
    a = hash2(ix, iy, seed)
    b = hash2(ix + 1, iy, seed)
    c = hash2(ix, iy + 1, seed)
    d = hash2(ix + 1, iy + 1, seed)
    return (a + (b - a) * tx) * (1.0 - ty) + (c + (d - c) * tx) * ty
