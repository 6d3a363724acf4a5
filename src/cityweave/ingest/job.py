"""The ingest job: everything that touches a tile and its halo, cut out of the sources into one AOI store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.aoi import (
    EXCLUDED,
    INVALID,
    REFERENCE,
    SATURATED,
    TERRAIN,
    AoiWriter,
    compound_crs_wkt,
    correction_from_json,
    rpc_from_json,
)
from cityweave.cameras import RPC, ToGeodetic, fit_perspective, geodetic_transform
from cityweave.config import Config, SourcesConfig, ViewSource
from cityweave.errors import Quarantine
from cityweave.grid import Box, CellGrid, Tile, tiles_covering
from cityweave.ingest.ortho import add_ortho
from cityweave.io.heights import read_heights
from cityweave.io.raster import open_raster
from cityweave.io.satellite import (
    ViewPixels,
    crop_for,
    ground_from_geodetic,
    read_crop,
    read_excluded,
    view_angles,
)
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import ingest_halo_m, resolved_sources, told_by_a_picture, vertical_grid

_CORE_SAMPLES = 64  # along a core's side, when asking whether a view shows it
_FROM_SURVEY = ("acquired", "sun_azimuth_deg", "sun_elevation_deg")  # facts of the file, whatever the city


@dataclass(frozen=True)
class Cut:
    """What is being cut out: the tile, its ground with halo, and the heights anything may have there."""

    tile: Tile
    crs: str
    extent: Box
    heights_m: tuple[float, float]
    to_geodetic: ToGeodetic
    allowance_px: float
    grid: CellGrid
    terrain: np.ndarray | None  # (y, x) on `grid`

    def middle_geodetic(self) -> tuple[float, float, float]:
        """Longitude, latitude and height above the ellipsoid of the core's middle."""
        core = self.tile.core
        middle = ((core.xmin + core.xmax) / 2, (core.ymin + core.ymax) / 2, sum(self.heights_m) / 2)
        lon, lat, height = self.to_geodetic(*(np.array([value]) for value in middle))
        return float(lon[0]), float(lat[0]), float(height[0])

    def core_ground(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Longitude, latitude and height of every `step`-th cell of the core, on the terrain where it is known."""
        rows, cols = self.grid.window_of(CellGrid.covering(self.tile.core, self.grid.gsd_m))
        x, y = np.meshgrid(self.grid.x_centres[cols][::step], self.grid.y_centres[rows][::step])
        z = np.full(x.shape, self.heights_m[0])
        if self.terrain is not None:
            ground = self.terrain[rows, cols][::step, ::step]
            z = np.where(np.isfinite(ground), ground, z)
        return self.to_geodetic(x.ravel(), y.ravel(), z.ravel())


def warm_up() -> None:
    """Load what every tile needs, so that processes side by side don't each do it."""
    import rasterio  # noqa: F401
    import zarr  # noqa: F401


def run(run: Run, tile: Tile) -> None:
    config = run.config
    survey_manifest = run.manifest_path("survey")

    def work(products: Products) -> None:
        survey = json.loads(Manifest.read(survey_manifest).product("survey").read_text())
        with products.path("aoi", ".zarr") as path:
            try:
                products.notes |= ingest_tile(config, resolved_sources(config), survey, tile, path)
            except Quarantine:
                shutil.rmtree(path, ignore_errors=True)  # a verdict is no crash: nothing is left behind
                raise

    run_job(run, "ingest", work, tile=tile, inputs={"survey": survey_manifest})


def ingest_tile(
    config: Config, sources: SourcesConfig, survey: Mapping[str, Any], tile: Tile, path: Path
) -> dict[str, Any]:
    """Write the AOI of one tile to `path` and return facts for its manifest; Quarantine when it holds no picture."""
    city, halo_m = config.city, ingest_halo_m(config)
    extent = tile.core.grow(halo_m)
    grid = CellGrid.covering(extent, config.dsm.gsd_m)
    layers = _height_layers(config, sources, grid)
    cut = Cut(
        tile,
        city.crs,
        extent,
        _heights_of(survey, extent, city.heights_m),
        geodetic_transform(city.crs, vertical_grid(city.vertical)),
        config.ingest.pointing_allowance_px,
        grid,
        layers.get(TERRAIN),
    )
    facts = {view["name"]: view for view in survey["views"]}

    vertical = "ellipsoid" if city.vertical == "ellipsoid" else f"EPSG:{city.vertical.epsg}"
    epsg = None if city.vertical == "ellipsoid" else city.vertical.epsg
    with AoiWriter(
        path,
        tile,
        crs_wkt=compound_crs_wkt(city.crs, epsg),
        vertical=vertical,
        halo_m=halo_m,
        z0_m=city.z0_m,
        attributes={"heights_m": list(cut.heights_m)},
    ) as aoi:
        written: list[str] = []
        refused: list[str] = []
        for source in sources.views:
            reason = _add_view(aoi, source, facts[source.name], cut, city.z0_m)
            (written if reason is None else refused).append(source.name if reason is None else reason)
        ortho_facts = {ortho["name"]: ortho for ortho in survey["ortho"]}
        orthos = [
            source.name
            for source in sources.ortho
            if add_ortho(aoi, source, city.crs, extent, ortho_facts[source.name])
        ]
        # A city may do without views; a tile alone only where a picture and its ground tell heights, too.
        alone = bool(orthos) and (not sources.views or told_by_a_picture(config))
        if not written and not alone:
            raise Quarantine(f"{tile.name}: no usable view; " + "; ".join(refused or ["the city has no view"]))
        for layer, heights in layers.items():
            aoi.add_raster(layer, heights, grid)
    return {"views": written, "ortho": orthos, "heights": list(layers), "left_out": refused}


def _height_layers(config: Config, sources: SourcesConfig, grid: CellGrid) -> dict[str, np.ndarray]:
    layers = {}
    for layer, source in ((TERRAIN, sources.terrain), (REFERENCE, sources.reference)):
        if source is not None:
            heights = read_heights(source, grid, config.city, ground=layer == TERRAIN)
            if np.isfinite(heights).any():
                layers[layer] = heights
    return layers


def _heights_of(survey: Mapping[str, Any], extent: Box, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest of the survey's windows that the extent touches; `otherwise` when none has a range.

    A window without one is ground that no two views show, where nothing is measured anyway.
    """
    size = survey["window_m"]
    known = {(x, y): (low, high) for x, y, low, high in survey["windows"]}
    corners = [(window.core.xmin, window.core.ymin) for window in tiles_covering(extent, size)]
    ranges = [known[corner] for corner in corners if corner in known]
    if not ranges:
        return otherwise
    return (min(low for low, _ in ranges), max(high for _, high in ranges))


def _add_view(aoi: AoiWriter, source: ViewSource, facts: Mapping[str, Any], cut: Cut, z0_m: float) -> str | None:
    """Add a view's crop; the reason if it shows nothing of the core, or if the survey left it out.

    Cut by the vendor's camera and an allowance, so that a corrected pointing moves no crop.
    """
    if "left_out" in facts:
        return f"{source.name} {facts['left_out']}"
    with open_raster(source.path) as dataset:
        rpc = rpc_from_json(facts["rpc"]).corrected(correction_from_json(facts.get("pointing")))
        size = (dataset.width, dataset.height)
        crop = crop_for(rpc.corrected(None), cut.to_geodetic, cut.extent, cut.heights_m, size, cut.allowance_px)
        if crop is None:
            return f"{source.name} doesn't see it"
        pixels = read_crop(dataset, crop)
    angles = view_angles(rpc, ground_from_geodetic(cut.crs), cut.middle_geodetic())
    rpc = rpc.shifted(crop.left, crop.top)
    if reason := _nothing_to_see(source.name, pixels, rpc, cut):
        return reason
    mask = pixels.invalid.astype(np.uint8) * INVALID
    saturation = facts["saturation"]
    if saturation is not None:
        mask |= (pixels.image >= saturation).any(axis=0).astype(np.uint8) * SATURATED
    if source.mask is not None:
        mask |= read_excluded(source.mask, crop, size).astype(np.uint8) * EXCLUDED
    aoi.add_view(
        source.name,
        pixels.image,
        rpc,
        (crop.left, crop.top),
        mask=mask,
        nodata=pixels.nodata,
        saturation=saturation,
        attributes={key: facts[key] for key in _FROM_SURVEY if key in facts} | angles | _pinhole(rpc, cut, z0_m),
    )
    return None


def _pinhole(rpc: RPC, cut: Cut, z0_m: float) -> dict[str, Any]:
    """For programs that know no RPC: metres from the core's lower-left corner and z0 to the crop's pixels."""
    core = cut.tile.core
    fit = fit_perspective(rpc, cut.to_geodetic, cut.extent, cut.heights_m, (core.xmin, core.ymin, z0_m))
    return {"pinhole": {"matrix": [list(map(float, row)) for row in fit.matrix], "error_px": round(fit.error_px, 5)}}


def _nothing_to_see(name: str, pixels: ViewPixels, rpc: RPC, cut: Cut) -> str | None:
    """Why a view is of no use to the core. NaN that the file doesn't call nodata is no gap but a defect: Quarantine.

    Judged by the pixels in which the core's ground appears: a rectangle around them would hold much of its neighbours.
    """
    has_nan = bool(pixels.undeclared_nan.any())
    step = 1 if has_nan else max(1, round(cut.tile.size_m / cut.grid.gsd_m / _CORE_SAMPLES))
    u, v = rpc.project(*cut.core_ground(step))
    rows, cols = pixels.invalid.shape
    inside = (u >= 0) & (u < cols) & (v >= 0) & (v < rows)
    row, col = np.floor(v[inside]).astype(np.int64), np.floor(u[inside]).astype(np.int64)
    if has_nan and pixels.undeclared_nan[row, col].any():
        raise Quarantine(
            f"{cut.tile.name}: view {name} has NaN pixels here; accepted: numbers, or NaN declared as the file's nodata"
        )
    if row.size == 0:
        return f"{name} doesn't see it"
    valid = ~pixels.invalid[row, col]
    if not valid.any():
        return f"{name} is all nodata here"
    seen = pixels.image[:, row[valid], col[valid]]
    if (seen == seen[:, :1]).all():
        return f"{name} shows one value, {seen[0, 0]}, everywhere here"
    return None
