"""How bright each view is against one of them, and how its numbers become 8-bit colours.

A linear normalisation per view and band: equal mean and spread over the ground that both see, taken on a coarse
lattice of the city's CRS, so that it is one answer for the city and not one per tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cityweave.cameras import RPC
from cityweave.grid import Box, CellGrid
from cityweave.survey.inventory import Decimated, Place

MOST_SAMPLES = 400_000
FEWEST_SAMPLES = 200  # common to a view and the reference; below, each view's own statistics are compared
FULL_8BIT = 255.0


def sample_grid(box: Box, gsd_m: float) -> CellGrid:
    """Cells of the city to compare views on: `gsd_m`, or a whole multiple of it when the city is large."""
    times = max(1, math.ceil(math.sqrt(box.width * box.height / MOST_SAMPLES) / gsd_m))
    return CellGrid.covering(box, gsd_m * times)


def sample_view(small: Decimated, rpc: RPC, place: Place, grid: CellGrid, heights_m: np.ndarray) -> np.ndarray:
    """(band, cell) values of a view at the ground of each cell, NaN where it sees nothing."""
    x, y = np.meshgrid(grid.x_centres, grid.y_centres)
    z = np.where(np.isfinite(heights_m), heights_m, place.middle_height_m)
    u, v = rpc.project(*place.to_geodetic(x.ravel(), y.ravel(), z.ravel().astype(np.float64)))
    col = np.floor(u / small.step[0]).astype(np.int64)
    row = np.floor(v / small.step[1]).astype(np.int64)
    rows, cols = small.values.shape[1:]
    inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
    out = np.full((len(small.values), x.size), np.nan, np.float32)
    out[:, inside] = small.values[:, row[inside], col[inside]]
    return out


def reference_view(views: list[dict[str, Any]]) -> str:
    """The view that looks down most steeply."""
    return min(views, key=lambda view: (view["off_nadir_deg"], view["name"]))["name"]


def normalisations(samples: Mapping[str, np.ndarray], reference: str) -> dict[str, dict[str, list[float]]]:
    """Per view `gain` and `offset` per band: gain * DN + offset is what the reference view would have counted.

    A view with another number of bands than the reference is compared by the mean of its bands.
    """
    out = {}
    for name, own in samples.items():
        wanted = samples[reference]
        if len(wanted) != len(own):
            wanted = np.repeat(wanted.mean(axis=0, keepdims=True), len(own), axis=0)
        pairs = [_match(a, b) for a, b in zip(own, wanted, strict=True)]
        out[name] = {"gain": [gain for gain, _ in pairs], "offset": [offset for _, offset in pairs]}
    return out


def _match(own: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    if own is wanted:
        return 1.0, 0.0
    a, b = own.astype(np.float64), wanted.astype(np.float64)
    common = np.isfinite(a) & np.isfinite(b)
    if common.sum() >= FEWEST_SAMPLES:
        a, b = a[common], b[common]
    else:
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(a.size, b.size) < 2 or a.std() == 0:
        return 1.0, 0.0
    gain = b.std() / a.std()
    return _rounded(gain), _rounded(b.mean() - gain * a.mean())


def display_range(view: Mapping[str, Any], values: np.ndarray) -> dict[str, list[float]]:
    """`low` and `high` per band that become 0 and 255, in the counts of the reference view.

    What the file says itself holds; an 8-bit image stays as it is. Otherwise 0.5 % at each end are clipped, with one
    range for all bands so that grey stays grey.
    """
    bands = int(view["bands"])
    if "display_range" in view:
        low, high = view["display_range"]
        return {"low": [low] * bands, "high": [high] * bands}
    if view["dtype"] == "uint8":
        return {"low": [0.0] * bands, "high": [FULL_8BIT] * bands}
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, [0.5, 99.5]) if seen.size else (0.0, 1.0)
    return {"low": [_rounded(low)] * bands, "high": [_rounded(max(high, low + 1))] * bands}


def _rounded(value: float) -> float:
    return float(f"{float(value):.6g}")
