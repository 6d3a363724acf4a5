"""The survey job: one small file about all sources, rewritten only when something in it changed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.aoi import correction_to_json, rpc_from_json
from cityweave.cameras import geodetic_transform
from cityweave.config import Config, SourcesConfig
from cityweave.cores import side_by_side
from cityweave.grid import CellGrid, Tile
from cityweave.io.heights import read_heights
from cityweave.io.pointcloud import is_point_cloud
from cityweave.io.raster import open_raster
from cityweave.io.satellite import ground_from_geodetic
from cityweave.manifest import Products, Run, run_job
from cityweave.plan import base_folder, resolved_sources, rpc_beside, survey_reach_m, vertical_grid
from cityweave.survey.coarse import coarse_range
from cityweave.survey.envelope import WINDOW_M, corner, terrain_grid, terrain_ranges, windows
from cityweave.survey.exposure import display_range, normalisations, reference_view, sample_grid, sample_view, unchanged
from cityweave.survey.inventory import Place, describe_heights, describe_ortho, describe_view
from cityweave.survey.pointing import Pointing, solve_pointing
from cityweave.survey.ties import Reach, TieView


def run(run: Run) -> None:
    config = run.config
    sources = resolved_sources(config)

    def work(products: Products) -> None:
        facts = survey(config, sources)
        with products.path("survey", ".json") as path:
            path.write_text(json.dumps(facts, indent=1) + "\n")
        products.notes["reference_view"] = facts["reference_view"]
        if facts["pointing"] is not None:
            products.notes["pointing"] = facts["pointing"]
            for warning in facts["pointing"]["warnings"]:
                print(f"warning: {warning}", file=sys.stderr)

    run_job(run, "survey", work, inputs=_inputs(config, sources))


def _inputs(config: Config, sources: SourcesConfig) -> dict[str, Path]:
    """The source files; those of a synthetic city are known by the manifest of the job that made them."""
    if config.synth is not None:
        return {"synth": base_folder(config) / "city" / "synth.json"}
    files = {f"views/{view.name}": view.path for view in sources.views}
    files |= {f"masks/{view.name}": view.mask for view in sources.views if view.mask}
    rpcs = {f"rpcs/{view.name}": view.rpc or rpc_beside(view.path) for view in sources.views}
    files |= {name: path for name, path in rpcs.items() if path}
    files |= {f"ortho/{ortho.name}": ortho.path for ortho in sources.ortho}
    heights = {"terrain": sources.terrain, "reference": sources.reference}
    return files | {name: source.path for name, source in heights.items() if source}


def survey(config: Config, sources: SourcesConfig) -> dict[str, Any]:
    """Everything that later stages need to know about the sources before they open one."""
    city = config.city
    place = Place(
        city.crs, city.box, sum(city.heights_m) / 2, geodetic_transform(city.crs, vertical_grid(city.vertical))
    )

    reach_m = survey_reach_m(config)
    all_windows, cells = windows(city, reach_m), terrain_grid(city, reach_m)
    known = terrain_ranges(city, all_windows, cells, _terrain(config, sources, cells))
    views = []
    for source in sources.views:
        with open_raster(source.path) as dataset:
            views.append(describe_view(source, dataset, place))
    tied = _tie_views(sources, views)
    allowance = config.ingest.pointing_allowance_px
    reach = Reach(city.box, city.heights_m, allowance, WINDOW_M, place.to_geodetic, known)
    pointing = solve_pointing(tied, reach, config.survey.pointing)
    reference = reference_view([view for view in views if view["name"] not in pointing.left_out]) if views else None
    exposures = _exposures(config, sources, views, pointing, place, reference) if reference else {}
    return {
        "city": city.name,
        "views": [{**view, **exposures[view["name"]], **_of_view(view["name"], pointing)} for view in views],
        "pointing": pointing.report,
        "reference_view": reference,
        "ortho": [describe_ortho(source, place) for source in sources.ortho],
        "terrain": describe_heights(sources.terrain, place) if sources.terrain else None,
        "reference": describe_heights(sources.reference, place) if sources.reference else None,
        "window_m": WINDOW_M,
        "windows": _envelopes(config, all_windows, tied, pointing, reach),
    }


def _envelopes(
    config: Config, all_windows: list[Tile], views: list[TieView], pointing: Pointing, reach: Reach
) -> list[list[float]]:
    """[west, south, lowest, highest] of each window with terrain or two views, row by row from the south-west."""
    used = [
        replace(view, rpc=view.rpc.corrected(pointing.corrections.get(view.name)))
        for view in views
        if view.name not in pointing.left_out
    ]
    ties = _in_city_frame(pointing.ground, config, reach)

    def heights_of(window: Tile) -> tuple[float, float] | None:
        if known := reach.known_m.get(corner(window)):
            return known
        inside = (ties[:, 0] // WINDOW_M == window.i) & (ties[:, 1] // WINDOW_M == window.j)
        return coarse_range(used, window, reach, config.city.max_building_m, ties[inside, 2])

    found = zip(all_windows, side_by_side(heights_of, all_windows), strict=True)
    return [[*corner(window), float(heights[0]), float(heights[1])] for window, heights in found if heights is not None]


def _in_city_frame(geodetic: np.ndarray, config: Config, reach: Reach) -> np.ndarray:
    """(n, 3) x, y, z in the city's vertical reference."""
    if len(geodetic) == 0:
        return np.empty((0, 3))
    x, y, height = ground_from_geodetic(config.city.crs)(*geodetic.T)
    lift = reach.to_geodetic(x, y, np.zeros(len(x)))[2]  # of the vertical reference above the ellipsoid
    return np.stack([x, y, height - lift], axis=1)


