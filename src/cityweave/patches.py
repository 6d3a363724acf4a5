"""A raster of heights cut where it jumps."""

from __future__ import annotations

import numpy as np
from numba import njit


def patches_between_jumps(surface_m: np.ndarray, jump_m: float) -> np.ndarray:
    """(rows, cols) int32 numbers, not dense, of the patches that jumps above `jump_m` cut off; NaN is a patch alone."""
    return _components(surface_m.astype(np.float32), np.float32(jump_m))  # type: ignore[no-any-return]


@njit(cache=True)
def _components(surface, jump):  # type: ignore[no-untyped-def]
    """4-connected labels where neighbours differ by at most `jump`; NaN cells are patches of one cell."""
    rows, cols = surface.shape
    parent = np.arange(rows * cols, dtype=np.int32)
    for r in range(rows):
        for c in range(cols):
            here = r * cols + c
            if c > 0 and abs(surface[r, c] - surface[r, c - 1]) <= jump:
                a, b = root(parent, here), root(parent, here - 1)
                parent[max(a, b)] = min(a, b)
            if r > 0 and abs(surface[r, c] - surface[r - 1, c]) <= jump:
                a, b = root(parent, here), root(parent, here - cols)
                parent[max(a, b)] = min(a, b)
    out = np.empty((rows, cols), np.int32)
    for r in range(rows):
        for c in range(cols):
            out[r, c] = root(parent, r * cols + c)
    return out


@njit(cache=True)
def root(parent, i):  # type: ignore[no-untyped-def]
    """Which one stands for all that `i` was joined with; paths to it get shorter."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
