"""What the coarse surface tells of sight: which cells are seen down to the ground, and what hides others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cityweave.dsm.blocks import Block
from cityweave.dsm.views import CENSUS_BITS, CensusStack
from cityweave.dsm.visibility import agreement, horizons
from cityweave.grid import CellGrid

OCCLUDER_BITS = 0.3 * CENSUS_BITS  # unlike bits up to which a view confirms what is to hide other cells
GROUND_REACH_M = 20.0  # within this of a cell there is ground, or a lower roof


@dataclass(frozen=True)
class Surroundings:
    """The coarse surface of everything that may hide a block's cells, on the fine grid; NaN in the block itself."""

    surface: np.ndarray
    core: tuple[slice, slice]  # the block in it

    @staticmethod
    def of(hiding: np.ndarray, window: tuple[slice, slice], block: Block) -> Surroundings:
        """`window`: the grid that is matched, in `hiding`; `block`: a part of that grid."""
        rows, cols = (
            slice(whole.start + part.start, whole.start + part.stop)
            for whole, part in zip(window, (block.rows, block.cols), strict=True)
        )
        surface = hiding.copy()
        surface[rows, cols] = np.nan
        return Surroundings(surface, (rows, cols))

    def horizons(self, bottom: np.ndarray, gsd_m: float, leans: np.ndarray) -> np.ndarray:
        asked = np.full(self.surface.shape, np.nan, np.float32)
        asked[self.core] = bottom
        found = horizons(self.surface, asked, gsd_m, leans).reshape(len(leans), *self.surface.shape)
        return found[:, *self.core].reshape(len(leans), -1)


def seen_down_to_the_ground(surface: np.ndarray, stack: CensusStack, grid: CellGrid) -> np.ndarray:
    """Without cells that two views show at the height found, but not at that of the ground nearby. Where the pictures
    end, the higher the more of them lies in both, and what isn't in both can't be told from what is too high."""
    reach = 2 * round(GROUND_REACH_M / grid.gsd_m) + 1
    lowest = ndimage.minimum_filter(np.where(np.isfinite(surface), surface, np.inf), reach)
    return np.where(shown(stack, grid, lowest), surface, np.nan).astype(np.float32)


def shown(stack: CensusStack, grid: CellGrid, heights_m: np.ndarray) -> np.ndarray:
    """Where two views or more hold a cell at its height, hidden or not."""
    everywhere = np.full((stack.views, grid.rows * grid.cols), -np.inf, np.float32)
    return agreement(stack, grid, heights_m, everywhere, 0.0).shown >= 2


def hiding(surface: np.ndarray, stack: CensusStack, grid: CellGrid, share: float) -> np.ndarray:
    """The coarse surface where a `share` of the views that should see it confirms it, less the outer cells of every
    roof: a coarse sweep makes roofs wider than they are, and ground that is taken for hidden is lost."""
    everywhere = np.full((stack.views, grid.rows * grid.cols), -np.inf, np.float32)
    told = agreement(stack, grid, surface, everywhere, OCCLUDER_BITS)
    confirmed = np.isfinite(surface) & (told.agree >= share * told.seen)
    inner = ndimage.minimum_filter(np.where(confirmed, surface, -np.inf), 3)
    return np.where(np.isfinite(inner), inner, np.nan).astype(np.float32)
