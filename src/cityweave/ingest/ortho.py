"""An orthophoto on the global grid of its own cell size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cityweave.aoi import INVALID, AoiWriter
from cityweave.config import OrthoSource
from cityweave.grid import Box, CellGrid
from cityweave.io.raster import native_gsd_m, warp_to_grid

GSD_STEP_M = 0.05


def _gsd_m(source: OrthoSource, file_gsd_m: float) -> float:
    """The configured cell size, or the file's to the nearest 5 cm, so that cells fit the global grid."""
    if source.gsd_m is not None:
        return source.gsd_m
    return round(max(round(file_gsd_m / GSD_STEP_M), 1) * GSD_STEP_M, 2)


def _black_white(statistics: list[dict[str, float | None]]) -> list[float]:
    """What a picture that isn't 8 bit is shown between, the same in the whole city: as 8-bit orthophotos are, with
    some room above the brightest of their usual pixels."""
    known = [band for band in statistics[:3] if band["p98"] is not None and band["p2"] is not None]
    black, bright = min(band["p2"] or 0.0 for band in known), max(band["p98"] or 0.0 for band in known)
    black = min(black, bright / 10)
    return [black, black + max(bright - black, 1e-6) / 0.85]


def add_ortho(aoi: AoiWriter, source: OrthoSource, crs: str, extent: Box, facts: Mapping[str, Any]) -> bool:
    """Whether the ortho shows anything of the extent; `facts` are the survey's of the whole file."""
    gsd_m = _gsd_m(source, native_gsd_m(source.path, crs, source.crs))
    grid = CellGrid.covering(extent, gsd_m)
    on_grid = warp_to_grid(source.path, grid, crs, upsampling="cubic", declared_crs=source.crs)
    if not on_grid.valid.any():
        return False
    mask = (~on_grid.valid).astype(np.uint8) * INVALID
    integer_nodata = on_grid.nodata is not None and np.issubdtype(on_grid.dtype, np.integer)
    attributes: dict[str, Any] = {"resampling": on_grid.resampling}
    if on_grid.dtype != np.uint8:
        attributes["black_white"] = _black_white(facts["statistics"])
    if integer_nodata:
        attributes["nodata_is_a_colour"] = "where all bands hold it; use the mask layer, which tells them apart"
    aoi.add_ortho(source.name, on_grid.native(), grid, mask=mask, nodata=on_grid.nodata, attributes=attributes)
    return True
