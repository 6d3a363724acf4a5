"""From views to a height model of one tile: coarse sweep, fine sweeps with ever better visibility, confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cityweave.codes import FILLED, MEASURED, NONE
from cityweave.config import DsmConfig
from cityweave.dsm.blocks import Block, blocks_of, cropped, pixel_window, window_size
from cityweave.dsm.confidence import AROUND_CELLS, ENOUGH_VIEWS, Clearness, Clues, sigma_m
from cityweave.dsm.hiding import OCCLUDER_BITS, Surroundings, hiding, seen_down_to_the_ground, shown
from cityweave.dsm.holes import fill_holes
from cityweave.dsm.sgm import aggregate, winners
from cityweave.dsm.slender import needles
from cityweave.dsm.surface import drop_small_components, median_around, smooth, without_islands
from cityweave.dsm.sweep import COST_PER_BIT, HeightRanges, sweep_costs
from cityweave.dsm.views import CENSUS_BITS, CensusStack, SweepView, census_stack, leans_of, ortho_luminance
from cityweave.dsm.visibility import Agreement, agreement, horizons
from cityweave.grid import CellGrid

COST_UNIT = CENSUS_BITS * COST_PER_BIT
COARSE_PATCH_CELLS, COARSE_MARGIN_BITS = 20, 3.0  # what the coarse sweep finds counts from either of them on
UNSEEN_TIMES, UNSEEN_REACH_M, LEAST_ALIKE = 1.1, 12.0, 0.05


@dataclass(frozen=True)
class HeightModel:
    """North-up arrays on `grid`, heights relative to the tile's z origin, NaN or 0 where nothing is known."""

    grid: CellGrid
    dsm: np.ndarray  # float32
    sigma: np.ndarray  # float32, metres
    count: np.ndarray  # uint8, views that see the cell and agree
    source: np.ndarray  # uint8: 0 none, 1 measured, 2 filled
    clues: Clues  # what sigma is told from

    @property
    def measured_share(self) -> float:
        return float((self.source == MEASURED).mean())


@dataclass(frozen=True)
class _Winner:
    surface: np.ndarray  # float32 [row, col], NaN where no height was tried
    margin_bits: np.ndarray  # float32 [row, col]: by how much the runner-up is worse, bits per path


@dataclass(frozen=True)
class _Found:
    """What the fine sweep says about every cell."""

    surface: np.ndarray  # float32
    margin_bits: np.ndarray  # float32
    count: np.ndarray  # uint8, views that see the cell and agree
    unlike_bits: np.ndarray  # float32, mean over the pairs of views that see it
    luminance: np.ndarray  # uint8

    @staticmethod
    def nothing(shape: tuple[int, int]) -> _Found:
        none = np.zeros(shape, np.uint8)
        surface, unlike = (np.full(shape, value, np.float32) for value in (np.nan, CENSUS_BITS / 2))
        return _Found(surface, none.astype(np.float32), none, unlike, np.full(shape, 128, np.uint8))

    def put(self, part: _Found, block: Block) -> None:
        kept, core = (block.kept_rows, block.kept_cols), block.core()
        for whole, layer in zip(vars(self).values(), vars(part).values(), strict=True):
            whole[kept] = layer[core]


@dataclass(frozen=True)
class _Bounds:
    """What the coarse sweep hands down, per cell of the fine grid."""

    surface: np.ndarray
    bottom: np.ndarray
    top: np.ndarray
    hiding: np.ndarray  # the surface where it surely hides what is behind it, NaN elsewhere

    def of(self, part: Callable[[np.ndarray], np.ndarray]) -> _Bounds:
        return _Bounds(part(self.surface), part(self.bottom), part(self.top), part(self.hiding))


def reconstruct(
    views: Sequence[SweepView],
    grid: CellGrid,
    heights_m: tuple[float, float],
    config: DsmConfig,
    around: CellGrid | None = None,
) -> HeightModel:
    """`grid` and the cameras in tile-local metres; `heights_m` the lowest and highest height that may occur.

    What stands on the wider grid `around` may hide ground of `grid`; a coarse surface of it is enough.
    """
    around = around or grid
    window = around.window_of(grid)
    wide = _coarse(views, around, heights_m, config)
    bounds = wide.of(lambda layer: layer[window])
    found = _Found.nothing(grid.shape)
    factors = [float(config.upsample)] * len(views)
    halo_cells = round(config.matching_halo_m / grid.gsd_m)
    for block in blocks_of(
        views, factors, grid, bounds.bottom, bounds.top, config.step_m, halo_cells, config.memory_mb
    ):
        found.put(
            _fine(views, block.grid(grid), bounds.of(block.of), Surroundings.of(wide.hiding, window, block), config),
            block,
        )

    count = np.maximum(found.count, median_around(found.count, AROUND_CELLS))
    clearness = Clearness.of(found.margin_bits, count)
    clear = np.isfinite(found.surface) & clearness.enough(len(views), config.min_margin)
    measured = without_islands(clear, config.min_component_cells)
    dsm = fill_holes(np.where(measured, found.surface, np.nan), config.small_hole_cells, config.component_jump_m)
    if len(views) == 2 and count.max() >= 2:  # a third view would contradict
        usual_bits = max(float(np.median(found.unlike_bits[count >= 2])), 1.0)
        wrong = needles(dsm, measured, found.unlike_bits, usual_bits, config.component_jump_m, grid.gsd_m)
        if wrong.any():
            measured &= ~wrong
            surface = np.where(measured, found.surface, np.nan)
            dsm = fill_holes(surface, config.small_hole_cells, config.component_jump_m)
    source = np.where(measured, MEASURED, np.where(np.isfinite(dsm), FILLED, NONE)).astype(np.uint8)
    parallax_m = _pixel_of_parallax_m(views, leans_of(views))
    clues = Clues(dsm, source, clearness, found.unlike_bits, found.luminance, len(views), parallax_m, grid.gsd_m)
    return HeightModel(grid, dsm, sigma_m(clues), np.where(measured, count, 0).astype(np.uint8), source, clues)


