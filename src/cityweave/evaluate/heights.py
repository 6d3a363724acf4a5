"""The city's height model against the truth, and against the same city with shifted tiles; block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.errors import DataError
from cityweave.evaluate.border import BorderErrors, BorderRatio, near_interior_border
from cityweave.evaluate.confidence import Confidence
from cityweave.evaluate.dsm import HeightErrors
from cityweave.evaluate.outlines import Outlines
from cityweave.evaluate.truth import Truth, read_cells
from cityweave.grid import CellGrid, blocks
from cityweave.manifest import Run
from cityweave.plan import city_tiles

_BLOCK = 1024
_MAP_SIDE_PX = 1024


@dataclass(frozen=True)
class CityRaster:
    """One of the city's height models and the layer that says which cells were measured."""

    path: Path
    store: Path
    grid: CellGrid

    @staticmethod
    def open(run: Run) -> CityRaster:
        from cityweave.io.raster import open_raster

        gsd = run.config.dsm.gsd_m
        path = run.folder / "city_dsm.tif"
        with open_raster(path) as dataset:
            t = dataset.transform
            rows, cols = dataset.height, dataset.width
            if not np.isclose(t.a, gsd, rtol=1e-9):
                raise DataError(f"{path} has cells of {t.a} m, the config says {gsd} m; rerun the run")
        grid = CellGrid(round(t.c / gsd), round(t.f / gsd) - rows, cols, rows, gsd)
        return CityRaster(path, run.folder / "city.zarr", grid)

    def heights(self, part: CellGrid) -> NDArray[np.float32]:
        values = read_cells(self.path, part)
        assert values is not None  # the grid came from this very file
        return values

    def layer(self, name: str, part: CellGrid) -> NDArray[Any] | None:
        """Of the city's store, such as source or sigma; None where it has none."""
        import zarr

        if not (self.store / name / "zarr.json").is_file():
            return None
        array = zarr.open_array(self.store / name, mode="r", zarr_format=3)
        return np.asarray(array[self.grid.window_of(part)])  # type: ignore[index]


def parts(grid: CellGrid, side: int) -> Iterator[tuple[CellGrid, tuple[slice, slice]]]:
    """The grid cut into blocks, with the place of each in the whole."""
    for rows, cols in blocks(grid.shape, side):
        height, width = rows.stop - rows.start, cols.stop - cols.start
        row0 = grid.row0 + grid.rows - rows.stop
        yield CellGrid(grid.col0 + cols.start, row0, width, height, grid.gsd_m), (rows, cols)


@dataclass(frozen=True)
class HeightMaps:
    """Thinned maps for the report (every k-th cell)."""

    step: int
    truth: NDArray[np.float32]
    error: NDArray[np.float32]
    source: NDArray[np.uint8]

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, step=np.asarray(self.step), truth=self.truth, error=self.error, source=self.source)


def dsm_figures(run: Run, truth: Truth) -> tuple[dict[str, Any], dict[str, str], HeightMaps]:
    raster = CityRaster.open(run)
    grid = raster.grid
    step = -(-max(grid.shape) // _MAP_SIDE_PX)
    side = max(step, _BLOCK // step * step)
    shape = (-(-grid.rows // step), -(-grid.cols // step))
    maps = HeightMaps(
        step, np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.uint8)
    )
    errors, confidence, outlines = HeightErrors(), Confidence(), Outlines()
    has_source = has_buildings = True
    box = run.config.city.box
    for part, (rows, cols) in parts(grid, side):
        reference = truth.heights(part)
        outside_y = (part.y_centres < box.ymin) | (part.y_centres >= box.ymax)
        outside_x = (part.x_centres < box.xmin) | (part.x_centres >= box.xmax)
        reference[outside_y[:, None] | outside_x[None, :]] = np.nan
        source, buildings = raster.layer("source", part), truth.buildings(part)
        has_source, has_buildings = has_source and source is not None, has_buildings and buildings is not None
        heights = raster.heights(part)
        error = errors.add(heights, reference, source, buildings)
        if (sigma := raster.layer("sigma", part)) is not None:
            confidence.add(error, sigma)
        if buildings is not None:
            outlines.add(heights, reference, buildings)
        at = (
            slice(rows.start // step, -(-rows.stop // step)),
            slice(cols.start // step, -(-cols.stop // step)),
        )
        maps.truth[at], maps.error[at] = reference[::step, ::step], error[::step, ::step]
        if source is not None:
            maps.source[at] = source[::step, ::step]
    plain, reasons = errors.figures(has_source, has_buildings)
    figures: dict[str, Any] = dict(plain)
    figures["edges_within_cell"] = outlines.share
    if outlines.share is None:
        reasons["edges_within_cell"] = "the reference has no building mask, or no building in it"
    figures["confidence"] = confidence.figures()
    if figures["confidence"] is None:
        reasons["confidence"] = "no cell has both an error and a sigma"
    if not errors.cells:
        why = "there is no reference height in the city"
        reasons = {name: why for name, value in figures.items() if value is None}
    return figures, reasons, maps


def border_figures(run: Run, shifted: Run) -> BorderRatio:
    """The ratio of `border_ratio`; both runs must be of one city."""
    ours, theirs = run.config.tiles, shifted.config.tiles
    if run.config.city != shifted.config.city or ours.size_m != theirs.size_m or run.config.seed != shifted.config.seed:
        raise DataError(f"{shifted.folder} is not {run.folder} with another tile grid: city, seed or tile size differ")
    if (theirs.shift_m - ours.shift_m) * 2 % (2 * ours.size_m) != ours.size_m:
        raise DataError(
            f"{shifted.folder} has its tiles shifted by {theirs.shift_m} m against {ours.shift_m} m; "
            f"accepted: half a tile, {ours.size_m // 2} m"
        )
    truth = Truth(run)
    first, second = CityRaster.open(run), CityRaster.open(shifted)
    tiles = city_tiles(run.config)
    errors = BorderErrors()
    for part, _ in parts(first.grid, _BLOCK):
        near = near_interior_border(tiles, part.x_centres, part.y_centres)
        if not near.any():
            continue
        reference = truth.heights(part)
        errors.add(
            near,
            first.heights(part) - reference,
            second.heights(part) - reference,
            part.x_centres,
            part.y_centres,
        )
    ratio = errors.ratio([run.config.seed, 8])
    if ratio is None:
        raise DataError("no cell beside a border between two tiles has a height in both runs and a reference")
    return ratio
