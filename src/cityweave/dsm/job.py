"""The dsm job: heights of a tile, measured in the views of its AOI, predicted from a picture, or both; one Zarr group.

Of both, the measured ones are a job of their own, `stereo`: fusing looks at the neighbours' as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.aoi import TERRAIN, Aoi, ViewLayer
from cityweave.cameras import fit_local, geodetic_transform
from cityweave.codes import FILLED, NONE, PREDICTED
from cityweave.config import Config
from cityweave.dsm.decks import may_be_decks
from cityweave.dsm.fuse import Predicted, aligned, blended, fused, mosaic
from cityweave.dsm.ground import ground_heights
from cityweave.dsm.holes import fill_holes, spread_smoothly
from cityweave.dsm.reconstruct import reconstruct
from cityweave.dsm.sweep import popcount_of
from cityweave.dsm.views import SweepView, luminance
from cityweave.errors import DataError, Quarantine
from cityweave.grid import Box, CellGrid, Tile
from cityweave.io import cf
from cityweave.io.resample import known_mean
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import (
    city_tiles,
    dsm_box,
    fusing_reach_m,
    halos_m,
    predicting_tiles,
    stereo_rings,
    vertical_grid,
)

MIN_COVER = 0.05  # share of the tile that a view must show to be worth its time
EDGE_M, EDGE_SHARE = 1.0, 0.002  # share of cells so near an end of the searched heights that is worth a warning
MIN_MEASURED = 0.02  # a tile with less is no height model
_MEANING = {
    "dsm": "height of the surface",
    "dtm": "height of the ground",
    "sigma": "standard deviation of dsm",
    "count": "views that see the cell and agree about it",
    "source": "0 none, 1 measured, 2 filled, 3 predicted",
    "deck": "1 where another surface may lie below, as under a bridge",
}


def warm_up() -> None:
    """Load what every tile needs, so that processes side by side don't each do it."""
    import zarr  # noqa: F401

    popcount_of(np.uint64(1))  # the first call of a compiled function loads what all of them need


def run(run: Run, tile: Tile) -> None:
    if run.config.dsm.method == "stereo":
        measure(run, tile, "dsm")
    else:
        predict(run, tile)


def stereo(run: Run, tile: Tile) -> None:
    """What is measured of a tile whose heights will be fused."""
    measure(run, tile, "stereo")


def measure(run: Run, tile: Tile, name: str) -> None:
    ingest = run.manifest_path("ingest", tile)

    def work(products: Products) -> None:
        manifest = Manifest.read(ingest)
        if manifest.quarantined:
            raise Quarantine(manifest.quarantined)
        aoi = Aoi(manifest.product("aoi"))
        grid, layers, notes = tile_heights(run.config, tile, aoi)
        with products.path(name, ".zarr") as path:
            write_heights(path, grid, layers, aoi)
        products.notes |= notes

    run_job(run, "dsm", work, name=name, tile=tile, inputs={"ingest": ingest})


def predict(run: Run, tile: Tile) -> None:
    """Predicted heights on terrain, or measured and predicted heights fused."""
    config, known = run.config, set(city_tiles(run.config))
    ingest = run.manifest_path("ingest", tile)
    seen = predicting_tiles(config, tile, known)
    inputs = {"ingest": ingest} | {f"cityscale/{t.name}": run.manifest_path("cityscale", t) for t in seen}
    beside = [other for other in tile.ring(stereo_rings(config)) if other in known]
    if config.dsm.method == "fused":
        inputs |= {f"stereo/{other.name}": run.manifest_path("stereo", other) for other in beside}

    def work(products: Products) -> None:
        manifest = Manifest.read(ingest)
        if manifest.quarantined:
            raise Quarantine(manifest.quarantined)
        aoi = Aoi(manifest.product("aoi"))
        manifests = [Manifest.read(run.manifest_path("cityscale", other)) for other in seen]
        stores = [each.product("windows") for each in manifests if not each.quarantined]
        grid = CellGrid.covering(dsm_box(config, tile), config.dsm.gsd_m)
        if config.dsm.method == "fused":
            layers, notes = _fused(run, tile, aoi, beside, stores, grid)
        else:
            layers, notes = predicted_heights(config, tile, aoi, blended(stores, grid), grid)
        with products.path("dsm", ".zarr") as path:
            write_heights(path, grid, layers, aoi)
        products.notes |= notes

    run_job(run, "dsm", work, tile=tile, inputs=inputs)