def _terrain(config: Config, sources: SourcesConfig, grid: CellGrid) -> np.ndarray:
    # A point cloud would have to be read whole for this: the city's own range serves as well.
    if sources.terrain is None or is_point_cloud(sources.terrain.path):
        return np.full(grid.shape, np.nan, np.float32)
    return read_heights(sources.terrain, grid, config.city, ground=True)


def _tie_views(sources: SourcesConfig, views: list[dict[str, Any]]) -> list[TieView]:
    return [
        TieView(
            source.name, source.path, source.mask, rpc_from_json(view["rpc"]), tuple(view["size_px"]), view["gsd_m"],
            view["saturation"],
        )
        for source, view in zip(sources.views, views, strict=True)
    ]  # fmt: skip


def _of_view(name: str, pointing: Pointing) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if name in pointing.corrections:
        out["pointing"] = correction_to_json(pointing.corrections[name])
    if name in pointing.left_out:
        out["left_out"] = pointing.left_out[name]
    return out


def _exposures(
    config: Config,
    sources: SourcesConfig,
    views: list[dict[str, Any]],
    pointing: Pointing,
    place: Place,
    reference: str,
) -> dict[str, dict[str, Any]]:
    grid = sample_grid(place.box, config.survey.sample_gsd_m)
    heights = _terrain(config, sources, grid)
    samples = {}
    for source, view in zip(sources.views, views, strict=True):
        rpc = rpc_from_json(view["rpc"]).corrected(pointing.corrections.get(source.name))
        with open_raster(source.path) as dataset:
            samples[source.name] = sample_view(dataset, rpc, place, grid, heights, source.mask)
    solved = config.survey.exposure == "solved"
    exposure = normalisations(samples, reference) if solved else unchanged(samples)
    by_name = {view["name"]: view for view in views}
    display = display_range(by_name[reference], samples[reference])
    out = {}
    for name, view in by_name.items():
        same_bands = view["bands"] == by_name[reference]["bands"]
        own = display if same_bands else {key: [values[0]] * view["bands"] for key, values in display.items()}
        out[name] = {"exposure": exposure[name], "display": own}
    return out
