"""From a recipe to cities: picture, height above ground and where both are known, on one grid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cityweave.aoi import REFERENCE, TERRAIN, Aoi
from cityweave.errors import ConfigError, DataError
from cityweave.grid import CellGrid
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.train.recipe import Cities, DataSettings, PublicCities, RunCities, SyntheticCities

CODE_CITY = 203
MIN_SHARE = 0.05  # a tile that knows less of its ground than this is left out


@dataclass(frozen=True)
class City:
    rgb: np.ndarray  # (3, y, x), uint8 or as the source has it
    height_m: np.ndarray  # (y, x) float32, above ground
    valid: np.ndarray  # (y, x) bool: both are known
    white: float  # value of rgb that is shown as white


@dataclass(frozen=True)
class Source:
    """One city to be: its name, what it depends on, and how it is made."""

    name: str
    group: tuple[str, int]  # which entry of the recipe it comes from: its kind and number
    recipe: dict[str, Any]
    make: Callable[[], City]


def sources(settings: DataSettings, split: str) -> Iterator[Source]:
    cities: Cities = getattr(settings, split)
    for number, group in enumerate(cities.synthetic):
        for seed in group.seeds:
            yield _synthetic(group, number, seed, settings.gsd_m)
    for number, run in enumerate(cities.runs):
        yield from _tiles_of(run, number, settings.gsd_m)
    for number, public in enumerate(cities.public):
        yield from _places_of(public, number, settings.gsd_m)


def _synthetic(group: SyntheticCities, number: int, seed: int, gsd_m: float) -> Source:
    rng = np.random.default_rng([seed, CODE_CITY])
    look: dict[str, Any] = {
        name: round(float(rng.uniform(*getattr(group, name))), 3)
        for name in ("sun_azimuth_deg", "sun_elevation_deg", "off_nadir_deg", "gain", "relief_m", "max_height_m")
    }
    look["lean_azimuth_deg"] = round(float(rng.uniform(0.0, 360.0)), 3)
    recipe = {"synthetic": seed, "side_m": group.side_m, "gsd_m": gsd_m, **look}

    def make() -> City:
        from cityweave.synth.aerial import AerialLook, aerial_city

        aerial = aerial_city(seed, group.side_m, gsd_m, AerialLook(**look))
        height = aerial.dsm - aerial.dtm
        return City(aerial.rgb, height, aerial.seen & np.isfinite(height), 255.0)

    return Source(f"synthetic-{seed}", ("synthetic", number), recipe, make)


def _tiles_of(cities: RunCities, number: int, gsd_m: float) -> Iterator[Source]:
    """Every tile whose AOI holds an orthophoto, reference and terrain."""
    run = Run.open(cities.run)
    manifests = sorted((run.folder / "tiles").glob("*/ingest.json"))
    if not manifests:
        raise DataError(f"{run.folder} has no tile with an AOI; run its ingest first")
    for path in manifests:
        manifest = Manifest.read(path)
        if manifest.quarantined:
            continue
        aoi = Aoi(manifest.product("aoi"))
        name = _ortho_of(aoi, cities)
        entry = next(each for each in manifest.values["products"] if each["name"] == "aoi")
        recipe = {"aoi": entry["sha256"], "ortho": name, "gsd_m": gsd_m}
        city = json.loads((run.folder / "config.json").read_text())["city"]["name"]

        def make(aoi: Aoi = aoi, name: str = name) -> City:
            return city_of_aoi(aoi, name, gsd_m)

        yield Source(f"{city}-{path.parent.name}", ("runs", number), recipe, make)


def _places_of(cities: PublicCities, number: int, gsd_m: float) -> Iterator[Source]:
    from cityweave.train.layouts import city_of_place, places

    for place in places(cities.layout, cities.folder):
        files = {path.relative_to(cities.folder).as_posix(): content_hash(path) for path in place.files}
        recipe = {"files": files, "gsd_m": gsd_m, "picture_gsd_m": cities.picture_gsd_m}
        make = partial(city_of_place, place, gsd_m, cities.picture_gsd_m)
        yield Source(f"{cities.layout}-{place.name}", ("public", number), recipe, make)


def _ortho_of(aoi: Aoi, cities: RunCities) -> str:
    there = aoi.orthos
    name = cities.ortho or (there[0] if len(there) == 1 else None)
    if name not in there:
        raise ConfigError(f"{aoi.path} has the orthophotos {', '.join(there) or 'none'}; accepted: `ortho` names one")
    for layer in (REFERENCE, TERRAIN):
        if not aoi.has(layer):
            raise DataError(f"{aoi.path} has no {layer}; accepted: a run with an orthophoto, reference and terrain")
    return name


def city_of_aoi(aoi: Aoi, ortho: str, gsd_m: float) -> City:
    """A tile with its halo; its reference may be any surface model, its terrain any model of the ground."""
    layer = aoi.ortho(ortho)
    grid = CellGrid.covering(aoi.extent, gsd_m)
    share = area_mean(layer.valid[None].astype(np.float32), layer.grid, grid)[0]
    bands = picture(layer.image, f"{aoi.path}: {ortho}")
    white = 255.0 if bands.dtype == np.uint8 else float(np.percentile(bands[:, layer.valid], 99.8))
    known = np.where(layer.valid, bands, 0).astype(np.float32)
    rgb = area_mean(known, layer.grid, grid) / np.maximum(share, 1e-6)
    heights = [_on_grid(aoi, name, grid) for name in (REFERENCE, TERRAIN)]
    height = (heights[0] - heights[1]).astype(np.float32)
    valid = np.isfinite(height) & (share > 0.999)
    if bands.dtype == np.uint8:
        rgb = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return City(rgb, np.where(valid, height, 0).astype(np.float32), valid, white)


def _on_grid(aoi: Aoi, layer: str, grid: CellGrid) -> np.ndarray:
    own, heights = aoi.raster(layer)
    if own.gsd_m > 2 * grid.gsd_m:
        raise ConfigError(
            f"{aoi.path}: {layer} has cells of {own.gsd_m:g} m; accepted for data.gsd_m {grid.gsd_m:g}: up to "
            f"{2 * grid.gsd_m:g} m"
        )
    known = np.isfinite(heights)
    share = area_mean(known[None].astype(np.float32), own, grid)[0]
    mean = area_mean(np.where(known, heights, 0)[None].astype(np.float64), own, grid)[0]
    return np.where(share > 0.999, mean / np.maximum(share, 1e-6), np.nan)


def picture(bands: np.ndarray, where: str) -> np.ndarray:
    """Three bands of whatever came: the first three, or one three times."""
    if bands.shape[0] == 1:
        return np.repeat(bands, 3, axis=0)
    if bands.shape[0] < 3:
        raise DataError(f"{where} has {bands.shape[0]} bands; accepted: 1 (grey), or 3 and more (red, green, blue)")
    return bands[:3]


def area_mean(values: np.ndarray, own: CellGrid, grid: CellGrid) -> np.ndarray:
    """[band, y, x] on `own` to `grid`, weighted by the ground that cells share; beyond `own` counts as zero."""
    rows = _overlap(own.row0, own.rows, own.gsd_m, grid.row0, grid.rows, grid.gsd_m)[::-1, ::-1]
    cols = _overlap(own.col0, own.cols, own.gsd_m, grid.col0, grid.cols, grid.gsd_m)
    return np.stack([rows @ band @ cols.T for band in values])


def _overlap(start: int, count: int, cell: float, new_start: int, new_count: int, new_cell: float) -> np.ndarray:
    """[new, old], sparse: share of each new cell that an old one covers."""
    from scipy.sparse import csr_array

    low = (np.arange(new_start, new_start + new_count) * new_cell)[:, None]
    old = (np.arange(start, start + count) * cell)[None]
    shared = np.minimum(low + new_cell, old + cell) - np.maximum(low, old)
    return csr_array(np.maximum(shared, 0.0) / new_cell)
