"""Errors of a height model against reference heights, streamed block by block.

Median and NMAD come from a histogram of 1 mm bins, so memory stays the same whatever the size of the city.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cityweave.codes import MEASURED, PREDICTED

# Values of the source layer: this cell's height was matched, or predicted from a picture; else it was filled.
_BIN_M = 0.001
_RANGE_M = 60.0  # errors beyond are counted at the end of the histogram; sums stay exact
_MAD_TO_SIGMA = 1.4826


@dataclass
class HeightErrors:
    """Running figures of (ours - reference). Feed blocks in a fixed order: sums are order-dependent in the last bit."""

    cells: int = 0  # with a reference height
    compared: int = 0  # with a height of ours too
    measured: int = 0
    complete: int = 0  # measured and within 1 m
    predicted: int = 0
    predicted_abs_sum: float = 0.0
    within_1m: int = 0
    abs_sum: float = 0.0
    square_sum: float = 0.0
    building_cells: int = 0
    building_abs_sum: float = 0.0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * round(_RANGE_M / _BIN_M) + 1, np.int64))

    def add(
        self,
        ours: NDArray[np.floating],
        reference: NDArray[np.floating],
        source: NDArray[np.uint8] | None,
        building: NDArray[np.bool_] | None,
    ) -> NDArray[np.float32]:
        """Count one block; the error is returned, NaN where it is unknown."""
        error = (ours.astype(np.float64) - reference.astype(np.float64)).astype(np.float64)
        known = np.isfinite(reference)
        both = known & np.isfinite(error)
        values = error[both]
        self.cells += int(known.sum())
        self.compared += values.size
        self.abs_sum += float(np.abs(values).sum())
        self.square_sum += float((values * values).sum())
        near = both & (np.abs(error) <= 1.0)
        self.within_1m += int(near.sum())
        if source is not None:
            matched = both & (source == MEASURED)
            self.measured += int(matched.sum())
            self.complete += int((matched & near).sum())
            said = both & (source == PREDICTED)
            self.predicted += int(said.sum())
            self.predicted_abs_sum += float(np.abs(error[said]).sum())
        if building is not None:
            roofs = both & building
            self.building_cells += int(roofs.sum())
            self.building_abs_sum += float(np.abs(error[roofs]).sum())
        middle = self.histogram.size // 2
        bins = np.clip(np.rint(values / _BIN_M), -middle, middle).astype(np.int64) + middle
        self.histogram += np.bincount(bins, minlength=self.histogram.size)
        return error.astype(np.float32)

    def _median(self, histogram: NDArray[np.int64]) -> int:
        """Bin of the median; the lower of the two middle ones for an even count."""
        return int(np.searchsorted(np.cumsum(histogram), (histogram.sum() + 1) // 2))

    def figures(self, has_source: bool, has_buildings: bool) -> tuple[dict[str, float | None], dict[str, str]]:
        """The figures, and for each null one the reason."""
        names = ("mae_m", "rmse_m", "median_m", "nmad_m", "within_1m")
        out: dict[str, float | None] = dict.fromkeys(names)
        reasons: dict[str, str] = {}
        if self.compared:
            middle = self.histogram.size // 2
            median = self._median(self.histogram)
            distance = np.abs(np.arange(self.histogram.size) - median)
            deviation = self._median(np.bincount(distance, weights=self.histogram).astype(np.int64))
            out |= {
                "mae_m": self.abs_sum / self.compared,
                "rmse_m": float(np.sqrt(self.square_sum / self.compared)),
                "median_m": (median - middle) * _BIN_M,
                "nmad_m": _MAD_TO_SIGMA * deviation * _BIN_M,
                "within_1m": self.within_1m / self.compared,
            }
        else:
            reasons |= dict.fromkeys(names, "no cell has both a height and a reference height")
        counts = {
            "completeness": self.complete,
            "measured_share": self.measured,
            "predicted_share": self.predicted,
        }
        for name, count in counts.items():
            out[name] = count / self.cells if self.cells and has_source else None
            if out[name] is None:
                reasons[name] = "no cell has a reference height" if has_source else "the source layer is not there"
        out["predicted_mae_m"] = self.predicted_abs_sum / self.predicted if self.predicted else None
        if not self.predicted:
            reasons["predicted_mae_m"] = "no height was predicted"
        out["building_mae_m"] = self.building_abs_sum / self.building_cells if self.building_cells else None
        if not self.building_cells:
            reasons["building_mae_m"] = (
                "no building cell has a height" if has_buildings else "the reference has no building mask"
            )
        return out, reasons
