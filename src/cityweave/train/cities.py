"""From a recipe to cities: picture, height above ground and where both are known, on one grid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.aoi import REFERENCE, TERRAIN, Aoi
from cityweave.errors import ConfigError, DataError
from cityweave.grid import Box, CellGrid
from cityweave.io.resample import area_mean, known_mean, picture_of
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.train.recipe import (
    Cities,
    DataSettings,
    ModelCities,
    PictureCity,
    PublicCities,
    RunCities,
    SyntheticCities,
)

if TYPE_CHECKING:
    from cityweave.synth.aerial import Aerial, AerialLook

CODE_CITY = 203
MIN_SHARE = 0.05  # a tile that knows less of its ground than this is left out


@dataclass(frozen=True)
class City:
    rgb: np.ndarray  # (3, y, x), uint8 or as the source has it
    height_m: np.ndarray  # (y, x) float32, above ground
    valid: np.ndarray  # (y, x) bool: both are known
    white: float  # value of rgb that is shown as white
    sun: tuple[float, float] | None = None  # azimuth and elevation in degrees, where they are known
    ground_m: np.ndarray | None = None  # (y, x), where it is known everywhere


@dataclass(frozen=True)
class Source:
    """One city to be: its name, what it depends on, and how it is made."""

    name: str
    group: tuple[str, int]  # which entry of the recipe it comes from: its kind and number
    recipe: dict[str, Any]
    make: Callable[[], City]


def sources(settings: DataSettings, split: str) -> Iterator[Source]:
    return sources_of(getattr(settings, split), settings.gsd_m)


def sources_of(cities: Cities, gsd_m: float) -> Iterator[Source]:
    for number, group in enumerate(cities.synthetic):
        for seed in group.seeds:
            yield _synthetic(group, number, seed, gsd_m)
    for number, model in enumerate(cities.models):
        yield _of_model(model, number, gsd_m)
    for number, run in enumerate(cities.runs):
        yield from _tiles_of(run, number, gsd_m)
    for number, picture in enumerate(cities.pictures):
        yield _of_picture(picture, number, gsd_m)
    for number, public in enumerate(cities.public):
        yield from _places_of(public, number, gsd_m)


def _synthetic(group: SyntheticCities, number: int, seed: int, gsd_m: float) -> Source:
    rng = np.random.default_rng([seed, CODE_CITY])
    look: dict[str, Any] = {
        name: round(float(rng.uniform(*getattr(group, name))), 3)
        for name in ("sun_azimuth_deg", "sun_elevation_deg", "off_nadir_deg", "gain", "relief_m", "max_height_m")
    }
    look["lean_azimuth_deg"] = round(float(rng.uniform(0.0, 360.0)), 3)
    look["style"] = group.styles[seed % len(group.styles)]
    recipe = {"synthetic": seed, "side_m": group.side_m, "gsd_m": gsd_m, **look}

    def make() -> City:
        from cityweave.synth.aerial import AerialLook, aerial_city

        return _of_aerial(aerial_city(seed, group.side_m, gsd_m, AerialLook(**look)), AerialLook(**look))

    return Source(f"synthetic-{seed}", ("synthetic", number), recipe, make)


def _of_model(city: ModelCities, number: int, gsd_m: float) -> Source:
    recipe = city.model_dump(mode="json", exclude={"weight", "model"}) | {"gsd_m": gsd_m}
    if city.model.is_file():
        recipe["sha256"] = content_hash(city.model)

    def make() -> City:
        from cityweave.synth.aerial import AerialLook, aerial_model

        look = AerialLook(
            sun_azimuth_deg=city.sun_azimuth_deg,
            sun_elevation_deg=city.sun_elevation_deg,
            off_nadir_deg=city.off_nadir_deg,
        )
        return _of_aerial(aerial_model(city.model, city.crs, Box(*city.bounds_m), city.seed, gsd_m, look), look)

    return Source(f"{city.model.name.partition('.')[0]}-{city.seed}", ("models", number), recipe, make)


def _of_aerial(aerial: Aerial, look: AerialLook) -> City:
    height, sun = aerial.dsm - aerial.dtm, (look.sun_azimuth_deg, look.sun_elevation_deg)
    return City(aerial.rgb, height, aerial.seen & np.isfinite(height), 255.0, sun, aerial.dtm)


def _tiles_of(cities: RunCities, number: int, gsd_m: float) -> Iterator[Source]:
    """Every tile whose AOI holds an orthophoto, reference and terrain."""
    run = Run.open(cities.run)
    manifests, found = sorted((run.folder / "tiles").glob("*/ingest.json")), 0
    if not manifests:
        raise DataError(f"{run.folder} has no tile with an AOI; run its ingest first")
    for path in manifests:
        manifest = Manifest.read(path)
        if manifest.quarantined:
            continue
        aoi = Aoi(manifest.product("aoi"))
        name = _ortho_of(aoi, cities)
        if name is None:
            print(f"{path.parent.name}: its AOI lacks the orthophoto, {REFERENCE} or {TERRAIN}; left out")
            continue
        entry = next(each for each in manifest.values["products"] if each["name"] == "aoi")
        recipe = {"aoi": entry["sha256"], "ortho": name, "gsd_m": gsd_m}
        city = json.loads((run.folder / "config.json").read_text())["city"]["name"]

        def make(aoi: Aoi = aoi, name: str = name) -> City:
            return city_of_aoi(aoi, name, gsd_m)

        found += 1
        yield Source(f"{city}-{path.parent.name}", ("runs", number), recipe, make)
    if not found:
        raise ConfigError(
            f"{run.folder}: no tile has {cities.ortho or 'an orthophoto'}, {REFERENCE} and {TERRAIN}; accepted: a run "
            "whose sources have all three, and as `ortho` the name of one"
        )


def _of_picture(city: PictureCity, number: int, gsd_m: float) -> Source:
    from cityweave.train.layouts import Place, city_of_place

    place = Place(city.name, city.picture, city.surface, city.ground, city.above, city.crs)
    recipe = {"files": {path.name: content_hash(path) for path in place.files if path.is_file()}, "gsd_m": gsd_m}
    return Source(city.name, ("pictures", number), recipe, partial(city_of_place, place, gsd_m, gsd_m))


def _places_of(cities: PublicCities, number: int, gsd_m: float) -> Iterator[Source]:
    from cityweave.train.layouts import city_of_place, places

    for place in places(cities.layout, cities.folder):
        files = {path.relative_to(cities.folder).as_posix(): content_hash(path) for path in place.files}
        recipe = {"files": files, "gsd_m": gsd_m, "picture_gsd_m": cities.picture_gsd_m}
        make = partial(city_of_place, place, gsd_m, cities.picture_gsd_m)
        yield Source(f"{cities.layout}-{place.name}", ("public", number), recipe, make)


def _ortho_of(aoi: Aoi, cities: RunCities) -> str | None:
    """The orthophoto's name; None where the tile lacks it, or heights, as at the rim of what they show."""
    there = aoi.orthos
    if len(there) > 1 and cities.ortho is None:
        raise ConfigError(f"{aoi.path} has the orthophotos {', '.join(there)}; accepted: `ortho` names one")
    name = cities.ortho or next(iter(there), None)
    return name if name in there and aoi.has(REFERENCE) and aoi.has(TERRAIN) else None


def city_of_aoi(aoi: Aoi, ortho: str, gsd_m: float) -> City:
    """A tile with its halo; its reference may be any surface model, its terrain any model of the ground."""
    layer = aoi.ortho(ortho)
    grid = CellGrid.covering(aoi.extent, gsd_m)
    bands = picture_of(layer.image, f"{aoi.path}: {ortho}")
    white = 255.0 if bands.dtype == np.uint8 else float(np.percentile(bands[:, layer.valid], 99.8))
    rgb, share = known_mean(bands, layer.valid, layer.grid, grid)
    seen = share > 0.999
    rgb[:, ~seen] = rgb[:, seen].mean(axis=1, keepdims=True) if seen.any() else 0
    heights = [_on_grid(aoi, name, grid) for name in (REFERENCE, TERRAIN)]
    height = (heights[0] - heights[1]).astype(np.float32)
    valid = np.isfinite(height) & seen
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
