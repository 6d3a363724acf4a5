"""How bright each view is against one of them, and how its numbers become 8-bit colours.

A linear normalisation per view and band from the ground that both see, taken on a coarse lattice of the city's CRS, so
that it is one answer for the city and not one per tile. Roofs lean apart and walls show another side, so the fit is
robust: equal mean and spread over all samples is off by a tenth of the brightness where the robust line is off by 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.cameras import RPC
from cityweave.grid import Box, CellGrid
from cityweave.io.raster import picture_bands, read_as_float
from cityweave.io.satellite import Crop, read_excluded
from cityweave.survey.inventory import Place

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MOST_SAMPLES = 400_000
FEWEST_SAMPLES = 200  # common to a view and the reference; below, each view's own statistics are compared
FULL_8BIT = 255.0
STRIP_ROWS = 512
ROUNDS, TUKEY, TIGHT_DN = 20, 2.5, 1e-6


def sample_grid(box: Box, gsd_m: float) -> CellGrid:
    """Cells of the city to compare views on: `gsd_m`, or a whole multiple of it when the city is large."""
    times = max(1, math.ceil(math.sqrt(box.width * box.height / MOST_SAMPLES) / gsd_m))
    return CellGrid.covering(box, gsd_m * times)


def sample_view(
    dataset: DatasetReader, rpc: RPC, place: Place, grid: CellGrid, heights_m: np.ndarray, mask: Path | None = None
) -> np.ndarray:
    """(band, cell) float32 of the pixel that shows the ground of each cell's middle, NaN where there is none.

    Nor where the user's `mask` says not to use it.

    Single pixels at full resolution, read strip by strip: means over larger ones mix ground with what stands on it.
    """
    from rasterio.windows import Window

    x, y = np.meshgrid(grid.x_centres, grid.y_centres)
    z = np.where(np.isfinite(heights_m), heights_m, place.middle_height_m)
    u, v = rpc.project(*place.to_geodetic(x.ravel(), y.ravel(), z.ravel().astype(np.float64)))
    bands = picture_bands(dataset)
    out = np.full((len(bands), x.size), np.nan, np.float32)
    inside = np.flatnonzero((u >= 0) & (u < dataset.width) & (v >= 0) & (v < dataset.height))
    if inside.size == 0:
        return out
    col, row = np.floor(u[inside]).astype(np.int64), np.floor(v[inside]).astype(np.int64)
    left, width = int(col.min()), int(np.ptp(col)) + 1
    for top in range(int(row.min()), int(row.max()) + 1, STRIP_ROWS):
        here = (row >= top) & (row < top + STRIP_ROWS)
        if here.any():
            window = Window(left, top, width, min(STRIP_ROWS, dataset.height - top))
            strip, _ = read_as_float(dataset, bands, window)
            if mask is not None:
                crop = Crop(left, top, width, min(STRIP_ROWS, dataset.height - top))
                strip[:, read_excluded(mask, crop, (dataset.width, dataset.height))] = np.nan
            out[:, inside[here]] = strip[:, row[here] - top, col[here] - left]
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


def unchanged(samples: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Every view as it was delivered."""
    return {name: {"gain": [1.0] * len(own), "offset": [0.0] * len(own)} for name, own in samples.items()}


def _match(own: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    if own is wanted:
        return 1.0, 0.0
    a, b = own.astype(np.float64), wanted.astype(np.float64)
    common = np.isfinite(a) & np.isfinite(b)
    if common.sum() >= FEWEST_SAMPLES:
        a, b = a[common], b[common]
    else:
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(a.size, b.size) < 2 or a.std() == 0 or b.std() == 0:
        return 1.0, 0.0
    gain = b.std() / a.std()
    line = (gain, b.mean() - gain * a.mean())
    if common.sum() >= FEWEST_SAMPLES:
        line = _robust_line(a, b, line)
    return _rounded(line[0]), _rounded(line[1])


def _robust_line(a: np.ndarray, b: np.ndarray, line: tuple[float, float]) -> tuple[float, float]:
    """b = gain a + offset of equal weighted mean and spread, weights by Tukey's biweight of a sample's distance."""
    gain, offset = line
    for _ in range(ROUNDS):
        distance = (b - gain * a - offset) / np.hypot(1.0, gain)
        scale = 1.4826 * np.median(np.abs(distance - np.median(distance)))
        if scale < TIGHT_DN:
            break
        weight = np.clip(1 - (distance / (TUKEY * scale)) ** 2, 0, None) ** 2
        total = weight.sum()
        mean_a, mean_b = (weight * a).sum() / total, (weight * b).sum() / total
        spread_a, spread_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
        if spread_a == 0 or spread_b == 0:
            return line
        gain = float(np.sqrt(spread_b / spread_a))
        offset = float(mean_b - gain * mean_a)
    return gain, offset


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