def _fused(
    run: Run, tile: Tile, aoi: Aoi, beside: list[Tile], stores: list[Path], grid: CellGrid
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Measured and predicted; only predicted, by the scale of what was measured around, where nothing could be."""
    manifests = {other: Manifest.read(run.manifest_path("stereo", other)) for other in beside}
    parts = {
        (other.core, CellGrid.covering(dsm_box(run.config, other), grid.gsd_m)): read_layers(each.product("stereo"))
        for other, each in manifests.items()
        if not each.quarantined
    }
    around = CellGrid.covering(dsm_box(run.config, tile).grow(fusing_reach_m(run.config)), grid.gsd_m)
    window = around.window_of(grid)
    measured, predicted = mosaic(parts, around), blended(stores, around)
    if parts:
        predicted = aligned(predicted, measured, around, run.config.dsm, run.config.city.max_building_m)
    cut = Predicted(predicted.metres[window], predicted.sigma[window])
    if reason := manifests[tile].quarantined:
        if run.config.dsm.terrain in (None, "estimated"):
            raise Quarantine(f"{reason}; with a terrain (dsm.terrain: given) the orthophoto could tell its heights")
        layers, notes = predicted_heights(run.config, tile, aoi, cut, grid)
        return layers, notes | {"not_measured": reason}
    layers = fused({name: np.ascontiguousarray(layer[window]) for name, layer in measured.items()}, cut)
    predicted_share = round(float((layers["source"] == PREDICTED).mean()), 4)
    return layers, manifests[tile].values["notes"] | {"predicted_share": predicted_share}


def predicted_heights(
    config: Config, tile: Tile, aoi: Aoi, predicted: Predicted, grid: CellGrid
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a picture tells, on the ground that is told."""
    known = np.isfinite(predicted.metres)
    if known.mean() < MIN_MEASURED:
        raise Quarantine(f"{tile.name}: the orthophoto shows {known.mean():.1%} of it; {MIN_MEASURED:.0%} are needed")
    ground = told_ground(config, aoi, grid)
    if ground is None:
        raise Quarantine(f"{tile.name}: the terrain shows nothing of it")
    dsm = ground + fill_holes(np.where(known, predicted.metres, np.nan), config.dsm.small_hole_cells, 1.0)
    source = np.where(known, PREDICTED, np.where(np.isfinite(dsm), FILLED, NONE)).astype(np.uint8)
    layers = {
        "dsm": dsm,
        "dtm": np.fmin(ground, dsm).astype(np.float32),
        "sigma": predicted.sigma.astype(np.float32),
        "count": known.astype(np.uint8),
        "source": source,
        "deck": np.zeros(ground.shape, np.uint8),
    }
    notes = {
        "terrain": config.dsm.terrain or "given",
        "predicted_share": round(float(known.mean()), 4),
        "median_sigma_m": round(float(np.median(predicted.sigma[known])), 3),
    }
    return layers, notes


def told_ground(config: Config, aoi: Aoi, grid: CellGrid) -> np.ndarray | None:
    """Flat ground, or the terrain of the AOI on the grid, its gaps closed smoothly; None where none is told."""
    if config.dsm.flat_m is not None:
        return np.full(grid.shape, np.float32(config.dsm.flat_m))
    if not (config.dsm.terrain == "given" or config.dsm.method == "cityscale") or not aoi.has(TERRAIN):
        return None
    own, heights = aoi.raster(TERRAIN)
    (ground,), share = known_mean(heights[None] - aoi.z0_m, np.isfinite(heights), own, grid)
    known = share > 0.5
    if not known.any():
        return None
    filled: np.ndarray = spread_smoothly(np.where(known, ground, 0), known) + np.float32(aoi.z0_m)
    return filled.astype(np.float32)


def read_layers(path: Path) -> dict[str, np.ndarray]:
    import zarr

    root: Any = zarr.open_group(path, mode="r")
    return {name: root[name][:] for name in _MEANING}


def tile_heights(config: Config, tile: Tile, aoi: Aoi) -> tuple[CellGrid, dict[str, np.ndarray], dict[str, Any]]:
    """Layers over core and geometry halo, absolute heights, and facts for the manifest."""
    settings = config.dsm
    low, high = (float(height) - aoi.z0_m for height in aoi.attributes["heights_m"])
    views, refused = usable_views(config, aoi)
    if len(views) < 2:
        raise Quarantine(
            f"{tile.name}: {len(views)} usable view(s), heights need 2; {'; '.join(refused) or 'the AOI has no more'}"
        )
    matching, around = matching_grids(config, tile)
    model = reconstruct(views, matching, (low, high), settings, around)
    output = CellGrid.covering(dsm_box(config, tile), settings.gsd_m)
    if model.measured_share < MIN_MEASURED:
        raise Quarantine(
            f"{tile.name}: only {model.measured_share:.1%} of its cells could be measured from "
            f"{len(views)} views; {MIN_MEASURED:.0%} are needed"
        )
    ground = ground_heights(
        model.dsm, settings.gsd_m, settings.ground_window_m, settings.ground_slope, settings.ground_step_m
    )
    z0 = np.float32(aoi.z0_m)
    layers = {
        "dsm": model.dsm + z0,
        "dtm": ground + z0,
        "sigma": model.sigma,
        "count": model.count,
        "source": model.source,
        "deck": may_be_decks(model.dsm, ground, settings.gsd_m).astype(np.uint8),
    }
    window = matching.window_of(local_grid(output, tile))
    layers = {name: np.ascontiguousarray(layer[window]) for name, layer in layers.items()}
    notes = _notes(layers, settings.gsd_m, views, refused) | _at_the_limits(layers, aoi)
    told = told_ground(config, aoi, output)
    if told is not None:
        layers["dtm"] = np.fmin(told, layers["dsm"])
    if settings.method == "fused":
        notes["terrain"] = "estimated" if told is None else settings.terrain
    return output, layers, notes


def matching_grids(config: Config, tile: Tile) -> tuple[CellGrid, CellGrid]:
    """Tile-local: the cells that are matched, and those whose coarse surface tells what hides them."""
    halos = halos_m(config)
    boxes = (tile.core.grow(halos[name]) for name in ("dsm", "dsm's occluders"))
    matching, around = (local_grid(CellGrid.covering(box, config.dsm.gsd_m), tile) for box in boxes)
    return matching, around


def local_grid(grid: CellGrid, tile: Tile) -> CellGrid:
    """The same cells counted from the tile's lower-left corner, which is a multiple of the cell size."""
    gsd = grid.gsd_m
    return CellGrid(
        grid.col0 - round(tile.core.xmin / gsd), grid.row0 - round(tile.core.ymin / gsd), grid.cols, grid.rows, gsd
    )


def _notes(
    layers: Mapping[str, np.ndarray], gsd_m: float, views: list[SweepView], refused: list[str]
) -> dict[str, Any]:
    measured = layers["source"] == 1
    return {
        "deck_m2": round(float(layers["deck"].sum()) * gsd_m**2, 1),
        "views": [view.name for view in views],
        "left_out": refused,
        "measured_share": round(float(measured.mean()), 4),
        "mean_count": round(float(layers["count"][measured].mean()), 2) if measured.any() else None,
        "median_sigma_m": round(float(np.median(layers["sigma"][measured])), 3) if measured.any() else None,
    }


def _at_the_limits(layers: Mapping[str, np.ndarray], aoi: Aoi) -> dict[str, Any]:
    """A warning where heights pile up at an end of the range that was searched: what is beyond was cut off."""
    low, high = map(float, aoi.attributes["heights_m"])
    heights = layers["dsm"][layers["source"] == 1]
    warnings = []
    for end, near in (("lowest", heights <= low + EDGE_M), ("highest", heights >= high - EDGE_M)):
        share = float(near.mean()) if heights.size else 0.0
        if share > EDGE_SHARE:
            warnings.append(
                f"{share:.1%} of the measured cells lie at the {end} height that was searched ({low:g} to {high:g} m): "
                "city.heights_m, city.max_building_m or the terrain may be too narrow"
            )
    return {"warnings": warnings} if warnings else {}


def usable_views(config: Config, aoi: Aoi) -> tuple[list[SweepView], list[str]]:
    """The AOI's views with cameras in tile-local metres, and why the others are left out."""
    halos, core = halos_m(config), aoi.core
    matched, around = core.grow(halos["dsm"]), core.grow(halos["dsm's occluders"])
    corner_m = (core.xmin, core.ymin, aoi.z0_m)
    to_geodetic = geodetic_transform(config.city.crs, vertical_grid(config.city.vertical))
    low, high = map(float, aoi.attributes["heights_m"])
    usable, refused = [], []
    for name in aoi.views:
        layer = aoi.view(name)
        try:
            camera = fit_local(layer.rpc, to_geodetic, around, (low, high), corner_m)
        except DataError as error:
            raise DataError(f"view {name}: {error}") from error
        view = SweepView(name, *_pixels(layer), camera)
        cover = _cover(view, matched, corner_m, (low + high) / 2 - corner_m[2])
        if not view.valid.any():
            refused.append(f"{name} has no valid pixel there")
        elif cover < MIN_COVER:
            refused.append(f"{name} shows {cover:.0%} of it, {MIN_COVER:.0%} are needed")
        else:
            usable.append(view)
    return usable, refused


def _pixels(layer: ViewLayer) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and validity; a pixel that is NaN in any band is not valid, declared or not."""
    grey = luminance(layer.image)
    return grey, layer.valid & np.isfinite(grey)


def _cover(view: SweepView, box: Box, corner_m: tuple[float, float, float], z_m: float) -> float:
    """Share of the box that has a valid pixel, on a coarse raster at one height."""
    x = np.linspace(box.xmin, box.xmax, 33) - corner_m[0]
    y = np.linspace(box.ymin, box.ymax, 33) - corner_m[1]
    u, v = view.camera.project(x[None, :], y[:, None], np.full((1, 1), z_m))
    rows, cols = view.image.shape
    inside = (u >= 0) & (v >= 0) & (u < cols) & (v < rows)
    shown = view.valid[np.clip(v, 0, rows - 1).astype(int), np.clip(u, 0, cols - 1).astype(int)]
    return float((inside & shown).mean())


def write_heights(path: Path, grid: CellGrid, layers: Mapping[str, np.ndarray], aoi: Aoi) -> None:
    """One flat Zarr v3 group that plain xarray opens; one shard an array."""
    import zarr

    root = zarr.create_group(
        path,
        attributes={
            "crs_wkt": aoi.crs_wkt,
            "vertical": aoi.attributes["vertical"],
            "gsd_m": grid.gsd_m,
            "cells": [grid.col0, grid.row0, grid.cols, grid.rows],
        },
    )
    for name, layer in layers.items():
        height = layer.dtype.kind == "f"
        attributes = {**cf.on_ground(), **({"units": "m"} if height else {}), "long_name": _MEANING[name]}
        cf.write_array(root, name, layer, ("y", "x"), attributes, fill_value=np.nan if height else None)
    cf.write_axes(root, grid)
    cf.write_spatial_ref(root, grid, aoi.crs_wkt)
    cf.consolidate(root)
