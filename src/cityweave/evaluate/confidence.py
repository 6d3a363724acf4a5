"""Does the height model know how wrong it is? Coverage of one and two sigma per decile of sigma, and sparsification.

Streamed: cells are counted in fine bins of sigma and of error, so memory stays the same whatever the size of the city.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOMINAL = (0.6827, 0.9545)  # of a normal distribution within one and two standard deviations
DECILES = 10
_LOWEST_M, _HIGHEST_M, _PER_DECADE = 1e-3, 1e3, 400  # a bin is 0.6 % wide
_BINS = round(np.log10(_HIGHEST_M / _LOWEST_M) * _PER_DECADE)


def _counts(dtype: type) -> NDArray[Any]:
    return np.zeros(_BINS, dtype)


def _bin_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    decades = np.log10(np.clip(values, _LOWEST_M, _HIGHEST_M) / _LOWEST_M)
    return np.minimum((decades * _PER_DECADE).astype(np.int64), _BINS - 1)


@dataclass
class Confidence:
    """Running counts by bin of sigma; `by_error` counts the same cells by bin of their error."""

    cells: NDArray[np.int64] = field(default_factory=lambda: _counts(np.int64))
    within: tuple[NDArray[np.int64], NDArray[np.int64]] = field(
        default_factory=lambda: (_counts(np.int64), _counts(np.int64))
    )
    error_sum: NDArray[np.float64] = field(default_factory=lambda: _counts(np.float64))
    by_error: NDArray[np.int64] = field(default_factory=lambda: _counts(np.int64))
    error_sum_by_error: NDArray[np.float64] = field(default_factory=lambda: _counts(np.float64))

    def add(self, error: NDArray[np.floating], sigma: NDArray[np.floating]) -> None:
        both = np.isfinite(error) & np.isfinite(sigma)
        size, spread = np.abs(error[both]).astype(np.float64), sigma[both].astype(np.float64)
        bins = _bin_of(spread)
        self.cells += np.bincount(bins, minlength=_BINS)
        self.error_sum += np.bincount(bins, weights=size, minlength=_BINS)
        for times, counts in enumerate(self.within, start=1):
            counts += np.bincount(bins[size <= times * spread], minlength=_BINS)
        errors = _bin_of(size)
        self.by_error += np.bincount(errors, minlength=_BINS)
        self.error_sum_by_error += np.bincount(errors, weights=size, minlength=_BINS)

    def figures(self) -> dict[str, Any] | None:
        """Per decile of sigma its middle and both coverages; the largest distance from nominal, in shares of one.

        Sparsification: mean error of what is left when the most uncertain 0, 10 .. 90 % of the cells are taken away,
        and when the truly worst are; `ause` is the mean of the difference over the mean error of all.
        """
        total = int(self.cells.sum())
        if total == 0:
            return None
        one, two = (_per_decile(counts, self.cells) for counts in self.within)
        left = _mean_of_least(self.error_sum, self.cells)
        best = _mean_of_least(self.error_sum_by_error, self.by_error)
        gap = max(float(np.abs(found - nominal).max()) for found, nominal in zip((one, two), NOMINAL, strict=True))
        return {
            "decile_sigma_m": [round(float(value), 4) for value in _middles(self.cells)],
            "coverage_1": [round(float(value), 4) for value in one],
            "coverage_2": [round(float(value), 4) for value in two],
            "coverage_gap": gap,
            "sparsification_mae_m": [round(float(value), 5) for value in left],
            "sparsification_best_mae_m": [round(float(value), 5) for value in best],
            "ause": float((left - best).mean() / left[0]) if left[0] > 0 else 0.0,
        }


def _share_of_decile(cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """(deciles, bins): how many cells of a bin lie in a decile; a bin on the border belongs to both by share."""
    ends = np.concatenate([[0.0], np.cumsum(cells, dtype=np.float64)])
    limits = ends[-1] * np.arange(DECILES + 1) / DECILES
    low = np.maximum(ends[None, :-1], limits[:-1, None])
    high = np.minimum(ends[None, 1:], limits[1:, None])
    share: NDArray[np.float64] = np.maximum(high - low, 0.0)
    return share


def _per_decile(counts: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.float64]:
    share = _share_of_decile(cells)
    of_bin = counts / np.maximum(cells, 1)
    found: NDArray[np.float64] = share @ of_bin / share.sum(axis=1)
    return found


def _middles(cells: NDArray[np.int64]) -> NDArray[np.float64]:
    centres = _LOWEST_M * 10 ** ((np.arange(_BINS) + 0.5) / _PER_DECADE)
    share = _share_of_decile(cells)
    middles: NDArray[np.float64] = share @ centres / share.sum(axis=1)
    return middles


def _mean_of_least(sums: NDArray[np.float64], cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean error of the least 100, 90 .. 10 % of the cells."""
    share = _share_of_decile(cells)
    per_decile = share @ (sums / np.maximum(cells, 1))
    upto = np.arange(DECILES, 0, -1)
    means: NDArray[np.float64] = np.cumsum(per_decile)[upto - 1] / np.cumsum(share.sum(axis=1))[upto - 1]
    return means
