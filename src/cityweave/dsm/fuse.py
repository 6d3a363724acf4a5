"""Predicted heights laid beside measured ones, and one height model of both.

A prediction may be too high or too low by a share that changes slowly over the city, and lie beside where its roofs
stand. Where stereo is sure, it says by how much: a factor, an offset and a lean at the nodes of a lattice of the whole
plane, smooth in between. Each node looks at the same ground whichever tile asks, so tiles agree at their borders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityweave.codes import MEASURED, PREDICTED
from cityweave.config import DsmConfig
from cityweave.dsm.lean import leans, moved
from cityweave.dsm.nodes import Nodes
from cityweave.grid import Box, CellGrid
from cityweave.io.predictions import read_predictions
from cityweave.io.resample import known_mean
from cityweave.lattice import counting

_STANDS_M = 2.0  # what is lower, measured and predicted, tells of the offset; the rest of the factor
_FACTOR_PRIOR_M2 = 40_000.0  # as if 100 cells of 20 m had said 1
_OFFSET_PRIOR = 400.0  # as if so many cells had said 0


@dataclass(frozen=True)
class Predicted:
    metres: np.ndarray  # (y, x) above ground, NaN where no picture was
    sigma: np.ndarray


def blended(stores: Iterable[Path], grid: CellGrid) -> Predicted:
    """Windows over the grid, each as much as it counts there; what they differ by is added to their sigma."""
    windows = {each.window: each for path in stores for each in read_predictions(path)}
    mass, mean, square = (np.zeros(grid.shape, np.float32) for _ in range(3))
    for window in sorted(windows):
        own, metres, sigma = window.grid, windows[window].metres, windows[window].sigma
        if not own.box.intersects(grid.box):
            continue
        known = np.isfinite(metres)
        weight = counting(known)
        if own.gsd_m == grid.gsd_m:
            both = own.overlap(grid)
            assert both is not None  # their boxes intersect
            here, there = grid.window_of(both), own.window_of(both)
            values, spread, weight = metres[there], sigma[there], weight[there]
        else:
            here = (slice(None), slice(None))
            (values, spread), share = known_mean(np.stack([metres, sigma]), known, own, grid)
            weight = known_mean(weight[None], known, own, grid)[0][0] * (share > 0.5)
        values, spread = (np.where(weight > 0, each, 0) for each in (values, spread))
        mass[here] += weight
        mean[here] += weight * values
        square[here] += weight * (spread**2 + values**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean /= mass
        variance = square / mass - mean**2
    return Predicted(np.maximum(mean, 0), np.sqrt(np.maximum(variance, 1e-4)))


def mosaic(parts: Mapping[tuple[Box, CellGrid], Mapping[str, np.ndarray]], grid: CellGrid) -> dict[str, np.ndarray]:
    """Layers of several tiles on one grid: halos first, then cores, so that every cell is its owner's if it has one."""
    out: dict[str, np.ndarray] = {}
    for name, like in next(iter(parts.values()), {}).items():
        out[name] = np.full(grid.shape, np.nan if like.dtype.kind == "f" else 0, like.dtype)
    for whole in (True, False):
        for (core, own), layers in parts.items():
            wanted = own if whole else CellGrid.covering(core, own.gsd_m)
            both = wanted.overlap(grid)
            if both is not None:
                for name, layer in layers.items():
                    out[name][grid.window_of(both)] = layer[own.window_of(both)]
    return out


def aligned(
    predicted: Predicted, layers: Mapping[str, np.ndarray], grid: CellGrid, config: DsmConfig, highest_m: float
) -> Predicted:
    """The prediction as sure measurements around every cell ask for: by a factor and an offset, and moved to where they
    say that roofs are; NaN where a roof hid the ground. What is higher than `highest_m` moves as if it weren't."""
    measured = layers["dsm"] - layers["dtm"]
    sure = (layers["source"] == MEASURED) & (layers["sigma"] <= config.trust_m)
    sure &= np.isfinite(measured) & np.isfinite(predicted.metres)
    nodes = Nodes.of(grid, config.align_m)
    scaled = _scaled(predicted, measured, sure, grid, nodes)
    heights = np.minimum(predicted.metres, highest_m).astype(np.float32)
    source = moved(heights, *leans(heights, measured, sure, grid, nodes, config.most_lean), grid.gsd_m)
    metres, sigma = (np.where(source >= 0, each.ravel()[source], np.float32(np.nan)) for each in vars(scaled).values())
    return Predicted(metres, sigma)


def _scaled(predicted: Predicted, measured: np.ndarray, sure: np.ndarray, grid: CellGrid, nodes: Nodes) -> Predicted:
    p, m = (np.where(sure, each, 0).astype(np.float64) for each in (predicted.metres, measured))
    stands = sure & ((p > _STANDS_M) | (m > _STANDS_M))
    # A roof that is missed, or one of them a tree, says nothing about the scale.
    stands &= (p < 4 * m) & (m < 4 * p)
    flat = sure & (p <= _STANDS_M) & (m <= _STANDS_M)
    sums = [nodes.sums(each, grid) for each in (stands * p * m, stands * p * p, flat * (m - p), flat * 1.0)]
    factor = (sums[0] + _FACTOR_PRIOR_M2) / (sums[1] + _FACTOR_PRIOR_M2)
    offset = sums[2] / (sums[3] + _OFFSET_PRIOR)
    factors, offsets = (nodes.between(each, grid) for each in (factor, offset))
    metres = np.maximum(predicted.metres * factors + offsets, 0)
    return Predicted(metres.astype(np.float32), (predicted.sigma * factors).astype(np.float32))


def fused(layers: Mapping[str, np.ndarray], predicted: Predicted) -> dict[str, np.ndarray]:
    """What was measured stays, what was filled is predicted.

    Which of both says the smaller sigma is no guide: on a city that isn't scored, a measurement with a large one is
    twice as good as the prediction, and of the holes the prediction is better in all. There the network is too sure of
    itself, by three times where it is surest, and what stereo expects of a filled cell is too much for a predicted one:
    sigma is halfway between both, in logarithms.
    """
    better = (layers["source"] != MEASURED) & np.isfinite(predicted.metres)
    return {
        **layers,
        "dsm": np.where(better, layers["dtm"] + predicted.metres, layers["dsm"]).astype(np.float32),
        "sigma": np.where(better, np.sqrt(predicted.sigma * layers["sigma"]), layers["sigma"]).astype(np.float32),
        "source": np.where(better, PREDICTED, layers["source"]).astype(layers["source"].dtype),
    }
