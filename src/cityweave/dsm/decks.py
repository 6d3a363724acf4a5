"""Where another surface may lie below the one that was measured: bridges, viaducts, ramps on posts.

One height over every place is what the height model and the field hold, so what runs under a deck is lost. A deck is
told from a roof by its ends: one gets onto it from the ground without a step, yet it breaks off to both sides. An
embankment between retaining walls looks just so from above, hence "may".
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

CELL_M = 1.0
BREAK_M = 3.0  # to both sides it falls by as much ...
BREAK_CELLS = 3  # ... within so many cells
HALF_WIDTH_M = 20.0  # a side is at most so far away
SLOPE = 0.25  # steepest road
ROUGH_M = 0.25  # noise of heights within three cells
GROUND_M = 0.5  # what rises less above the terrain is ground
LEAST_GROUND_CELLS = 100  # a street or a yard, not the foot of a wall
CORRIDOR_CELLS = 3  # narrowest way up
ACROSS = ((0, 1), (1, 0), (1, 1), (1, -1))  # steps in row and column


def may_be_decks(dsm_m: np.ndarray, dtm_m: np.ndarray, gsd_m: float) -> np.ndarray:
    """Bool of the DSM's shape. What its ends are outside of is not recognised."""
    k = max(1, round(CELL_M / gsd_m))
    heights, terrain = _coarse(dsm_m, k), _coarse(dtm_m, k)
    cell_m = k * gsd_m
    way = _reached_from_ground(heights, terrain, cell_m)
    deck = np.zeros(heights.shape, bool)
    for step in ACROSS:
        far = round(HALF_WIDTH_M / cell_m / np.hypot(*step))
        one, other = (_breaks_off(heights, way, (sign * step[0], sign * step[1]), far) for sign in (1, -1))
        deck |= one & other
    fine = np.kron(deck & way, np.ones((k, k), bool))
    return fine[: dsm_m.shape[0], : dsm_m.shape[1]]


def _coarse(layer: np.ndarray, k: int) -> np.ndarray:
    rows, cols = -(-layer.shape[0] // k), -(-layer.shape[1] // k)
    padded = np.pad(layer, [(0, rows * k - layer.shape[0]), (0, cols * k - layer.shape[1])], mode="edge")
    return np.median(padded.reshape(rows, k, cols, k), axis=(1, 3))


def _reached_from_ground(heights: np.ndarray, terrain: np.ndarray, cell_m: float) -> np.ndarray:
    """Cells to which a way leads up from the ground: wide enough, nowhere steeper than a road."""
    rise = ndimage.maximum_filter(heights, 3) - ndimage.minimum_filter(heights, 3)
    smooth = rise <= 2 * SLOPE * cell_m + ROUGH_M  # false where a height is missing
    smooth = ndimage.binary_opening(smooth, np.ones((CORRIDOR_CELLS, CORRIDOR_CELLS)))
    patch, patches = ndimage.label(smooth)
    ground = np.bincount(patch.ravel(), weights=(heights - terrain < GROUND_M).ravel(), minlength=patches + 1)
    holds_ground = ground >= LEAST_GROUND_CELLS
    holds_ground[0] = False
    return holds_ground[patch]


def _breaks_off(heights: np.ndarray, way: np.ndarray, step: tuple[int, int], far: int) -> np.ndarray:
    """Cells from which one comes, going on by `step`, to an edge without leaving the way before."""
    beyond = _seen_from(heights, (step[0] * BREAK_CELLS, step[1] * BREAK_CELLS), np.nan)
    edge = heights - beyond >= BREAK_M
    found, at = edge.copy(), edge
    for _ in range(far):
        at = _seen_from(at, step, False) & (way | edge)
        found |= at
    return found


def _seen_from(layer: np.ndarray, step: tuple[int, int], outside: float | bool) -> np.ndarray:
    """At every cell the layer's value one step on."""
    out = np.full_like(layer, outside)
    (to_rows, from_rows), (to_cols, from_cols) = (
        (slice(max(0, -d), size - max(0, d)), slice(max(0, d), size - max(0, -d)))
        for d, size in zip(step, layer.shape, strict=True)
    )
    out[to_rows, to_cols] = layer[from_rows, from_cols]
    return out
