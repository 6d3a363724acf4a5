"""Where charts lie in the atlas: shelves of falling height."""

from __future__ import annotations

import numpy as np


def shelf_pack(width_n: np.ndarray, height_n: np.ndarray, atlas_width: int) -> tuple[np.ndarray, int]:
    """Top-left texel (n,2) of each rectangle, x and y, and the height used. Ties go to the lower index."""
    place = np.zeros((len(width_n), 2), np.int64)
    order = np.lexsort((np.arange(len(width_n)), -width_n, -height_n))
    widths, heights = width_n.tolist(), height_n.tolist()
    x = y = shelf = 0
    for k in order.tolist():
        if widths[k] > atlas_width:
            raise ValueError(f"a chart of {widths[k]} texels doesn't fit an atlas of {atlas_width}")
        if x + widths[k] > atlas_width:
            x, y, shelf = 0, y + shelf, 0
        place[k] = x, y
        x += widths[k]
        shelf = max(shelf, heights[k])
    return place, y + shelf
