"""What fits into memory: a tile whose matching would take more than the configuration allows is matched in blocks.

What matching takes grows with the heights to try and with the pixels that show them, so a town on a plain needs one
block and a gorge several. Blocks overlap by the halo in which matching warms up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cityweave.cameras import PolyCamera
from cityweave.dsm.views import SweepView
from cityweave.errors import ConfigError
from cityweave.grid import CellGrid

MB = 1_000_000
VOLUME_BYTES = 5  # per cell and height: its cost, and the sums over the paths down and up
WORD_BYTES = 8  # per sample of a view: its census word
VIEW_BYTES = 16  # per pixel of a view: the picture in floats, and what is made of it on the way
SAMPLING_BYTES = 6  # per sample of the view that is being sampled finer: grey value, whether it can be used
CELL_BYTES = 120  # per cell of the grid: surfaces, filters
CROP_MARGIN_PX = 12  # the census window and the taps of the finer sampling
SMALLEST_CELLS = 32


@dataclass(frozen=True)
class Block:
    """A part of a grid: the cells that are matched together, and those of them that are kept."""

    rows: slice  # of the whole grid, halo included
    cols: slice
    kept_rows: slice  # of the whole grid
    kept_cols: slice

    def of(self, layer: np.ndarray) -> np.ndarray:
        return layer[..., self.rows, self.cols]

    def core(self) -> tuple[slice, slice]:
        """The kept cells in the block's own arrays."""
        return (
            slice(self.kept_rows.start - self.rows.start, self.kept_rows.stop - self.rows.start),
            slice(self.kept_cols.start - self.cols.start, self.kept_cols.stop - self.cols.start),
        )

    def grid(self, whole: CellGrid) -> CellGrid:
        return CellGrid(
            whole.col0 + self.cols.start,
            whole.row0 + whole.rows - self.rows.stop,
            self.cols.stop - self.cols.start,
            self.rows.stop - self.rows.start,
            whole.gsd_m,
        )


@dataclass(frozen=True)
class Need:
    """What matching a part of the grid takes."""

    entries: int  # cells times heights
    cells: int
    pixels: int  # of all views
    samples: int
    largest: int  # samples of the largest view

    def mb(self) -> float:
        total = VOLUME_BYTES * self.entries + CELL_BYTES * self.cells + VIEW_BYTES * self.pixels
        return (total + WORD_BYTES * self.samples + SAMPLING_BYTES * self.largest) / MB


def need_of(
    views: Sequence[SweepView],
    factors: Sequence[float],
    grid: CellGrid,
    bottom_m: np.ndarray,
    top_m: np.ndarray,
    step_m: float,
) -> Need:
    tried = np.where(np.isfinite(top_m) & np.isfinite(bottom_m), (top_m - bottom_m) / step_m + 2, 0)
    sizes = [window_size(pixel_window(view, grid, bottom_m, top_m)) for view in views]
    samples = [int(size * factor**2) for size, factor in zip(sizes, factors, strict=True)]
    return Need(int(tried.sum()), bottom_m.size, sum(sizes), sum(samples), max(samples))


def pixel_window(view: SweepView, grid: CellGrid, bottom_m: np.ndarray, top_m: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a view that show a grid between two heights, a margin included; empty when none does."""
    if not np.isfinite(bottom_m).any():
        return slice(0, 0), slice(0, 0)
    box = grid.box
    x, y = np.linspace(box.xmin, box.xmax, 5), np.linspace(box.ymin, box.ymax, 5)
    z = np.array([np.nanmin(bottom_m), np.nanmax(top_m)])
    u, v = view.camera.project(x[:, None, None], y[None, :, None], z[None, None, :])
    rows, cols = view.image.shape
    return _span(v, rows), _span(u, cols)


def _span(values: np.ndarray, size: int) -> slice:
    low = int(np.clip(np.floor(values.min()) - CROP_MARGIN_PX, 0, size))
    high = int(np.clip(np.ceil(values.max()) + CROP_MARGIN_PX, 0, size))
    return slice(low, high)


def window_size(window: tuple[slice, slice]) -> int:
    rows, cols = window
    return (rows.stop - rows.start) * (cols.stop - cols.start)


def cropped(view: SweepView, window: tuple[slice, slice]) -> SweepView:
    rows, cols = window
    coefficients = view.camera.coefficients.copy()
    coefficients[0, 0] -= cols.start
    coefficients[1, 0] -= rows.start
    camera = PolyCamera(coefficients, view.camera.centre, view.camera.scale, view.camera.error_px)
    return replace(view, image=view.image[rows, cols], valid=view.valid[rows, cols], camera=camera)


def blocks_of(
    views: Sequence[SweepView],
    factors: Sequence[float],
    grid: CellGrid,
    bottom_m: np.ndarray,
    top_m: np.ndarray,
    step_m: float,
    halo_cells: int,
    memory_mb: float,
) -> Iterator[Block]:
    """The grid as one block, or halved along its longer side until every part keeps within `memory_mb`."""

    def split(rows: slice, cols: slice) -> Iterator[Block]:
        block = _with_halo(rows, cols, grid.shape, halo_cells)
        need = need_of(views, factors, block.grid(grid), block.of(bottom_m), block.of(top_m), step_m)
        if need.mb() <= memory_mb:
            yield block
            return
        height, width = rows.stop - rows.start, cols.stop - cols.start
        if max(height, width) <= SMALLEST_CELLS:
            raise ConfigError(
                f"dsm.memory_mb: {memory_mb:g} is too little: {height} x {width} cells with {len(views)} views and "
                f"{float(np.nanmax(top_m - bottom_m)):.0f} m of heights take {need.mb():.0f}; accepted: at least that"
            )
        if height >= width:
            middle = rows.start + height // 2
            yield from split(slice(rows.start, middle), cols)
            yield from split(slice(middle, rows.stop), cols)
        else:
            middle = cols.start + width // 2
            yield from split(rows, slice(cols.start, middle))
            yield from split(rows, slice(middle, cols.stop))

    yield from split(slice(0, grid.rows), slice(0, grid.cols))


def _with_halo(rows: slice, cols: slice, shape: tuple[int, int], halo: int) -> Block:
    def grown(part: slice, size: int) -> slice:
        return slice(max(0, part.start - halo), min(size, part.stop + halo))

    return Block(grown(rows, shape[0]), grown(cols, shape[1]), rows, cols)
