"""Chimneys that aren't there: where one of two views sees no ground, what matches by chance stands up like a needle."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cityweave.patches import patches_between_jumps

AROUND_CELLS = 6
LEAST_RISE_M = 8.0
SLENDER = 8.0  # square of the rise over the area, from which a patch needs to match well
TIMES = 2.2  # what is usual, to differ by; the fourth root of the slenderness less


def needles(
    dsm_m: np.ndarray, measured: np.ndarray, unlike_bits: np.ndarray, usual_bits: float, jump_m: float, gsd_m: float
) -> np.ndarray:
    """Bool: measured patches cut off by jumps, slender, and less alike in the two views than what is usual.

    True towers match well, however slender; among the others in 23 rendered pairs four of five cells were wrong.
    """
    patch = patches_between_jumps(np.where(measured, dsm_m, np.nan), jump_m)
    patch[~measured] = 0
    sizes = np.bincount(patch.ravel())
    tallest = float(np.nanmax(dsm_m) - np.nanmin(dsm_m)) if measured.any() else 0.0
    small = np.flatnonzero((sizes > 0) & (sizes * gsd_m**2 * SLENDER <= tallest**2))
    number = np.zeros(len(sizes), np.int32)
    number[small[small > 0]] = np.arange(1, np.count_nonzero(small > 0) + 1)
    label = number[patch]
    found = np.zeros(dsm_m.shape, bool)
    for k, box in enumerate(ndimage.find_objects(label), start=1):
        if box is None:
            continue
        around = tuple(slice(max(0, part.start - AROUND_CELLS), part.stop + AROUND_CELLS) for part in box)
        inside = label[around] == k
        ring = ndimage.binary_dilation(inside, iterations=AROUND_CELLS) & ~inside
        rise = float(np.median(dsm_m[around][inside]) - np.median(dsm_m[around][ring])) if ring.any() else 0.0
        slenderness = rise**2 / (inside.sum() * gsd_m**2)
        if rise < LEAST_RISE_M or slenderness < SLENDER:
            continue
        unlike = float(np.median(unlike_bits[around][inside])) / usual_bits
        found[around] |= inside & (unlike * (slenderness / SLENDER) ** 0.25 > TIMES)
    return found