def _fine(
    views: Sequence[SweepView], grid: CellGrid, bounds: _Bounds, around: Surroundings, config: DsmConfig
) -> _Found:
    """Heights between the bounds; the surface found so far tells who sees what."""
    views = _showing(views, grid, bounds.bottom, bounds.top)
    if len(views) < 2:
        return _Found.nothing(grid.shape)
    ranges = HeightRanges.between(grid, config.step_m, bounds.bottom, bounds.top)
    spacing = config.census_spacing * (1 if len(views) >= ENOUGH_VIEWS else 2)
    stack = census_stack(views, [config.upsample] * len(views), spacing)
    leans = leans_of(views)
    outer = around.horizons(bounds.bottom, grid.gsd_m, leans)
    reach = round(UNSEEN_REACH_M / grid.gsd_m)

    def horizon_of(surface: np.ndarray) -> np.ndarray:
        inner = horizons(surface, bounds.bottom, grid.gsd_m, leans)
        return np.maximum(inner, outer) - np.float32(config.visibility_tolerance_m)

    horizon = np.full((len(views), grid.rows * grid.cols), -np.inf, np.float32)
    guide = ortho_luminance(views, grid, bounds.surface, horizon)
    winner = _match(stack, ranges, config, config.pair_share, None, guide)
    # Two views have nothing to choose from: what one of them can't see stays what the smoothness made of it.
    for _ in range(config.visibility_rounds if len(views) > 2 else 0):
        surface = _cleaned(winner.surface, views, leans, config)
        # A roof that grew over the ground beside it would hide that ground for ever: views must confirm what hides.
        told = agreement(stack, grid, surface, horizon, OCCLUDER_BITS)
        occluder = np.where(told.agree >= config.occluder_share * told.seen, surface, np.nan)
        horizon = horizon_of(occluder)
        guide = ortho_luminance(views, grid, winner.surface, horizon)
        winner = _match(stack, ranges, config, config.visible_pair_share, horizon, guide, _unseen_bits(told, reach))

    surface = _cleaned(winner.surface, views, leans, config)
    horizon = horizon_of(surface)
    told = agreement(stack, grid, surface, horizon, config.agree_share * CENSUS_BITS)
    surface = np.where((told.shown >= 2) & shown(stack, grid, bounds.bottom), surface, np.nan)
    return _Found(surface, winner.margin_bits, told.agree, told.unlike_bits, guide.reshape(grid.shape))


def _unseen_bits(told: Agreement, reach_cells: int) -> np.ndarray:
    """What a height costs that views would have to look through a roof for, little more than a match. If it cost as
    much as unrelated pixels, the roof would win that ground: among many pairs some are alike by chance. A match costs
    what is usual around the cell, so that it is the same in every tile."""
    alike = (told.agree >= 2).astype(np.float32)
    share = ndimage.uniform_filter(alike, 2 * reach_cells + 1)
    bits = ndimage.uniform_filter(told.unlike_bits * alike, 2 * reach_cells + 1) / np.maximum(share, 1e-6)
    cost = np.where(share > LEAST_ALIKE, UNSEEN_TIMES * bits, CENSUS_BITS / 2)
    return np.minimum(cost, CENSUS_BITS / 2).astype(np.float32).ravel()


def _showing(views: Sequence[SweepView], grid: CellGrid, bottom_m: np.ndarray, top_m: np.ndarray) -> list[SweepView]:
    """The views that may show the grid between two heights, cut to the pixels that do."""
    windows = [pixel_window(view, grid, bottom_m, top_m) for view in views]
    return [cropped(view, window) for view, window in zip(views, windows, strict=True) if window_size(window)]


