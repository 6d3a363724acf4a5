"""From views to a height model of one tile: coarse sweep, fine sweep, visibility, confidence, filling, ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cityweave.config import DsmConfig
from cityweave.dsm.sgm import aggregate, winners
from cityweave.dsm.surface import drop_small_components, fill_holes, smooth
from cityweave.dsm.sweep import COST_PER_BIT, HeightRanges, sweep_costs
from cityweave.dsm.views import CENSUS_BITS, CensusStack, SweepView, census_stack, ortho_luminance
from cityweave.dsm.visibility import agreement, horizons
from cityweave.grid import CellGrid

NONE, MEASURED, FILLED = 0, 1, 2


@dataclass(frozen=True)
class HeightModel:
    """North-up arrays on `grid`, heights relative to the tile's z origin, NaN or 0 where nothing is known."""

    grid: CellGrid
    dsm: np.ndarray  # float32
    sigma: np.ndarray  # float32, metres
    count: np.ndarray  # uint8, views that see the cell and agree
    source: np.ndarray  # uint8: 0 none, 1 measured, 2 filled

    @property
    def measured_share(self) -> float:
        return float((self.source == MEASURED).mean())


@dataclass(frozen=True)
class _Winner:
    surface: np.ndarray  # float32 [row, col], NaN where no height was tried
    margin_bits: np.ndarray  # float32 [row, col]: by how much the runner-up is worse, bits per path


def reconstruct(
    views: Sequence[SweepView], grid: CellGrid, heights_m: tuple[float, float], config: DsmConfig
) -> HeightModel:
    """`grid` and the cameras in tile-local metres; `heights_m` the lowest and highest height that may occur."""
    first, bottom, top = _coarse(views, grid, heights_m, config)
    ranges = HeightRanges.between(grid, config.step_m, bottom, top)
    stack = census_stack(views, [config.upsample] * len(views), config.census_spacing)
    leans = stack.leans()
    penalties = (config.p1, config.p2)
    nobody = np.full((len(views), grid.rows * grid.cols), -np.inf, np.float32)
    guide = ortho_luminance(views, grid, first, nobody)
    winner = _match(stack, ranges, config.pair_share, None, penalties, (guide, config))
    # Two views have nothing to choose from: what one of them can't see stays what the smoothness made of it.
    for _ in range(config.visibility_rounds if len(views) > 2 else 0):
        horizon = horizons(_cleaned(winner.surface, len(views), config), bottom, grid.gsd_m, leans)
        horizon -= config.visibility_tolerance_m
        guide = ortho_luminance(views, grid, winner.surface, horizon)
        winner = _match(stack, ranges, config.visible_pair_share, horizon, penalties, (guide, config))
    surface = _cleaned(winner.surface, len(views), config)
    horizon = horizons(surface, bottom, grid.gsd_m, leans) - config.visibility_tolerance_m
    seen, count, bits = agreement(stack, grid, surface, horizon, config.agree_share * CENSUS_BITS)
    return _finish(grid, surface, winner.margin_bits, count, bits, config)


def _cleaned(surface: np.ndarray, views: int, config: DsmConfig) -> np.ndarray:
    """Without mismatched patches and noise; the fewer views, the noisier, the wider the window."""
    surface = drop_small_components(surface, config.component_jump_m, config.min_component_cells)
    radius = config.smooth_radius_cells + max(0, 4 - views) if config.smooth_radius_cells else 0
    return smooth(surface, radius, config.smooth_band_m)


def _match(
    stack: CensusStack, ranges: HeightRanges, share: float, horizon: np.ndarray | None, penalties, guide=None
) -> _Winner:
    cost = sweep_costs(stack, ranges, share, horizon)
    grid = ranges.grid
    unit = CENSUS_BITS * COST_PER_BIT
    quieter = np.sqrt(2 / max(stack.views, 2))  # the mean over more pairs is less noisy: jumps need less of a brake
    p1, p2 = penalties
    if guide is None:
        guide, table = np.zeros(grid.rows * grid.cols, np.uint8), np.ones(256)
    else:
        guide, config = guide
        table = np.maximum(np.exp(-np.arange(256) / config.p2_contrast), config.p2_floor)
    table = np.maximum(table * p2 * quieter, p1) * unit
    table = table.astype(np.int16)
    total = aggregate(cost, ranges.start, ranges.low, grid.rows, grid.cols, round(p1 * unit), table, guide)
    index, _, margin = winners(total, ranges.start, ranges.low, True)
    return _Winner(
        (index * ranges.step_m).astype(np.float32).reshape(grid.shape),
        (margin / (8 * COST_PER_BIT)).reshape(grid.shape),
    )


def _coarse(
    views: Sequence[SweepView], grid: CellGrid, heights_m: tuple[float, float], config: DsmConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per cell the heights worth trying, from a coarse sweep over all heights."""
    coarse = CellGrid.covering(grid.box, config.coarse_gsd_m)
    everywhere = np.ones(coarse.shape)
    ranges = HeightRanges.between(
        coarse, config.coarse_step_m, everywhere * heights_m[0], everywhere * heights_m[1]
    )
    # Pixels of half a coarse step: one step then moves the views against each other by under a pixel.
    factors = [1 / max(1, round(config.coarse_step_m / 2 / view.pixel_m())) for view in views]
    stack = census_stack(views, factors, 1)
    winner = _match(stack, ranges, config.pair_share, None, (config.p1, config.coarse_p2))
    surface = winner.surface
    reach = 2 * round(config.range_reach_m / config.coarse_gsd_m) + 1
    bottom = ndimage.minimum_filter(surface, reach) - config.range_margin_m
    top = ndimage.maximum_filter(surface, reach) + config.range_margin_m
    rows = np.floor((coarse.box.ymax - grid.y_centres) / coarse.gsd_m).astype(np.int64)
    cols = np.floor((grid.x_centres - coarse.box.xmin) / coarse.gsd_m).astype(np.int64)
    pick = np.ix_(rows, cols)
    return surface[pick], np.maximum(bottom[pick], heights_m[0]), np.minimum(top[pick], heights_m[1])


def _finish(
    grid: CellGrid, surface: np.ndarray, margin: np.ndarray, count: np.ndarray, bits: np.ndarray, config: DsmConfig
) -> HeightModel:
    measured = np.isfinite(surface) & (count >= 2) & (margin >= config.min_margin_bits)
    dsm = fill_holes(np.where(measured, surface, np.nan), config.small_hole_cells, config.component_jump_m)
    relief = ndimage.maximum_filter(dsm, 3) - ndimage.minimum_filter(dsm, 3)
    sigma = np.where(measured, 0.2 + 0.1 * relief, 1.0 + 0.5 * relief)
    known = np.isfinite(dsm)
    source = np.where(measured, MEASURED, np.where(known, FILLED, NONE)).astype(np.uint8)
    return HeightModel(
        grid, dsm, np.where(known, sigma, np.nan).astype(np.float32), np.where(measured, count, 0).astype(np.uint8), source
    )
