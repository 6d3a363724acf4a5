"""Which heights count as measured, and how wrong each may be, from what is known without truth.

What tells most is how clearly a height stands out against its runner-up, measured by what is usual in the tile, since
noise of the pictures lowers all of them; then steps of the surface nearby, and what a view shows there: beside a wall,
in its shadow, a height is right or off by the wall. A small network, trained on rendered cities (bench/fit_sigma.py),
makes one figure of it: within one sigma are to lie 68 % of the errors, within two 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.codes import MEASURED, NONE
from cityweave.cores import side_by_side
from cityweave.dsm.surface import STRIP, median_around
from cityweave.dsm.views import CENSUS_BITS

AROUND_CELLS = 5
ENOUGH_VIEWS = 4  # below this, single matches are noisy
UNCONFIRMED_TIMES = 3.0
LEAST_MARGIN_BITS = 0.5
RELIEF_CELLS = (3, 5, 9, 15)
BAND_CELLS = 1 << 16  # looked at together
WEIGHTS = "sigma.safetensors"


@dataclass(frozen=True)
class Clearness:
    """By how much each winner beats its runner-up, and what is usual among those that several views agree about."""

    margin_bits: np.ndarray
    usual_bits: float
    confirmed: np.ndarray

    @staticmethod
    def of(margin_bits: np.ndarray, count: np.ndarray) -> Clearness:
        """Single cells vary by chance: how sure a height is, is what most of the cells around say."""
        margin, confirmed = median_around(margin_bits, AROUND_CELLS), count >= 2
        usual = float(np.median(margin[confirmed])) if confirmed.any() else 0.0
        return Clearness(margin, max(usual, LEAST_MARGIN_BITS), confirmed)

    def enough(self, views: int, min_margin: float) -> np.ndarray:
        """Where the margin is large enough to call the height measured; two or three views must show more."""
        few = max(1.0, ENOUGH_VIEWS / views) ** 1.5
        needed = min_margin * few * self.usual_bits * np.where(self.confirmed, 1, UNCONFIRMED_TIMES)
        enough: np.ndarray = self.margin_bits >= np.maximum(needed, LEAST_MARGIN_BITS)
        return enough


@dataclass(frozen=True)
class Clues:
    """What is known about the heights of a tile."""

    dsm: np.ndarray
    source: np.ndarray
    clearness: Clearness
    unlike_bits: np.ndarray  # float32, mean over the pairs of views that see the cell
    luminance: np.ndarray  # uint8, of the ground as the views show it
    views: int
    parallax_m: float  # metres up that move a point by a pixel
    gsd_m: float

    def features(self) -> Features:
        measured = self.source == MEASURED
        hole = ndimage.distance_transform_edt(~measured) if measured.any() else np.full(self.dsm.shape, np.inf)
        unlike = median_around(self.unlike_bits, AROUND_CELLS)
        confirmed = unlike[self.clearness.confirmed]
        usual = float(np.median(confirmed)) if confirmed.size else CENSUS_BITS / 2
        above = self.dsm - median_around(self.dsm, AROUND_CELLS)
        return Features(self, (hole * self.gsd_m).astype(np.float32), unlike / np.float32(max(usual, 1.0)), above)


@dataclass(frozen=True)
class Features:
    """What the network reads, row by row, so that a large tile needs no more memory than a few of its rows."""

    clues: Clues
    hole_m: np.ndarray  # to the next measured cell
    unlike: np.ndarray  # against what is usual
    above_m: np.ndarray  # what is usual around

    def of_rows(self, first: int, end: int) -> np.ndarray:
        """(features, cells) float32 of the rows from `first` to before `end`."""
        clues, reach = self.clues, max(RELIEF_CELLS) // 2
        low, high = max(0, first - reach), min(len(clues.dsm), end + reach)
        inside = slice(first - low, end - low)
        dsm, measured = clues.dsm[low:high], clues.source[low:high] == MEASURED
        clearness = clues.clearness.margin_bits[low:high] / np.float32(clues.clearness.usual_bits)
        own = clearness[inside]
        columns = [np.minimum(own, 3), np.log(own + np.float32(0.05))]
        for size in RELIEF_CELLS:
            for other in (ndimage.minimum_filter(dsm, size), ndimage.maximum_filter(dsm, size)):
                columns.append(np.log(np.abs(other - dsm)[inside] + np.float32(0.05)))
        columns += [
            np.clip(self.above_m[first:end], -3, 3),
            np.sqrt(np.minimum(self.hole_m[first:end], 20)),
            measured[inside],
            ndimage.uniform_filter(measured.astype(np.float32), 9)[inside],
            np.minimum(ndimage.minimum_filter(clearness, AROUND_CELLS)[inside], 3),
            self.unlike[first:end],
            clues.luminance[first:end] / np.float32(64),
        ]
        of_tile = (np.log2(clues.views), clues.parallax_m, np.log(clues.clearness.usual_bits))
        columns += [np.full(own.shape, value) for value in of_tile]
        return np.stack([column.ravel() for column in columns]).astype(np.float32)


@cache
def _network() -> tuple[np.ndarray, ...]:
    """Weights and biases of three layers; the last gives the natural logarithm of sigma in metres."""
    from safetensors.numpy import load

    found = load(resources.files("cityweave.dsm").joinpath(WEIGHTS).read_bytes())
    return tuple(np.ascontiguousarray(found[f"{part}{layer}"]) for layer in range(3) for part in ("weight", "bias"))


def sigma_m(clues: Clues) -> np.ndarray:
    """Standard deviation of the heights, NaN where there is none."""
    features, network = clues.features(), _network()
    rows, cols = clues.dsm.shape
    out = np.empty((rows, cols), np.float32)

    band = max(BAND_CELLS // cols, 1)

    def fill(first: int) -> None:
        end = min(first + band, rows)
        _evaluate(features.of_rows(first, end), network, out[first:end].reshape(-1))

    side_by_side(fill, range(0, rows, band))
    return np.where(clues.source == NONE, np.nan, out).astype(np.float32)


@njit(cache=True, nogil=True)
def _evaluate(features, network, out):  # type: ignore[no-untyped-def]
    """Strips of cells at once, so that the inner loops run over neighbours in memory and stay in the nearest cache."""
    weight0, bias0, weight1, bias1, weight2, bias2 = network
    values = np.empty((len(features), STRIP), np.float32)
    first, second = np.empty((len(bias0), STRIP), np.float32), np.empty((len(bias1), STRIP), np.float32)
    for begin in range(0, len(out), STRIP):
        width = min(STRIP, len(out) - begin)
        values[:, :width] = features[:, begin : begin + width]
        _layer(values, weight0, bias0, first)
        _layer(first, weight1, bias1, second)
        for cell in range(width):
            total = bias2[0]
            for k in range(len(second)):
                total += second[k, cell] * weight2[k, 0]
            out[begin + cell] = np.exp(total)


@njit(cache=True, nogil=True)
def _layer(values, weight, bias, out):  # type: ignore[no-untyped-def]
    """Rectified."""
    for k in range(len(out)):
        row = out[k]
        row[:] = bias[k]
        for i in range(len(values)):
            factor, column = weight[i, k], values[i]
            for cell in range(STRIP):
                row[cell] += factor * column[cell]
        for cell in range(STRIP):
            row[cell] = max(row[cell], np.float32(0))
