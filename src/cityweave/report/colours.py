"""Colour maps of the report, as a few points between which colours are interpolated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = tuple[tuple[float, tuple[int, int, int]], ...]

# Above the ground: from pavement over roofs to towers.
ABOVE: Points = (
    (0.0, (222, 219, 210)),
    (0.08, (203, 201, 189)),
    (0.2, (152, 180, 170)),
    (0.4, (72, 141, 157)),
    (0.65, (47, 90, 143)),
    (0.85, (67, 49, 112)),
    (1.0, (46, 20, 66)),
)
ERROR: Points = (
    (0.0, (24, 72, 138)),
    (0.25, (92, 152, 199)),
    (0.45, (214, 228, 238)),
    (0.5, (247, 247, 245)),
    (0.55, (248, 224, 208)),
    (0.75, (221, 118, 84)),
    (1.0, (150, 22, 38)),
)
COUNT: Points = ((0.0, (226, 240, 234)), (0.35, (132, 196, 178)), (0.7, (43, 134, 132)), (1.0, (8, 72, 91)))
INFERRED_RGB = (236, 150, 60)
GENERATED_RGB = (150, 70, 190)
UNKNOWN_RGB = (120, 122, 126)


def look_up(values: NDArray[Any], low: float, high: float, points: Points) -> NDArray[np.uint8]:
    """Colours (..., 3) of values; NaN becomes a neutral grey."""
    share = np.clip((np.asarray(values, np.float64) - low) / (high - low), 0.0, 1.0)
    known = np.isfinite(share)
    at = [position for position, _ in points]
    channels = [np.interp(np.where(known, share, 0.0), at, [rgb[k] for _, rgb in points]) for k in range(3)]
    out = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    out[~known] = UNKNOWN_RGB
    return out  # type: ignore[no-any-return]


def css_gradient(points: Points) -> str:
    stops = ", ".join(f"rgb{rgb} {100 * position:g}%" for position, rgb in points)
    return f"linear-gradient(90deg, {stops})"