def _coarse(views: Sequence[SweepView], grid: CellGrid, heights_m: tuple[float, float], config: DsmConfig) -> _Bounds:
    """Heights worth trying per fine cell, from a sweep over all heights on coarse cells.

    A low penalty on jumps lets thin towers and trees through, and blunders with them.
    """
    coarse = CellGrid.covering(grid.box, config.coarse_gsd_m)
    low, high = (np.full(coarse.shape, float(height)) for height in heights_m)
    # Pixels of half a coarse step: one step then moves the views against each other by under a pixel.
    factors = [1 / max(1, round(config.coarse_step_m / 2 / view.pixel_m())) for view in views]
    stack = census_stack(views, factors, 1)
    surface = np.full(coarse.shape, np.nan, np.float32)
    halo_cells = round(config.matching_halo_m / coarse.gsd_m)
    for block in blocks_of(views, factors, coarse, low, high, config.coarse_step_m, halo_cells, config.memory_mb):
        part = block.grid(coarse)
        ranges = HeightRanges.between(part, config.coarse_step_m, block.of(low), block.of(high))
        found = _match(stack, ranges, config, config.pair_share, None, None)
        kept = (block.kept_rows, block.kept_cols)
        surface[kept] = _trusted(found, config)[block.core()]
    surface = seen_down_to_the_ground(surface, stack, coarse)
    occluders = hiding(surface, stack, coarse, config.occluder_share)
    if not np.isfinite(surface).any():
        surface = np.full(coarse.shape, np.float32(sum(heights_m) / 2))
    # What isn't trusted is searched where the trusted cells nearest to it are.
    nearest = ndimage.distance_transform_edt(np.isnan(surface), return_distances=False, return_indices=True)
    surface = surface[tuple(nearest)]
    reach = 2 * round(config.range_reach_m / config.coarse_gsd_m) + 1
    bottom = ndimage.minimum_filter(surface, reach) - np.float32(config.range_margin_m)
    top = ndimage.maximum_filter(surface, reach) + np.float32(config.range_margin_m)
    rows = np.floor((coarse.box.ymax - grid.y_centres) / coarse.gsd_m).astype(np.int64)
    cols = np.floor((grid.x_centres - coarse.box.xmin) / coarse.gsd_m).astype(np.int64)
    pick = np.ix_(rows, cols)
    bottom, top = np.maximum(bottom[pick], heights_m[0]), np.minimum(top[pick], heights_m[1])
    return _Bounds(surface[pick], bottom, top, occluders[pick])


def _trusted(found: _Winner, config: DsmConfig) -> np.ndarray:
    """The coarse surface without small patches of little margin: with many heights to try, most of them are blunders,
    and a blunder far up would hide the city around it."""
    patches = drop_small_components(found.surface, 3 * config.coarse_step_m, COARSE_PATCH_CELLS)
    return np.where(np.isfinite(patches) | (found.margin_bits >= COARSE_MARGIN_BITS), found.surface, np.nan)


def _match(
    stack: CensusStack,
    ranges: HeightRanges,
    config: DsmConfig,
    share: float,
    horizon: np.ndarray | None,
    guide: np.ndarray | None,
    unseen_bits: np.ndarray | None = None,
) -> _Winner:
    """One sweep and its regularised winner. Without a `guide` it is the coarse sweep."""
    cost = sweep_costs(stack, ranges, share, horizon, unseen_bits)
    grid = ranges.grid
    quieter = np.sqrt(2 / max(stack.views, 2))  # the mean over more pairs is less noisy: jumps need less of a brake
    # With two or three views both picture and match are noisy: weak edges mean little, jumps need a stronger brake.
    few = stack.views < ENOUGH_VIEWS
    if guide is None:
        p2 = np.full(256, config.coarse_p2 * quieter * (2 if few else 1))
        guide = np.zeros(grid.rows * grid.cols, np.uint8)
    else:
        contrast = config.p2_contrast * (3 if few else 1)
        p2 = config.p2 * quieter * np.maximum(np.exp(-np.arange(256) / contrast), config.p2_floor)
    p2 = np.round(np.maximum(p2, config.p1) * COST_UNIT).astype(np.int16)
    p1 = round(config.p1 * COST_UNIT)
    total = aggregate(cost, ranges.start, ranges.low, grid.rows, grid.cols, p1, p2, guide)
    index, margin = winners(total, ranges.start, ranges.low, p1)
    return _Winner(
        (index * np.float32(ranges.step_m)).reshape(grid.shape),
        (margin / np.float32(8 * COST_PER_BIT)).reshape(grid.shape),
    )


def _cleaned(surface: np.ndarray, views: Sequence[SweepView], leans: np.ndarray, config: DsmConfig) -> np.ndarray:
    """Without mismatched patches and noise; the fewer views, the noisier, the wider the window."""
    surface = drop_small_components(surface, config.component_jump_m, config.min_component_cells)
    few = max(0, ENOUGH_VIEWS - len(views))
    radius = config.smooth_radius_cells + few if config.smooth_radius_cells else 0
    return smooth(surface, radius, max(config.smooth_band_m, _pixel_of_parallax_m(views, leans)))


def _pixel_of_parallax_m(views: Sequence[SweepView], leans: np.ndarray) -> float:
    """Metres up that move a point by a pixel between the two views that differ most: the scale of the noise."""
    apart = np.linalg.norm(leans[:, None] - leans[None], axis=2).max()
    return float(np.median([view.pixel_m() for view in views]) / max(apart, 0.05))
