"""From a configuration to what a run consists of: its checks, tiles, halos and the parameters of every stage.

Read by the login node at parse time, so it opens no raster and loads nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cityweave.config import Config, MergeConfig, OrthoSource, RasterSource, SourcesConfig, Vertical, ViewSource
from cityweave.errors import ConfigError, DataError, MissingCapability
from cityweave.fetched import fetched_grid
from cityweave.grid import DIVISIONS, Box, CellGrid, Tile, rings_for, tiles_covering
from cityweave.lattice import owned, owner, windows_over
from cityweave.profiles import read_values

# What a stage's result depends on, beside its inputs. A rule's params and a job's manifest hold just this.
STAGE_SECTIONS: dict[str, tuple[str, ...]] = {
    "synth": ("city", "seed", "synth"),
    "survey": ("city", "sources", "survey"),
    "ingest": ("city", "tiles", "sources", "ingest"),
    "cityscale": ("city", "tiles", "seed", "cityscale"),
    "dsm": ("city", "tiles", "dsm"),
    "geometry": ("city", "tiles", "geometry"),
    "texture": ("city", "tiles", "texture"),
    "merge": ("city", "tiles", "merge"),
    "evaluate": ("city", "tiles", "seed", "evaluate"),
    "report": ("city", "report"),
}
TILES_WORTH_A_WORKER = 16
LATTICE_PX = 2  # the lattice of windows is one of metres: to place them, any number of pixels will do
_PER_TILE = ("ingest", "cityscale", "dsm", "geometry", "texture")
# Keys of a section that say where its work is done: products come out the same, so a change reruns nothing.
_PLACE_OF_WORK: dict[str, tuple[str, ...]] = {"merge": ("workers", "cluster", "slurm")}

# Manifests of the city and of a tile in the order of work, with the stage that each belongs to.
CITY_MANIFESTS: dict[str, str] = {
    "synth": "synth",
    "survey": "survey",
    "merge_heights": "merge",
    "merge_city": "merge",
    "evaluate": "evaluate",
    "report": "report",
}
TILE_MANIFESTS: dict[str, str] = {  # of every run; `tile_manifests` has what the configuration adds
    "ingest": "ingest",
    "dsm": "dsm",
    **{f"sdf_{division}": "geometry" for division in DIVISIONS},
    "mesh": "geometry",
    "texture": "texture",
}
# What one job of a kind does, as costs are counted, and the stage that it belongs to.
STAGE_OF = CITY_MANIFESTS | TILE_MANIFESTS | {"fit": "geometry", "cityscale": "cityscale", "fuse": "dsm"}


def tile_manifests(config: Config) -> dict[str, str]:
    """Manifests of a tile in the order of work. Fused heights come of stereo and cityscale. Refined, a texture goes
    back and forth: texture_0, novel_1, texture_1, novel_2, ... and at last texture."""
    rounds = range(config.texture.refine.rounds)
    refined = [name for number in rounds for name in (f"texture_{number}", novel_name(number + 1))]
    before = {"ingest": "ingest"}
    if config.dsm.method == "fused":
        before["stereo"] = "dsm"
    if config.dsm.method != "stereo":
        before["cityscale"] = "cityscale"
    before |= {name: stage for name, stage in TILE_MANIFESTS.items() if name not in ("ingest", "texture")}
    return before | dict.fromkeys([*refined, "texture"], "texture")


def texture_name(config: Config, round_number: int) -> str:
    """Manifest of the texture after so many rounds of refinement."""
    return "texture" if round_number == config.texture.refine.rounds else f"texture_{round_number}"


def novel_name(round_number: int) -> str:
    """Manifest of a tile's own novel views, restored in that round."""
    return f"novel_{round_number}"


def read_config(path: Path) -> Config:
    """A configuration from its YAML file."""
    return load_config(read_values(path))


def load_config(values: Mapping[str, Any]) -> Config:
    """Validate plain values; every complaint on one line, with what would be accepted."""
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(detail) for detail in error.errors())) from None
    _check(config)
    return config


def _complaint(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {where}; accepted there: {', '.join(_accepted(detail['loc'][:-1]))}"
    if detail["type"] == "missing" and detail["loc"][-1] == "vertical":
        return (
            f"{where} is missing; accepted: 'ellipsoid', or {{epsg: CODE, grid: FILE}} for heights above a geoid "
            "(a wrong guess is tens of metres off)"
        )
    return f"{where}: {detail['msg']}, got {detail['input']!r}"


def _accepted(loc: tuple[Any, ...]) -> list[str]:
    """Keys of the model that `loc` leads to."""
    model: Any = Config
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = next((m for m in _models(annotation)), model)
    return list(model.model_fields)


def _models(annotation: Any) -> list[Any]:
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [m for argument in getattr(annotation, "__args__", ()) for m in _models(argument)]


def _check(config: Config) -> None:
    _check_crs(config)
    check_vertical(config.city.vertical, "city.vertical")
    city, tiles, pitch = config.city, config.tiles, config.geometry.pitch_m
    if (city.bounds_m is None) == (city.polygon is None):
        raise ConfigError("city: exactly one of bounds_m and polygon is needed")
    if city.heights_m[0] >= city.heights_m[1]:
        raise ConfigError(f"city.heights_m: lowest before highest, got {list(city.heights_m)}")
    if not _multiple(tiles.size_m, 2 * pitch):
        raise ConfigError(
            f"tiles.size_m is {tiles.size_m}; it must be a multiple of twice geometry.pitch_m ({2 * pitch:g} m)"
        )
    if not _multiple(tiles.shift_m, pitch):
        raise ConfigError(f"tiles.shift_m is {tiles.shift_m}; it must be a multiple of geometry.pitch_m ({pitch:g} m)")
    if not _multiple(pitch, config.dsm.gsd_m):
        raise ConfigError(
            f"geometry.pitch_m is {pitch:g}; it must be an integer multiple of dsm.gsd_m ({config.dsm.gsd_m:g} m)"
        )
    if not _multiple(tiles.size_m, config.dsm.gsd_m):
        raise ConfigError(
            f"tiles.size_m is {tiles.size_m}; it must be a multiple of dsm.gsd_m ({config.dsm.gsd_m:g} m)"
        )
    _check_heights_source(config)
    if config.synth is None and len(config.sources.views) < 2 and config.dsm.method != "cityscale":
        found = "holds 1 view" if config.sources.views else "is empty"
        raise ConfigError(f"sources.views {found}; accepted: at least 2 satellite views, or a synth section")
    if config.synth is not None and config.sources != SourcesConfig():
        raise ConfigError("sources and synth exclude each other: a synthetic city brings its own sources")
    sources = resolved_sources(config)
    names = [view.name for view in sources.views] + [ortho.name for ortho in sources.ortho]
    if len(set(names)) != len(names):
        raise ConfigError(f"names of views and orthophotos must differ, got {', '.join(names)}")
    for index, raster in enumerate((config.sources.terrain, config.sources.reference)):
        if raster is not None and raster.vertical is not None:
            check_vertical(raster.vertical, f"sources.{('terrain', 'reference')[index]}.vertical")
    if not city_tiles(config):
        raise ConfigError("no tile: the polygon holds no ground; accepted: a polygon with an area, in the city's CRS")
    _check_halo(config)


def _check_heights_source(config: Config) -> None:
    """What heights from one picture are made of and stand on."""
    dsm, sources = config.dsm, resolved_sources(config)
    if dsm.method == "stereo":
        for key in ("terrain", "flat_m"):
            if (value := getattr(dsm, key)) is not None:
                raise ConfigError(f"dsm.{key} is {value}; accepted with dsm.method cityscale or fused")
        return
    names = [ortho.name for ortho in sources.ortho]
    wanted = config.cityscale.ortho
    if not names or (wanted is None and len(names) > 1) or (wanted is not None and wanted not in names):
        raise ConfigError(
            f"dsm.method {dsm.method} needs one orthophoto: sources.ortho has {', '.join(names) or 'none'}; accepted: "
            "one, or several of which cityscale.ortho names one"
        )
    terrain = dsm.terrain or ("estimated" if dsm.method == "fused" else "given")
    if terrain == "estimated" and dsm.method == "cityscale":
        raise ConfigError("dsm.terrain: one picture doesn't tell it; accepted with dsm.method cityscale: given, flat")
    if terrain == "given" and sources.terrain is None:
        raise ConfigError(
            "dsm.terrain is given, but sources.terrain names none; accepted: heights of the bare ground there, or "
            "dsm: {terrain: flat, flat_m: HEIGHT}"
        )
    if (terrain == "flat") != (dsm.flat_m is not None):
        raise ConfigError("dsm.flat_m is the height of flat ground: accepted with dsm.terrain flat, and only with it")


def _multiple(value: float, of: float) -> bool:
    return math.isclose(value / of, round(value / of), abs_tol=1e-9) and (value == 0 or round(value / of) >= 1)


def _check_crs(config: Config) -> None:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    accepted = "accepted: a projected CRS in metres, such as EPSG:32637"
    try:
        crs = CRS.from_user_input(config.city.crs)
    except CRSError as error:
        raise ConfigError(f"city.crs: {config.city.crs!r} is not known to PROJ; {accepted}") from error
    if not crs.is_projected:
        raise ConfigError(f"city.crs: {config.city.crs} ({crs.name}) is not projected; {accepted}")
    units = {axis.unit_name for axis in crs.axis_info[:2]}
    if units != {"metre"}:
        raise ConfigError(f"city.crs: {config.city.crs} counts in {', '.join(sorted(units))}; {accepted}")
    if len(crs.axis_info) != 2:
        raise ConfigError(f"city.crs: {config.city.crs} has heights, which city.vertical states; {accepted}")
    directions = [axis.direction for axis in crs.axis_info]
    if sorted(directions) != ["east", "north"]:  # a mirrored frame would turn every mesh inside out
        raise ConfigError(f"city.crs: {config.city.crs} counts to the {' and '.join(directions)}; {accepted}")


def check_vertical(vertical: Vertical, where: str) -> None:
    grid = vertical_grid(vertical)
    if vertical == "ellipsoid" or grid is None:
        return
    if not grid.is_file():
        raise MissingCapability(
            f"{where}: grid {vertical.grid} for EPSG:{vertical.epsg} is not there; accepted: a local GTX or GeoTIFF "
            "geoid grid (`cityweave fetch` brings those that PROJ knows), or vertical: ellipsoid"
        )
    if vertical.sha256 and hashlib.sha256(grid.read_bytes()).hexdigest() != vertical.sha256:
        raise DataError(f"{where}: {grid} doesn't have the checksum that the config states")


def vertical_grid(vertical: Vertical) -> Path | None:
    """The grid file for `cameras.geodetic_transform`, as named or as fetched; None for ellipsoidal heights."""
    if vertical == "ellipsoid":
        return None
    return (vertical.grid if vertical.grid.is_file() else fetched_grid(vertical.grid) or vertical.grid).resolve()


def halos_m(config: Config) -> dict[str, float]:
    """How far beyond a tile's core each stage reads, in metres."""
    nodes = 2 * config.geometry.ramp_nodes + 4  # blend, field support, one ring of cells
    geometry = nodes * config.geometry.pitch_m
    dsm = geometry + config.dsm.matching_halo_m
    views = config.synth.views if config.synth else config.sources.views
    hiding = dsm + (config.dsm.occluder_reach_m if len(views) > 2 else 0)  # of a pair, both are needed everywhere
    occluders = config.city.max_building_m * occluders_lean(config)
    return {"geometry": geometry, "dsm": dsm, "dsm's occluders": hiding, "texture (neighbours' meshes)": occluders}


def occluders_lean(config: Config) -> float:
    """Metres in plan, per metre up, at which something may stand before what a view textures."""
    lean = math.tan(math.radians(config.texture.max_off_nadir_deg))
    refine = config.texture.refine
    return max(lean, 1 / math.tan(math.radians(refine.pitch_deg))) if refine.rounds else lean


def told_by_a_picture(config: Config) -> bool:
    """Whether an orthophoto alone gives a tile heights: then no view need show it."""
    dsm = config.dsm
    return dsm.method == "cityscale" or (dsm.method == "fused" and dsm.terrain in ("given", "flat"))


def ingest_halo_m(config: Config) -> float:
    """What an AOI holds around its core. Texture reads its occluders from neighbours' meshes, not from the AOI."""
    if config.ingest.halo_m is not None:
        return config.ingest.halo_m
    step = config.geometry.pitch_m
    return math.ceil(halos_m(config)["dsm's occluders"] / step) * step


def survey_reach_m(config: Config) -> float:
    """How far beyond the city the survey looks for heights: a tile and its halo may stick out so far."""
    return math.ceil(config.tiles.size_m + ingest_halo_m(config))


def _check_halo(config: Config) -> None:
    halos = halos_m(config)
    table = ", ".join(f"{stage} {metres:g} m" for stage, metres in halos.items())
    needed = halos["dsm's occluders"]
    if ingest_halo_m(config) < needed:
        raise ConfigError(f"ingest.halo_m is {config.ingest.halo_m:g}; at least {needed:g} is needed ({table})")
    if 2 * halos["geometry"] > config.tiles.size_m / 2:
        raise ConfigError(
            f"tiles.size_m is {config.tiles.size_m}; a division of half of it must hold twice the geometry halo "
            f"({table}): accepted from {4 * halos['geometry']:g}"
        )


def fusing_reach_m(config: Config) -> float:
    """How far beyond the ground of a tile's height model measurements tell of the scale and lean of predictions: a roof
    comes from as far as roofs may lean, a node of its cell looks around, and roofs come from as far to there."""
    if config.dsm.method != "fused":
        return 0.0
    return 2.5 * config.dsm.align_m + 2 * config.dsm.most_lean * config.city.max_building_m


def cityscale_halo_m(config: Config) -> float:
    """Ground around a tile's core whose predictions its height model asks for."""
    return halos_m(config)["geometry"] + fusing_reach_m(config)


def pictured_tiles(config: Config, tile: Tile, city: Collection[Tile]) -> list[Tile]:
    """The tile and those whose pictures its windows show."""
    window_m, halo_m = config.cityscale.window_m, cityscale_halo_m(config)
    boxes = [window.grid.box for window in owned(tile, city, LATTICE_PX, window_m / LATTICE_PX, halo_m)]
    near = tile.ring(rings_for(window_m + halo_m, tile.size_m))
    return [t for t in near if t == tile or (t in city and any(t.core.intersects(box) for box in boxes))]


def predicting_tiles(config: Config, tile: Tile, city: Collection[Tile]) -> list[Tile]:
    """Those whose windows show the ground that a tile's height model asks for."""
    window_m, halo_m = config.cityscale.window_m, cityscale_halo_m(config)
    needed = windows_over(tile.core.grow(halo_m), LATTICE_PX, window_m / LATTICE_PX)
    owners = {owner(window, city, tile.size_m, tile.shift_m, halo_m) for window in needed}
    return sorted((each for each in owners if each is not None), key=lambda each: (each.j, each.i))


def stereo_rings(config: Config) -> int:
    """Rings of neighbours whose measured heights a tile's fused ones look at."""
    return rings_for(cityscale_halo_m(config), config.tiles.size_m)


def novel_rings(config: Config) -> int:
    """Rings of neighbours whose novel views may show a tile."""
    return rings_for(config.texture.refine.reach_m, config.tiles.size_m) if config.texture.refine.rounds else 0


def rendered_rings(config: Config) -> int:
    """Rings of neighbours that a tile's novel views may show, or that may stand before what they show."""
    refine = config.texture.refine
    standing_m = config.city.max_building_m / math.tan(math.radians(refine.pitch_deg))
    return rings_for(refine.reach_m + standing_m, config.tiles.size_m)


def texture_rings(config: Config) -> int:
    """Rings of neighbours that may stand between a tile and a camera."""
    return rings_for(halos_m(config)["texture (neighbours' meshes)"], config.tiles.size_m)


def city_tiles(config: Config) -> list[Tile]:
    """Every tile of the city, row by row from the south-west."""
    city, size, shift = config.city, config.tiles.size_m, config.tiles.shift_m
    tiles = tiles_covering(city.box, size, shift)
    if city.polygon is None:
        return tiles
    from shapely import Polygon, box, make_valid

    shapes = [make_valid(Polygon(ring)) for ring in city.rings()]
    return [tile for tile in tiles if any(shape.intersection(box(*tile.core.as_tuple())).area > 0 for shape in shapes)]


def city_cells(config: Config) -> CellGrid:
    """Cells of the city's height model: all tiles' cores."""
    cores = [tile.core for tile in city_tiles(config)]
    west, south = min(core.xmin for core in cores), min(core.ymin for core in cores)
    east, north = max(core.xmax for core in cores), max(core.ymax for core in cores)
    return CellGrid.covering(Box(west, south, east, north), config.dsm.gsd_m)


def local_workers(merge: MergeConfig, tiles: int) -> int:
    """Processes that a merge is worth on one machine: few tiles are done before a second one has started."""
    return max(1, min(merge.workers, tiles // TILES_WORTH_A_WORKER))


def dsm_box(config: Config, tile: Tile) -> Box:
    """Ground that a tile's height model covers: its core and what the geometry reads around it."""
    return tile.core.grow(halos_m(config)["geometry"])


def run_folder(config: Config) -> Path:
    """Where a run works. A shifted tile grid is a measurement beside the city's own run."""
    shift = f"_shift{config.tiles.shift_m}" if config.tiles.shift_m else ""
    return config.workflow.results / f"{config.city.name}{shift}"


def base_folder(config: Config) -> Path:
    """Where the city's own run works; a synthetic city's sources are there, made once."""
    return config.workflow.results / config.city.name


def resolved_sources(config: Config) -> SourcesConfig:
    """The sources as files, also those that a synthetic city will write."""
    if config.synth is None:
        return config.sources
    folder = base_folder(config) / "sources"
    return SourcesConfig(
        views=tuple(ViewSource(name=v.name, path=folder / "views" / f"{v.name}.tif") for v in config.synth.views),
        ortho=(OrthoSource(name="ortho", path=folder / "ortho.tif"),),
        terrain=RasterSource(path=folder / "terrain.tif"),
        reference=RasterSource(path=folder / "reference.tif"),
    )


def rpc_beside(image: Path) -> Path | None:
    """The file that belongs to an image by its name, whatever the case of its letters."""
    stem = image.stem
    wanted = [f"{stem}.rpb", f"{stem}_rpc.txt", f"{stem}.geom", f"{stem}_rpc.xml", f"rpc_{stem}.xml"]
    if stem.lower().startswith("img_"):  # Pléiades and SPOT: IMG_…_R1C1.TIF with RPC_….XML
        short = stem[4:]
        wanted += [f"rpc_{short}.xml", f"rpc_{re.sub(r'_R[0-9]+C[0-9]+$', '', short, flags=re.IGNORECASE)}.xml"]
    there = {path.name.lower(): path for path in sorted(image.parent.iterdir())} if image.parent.is_dir() else {}
    return next((there[name.lower()] for name in wanted if name.lower() in there), None)


def view_files(view: ViewSource) -> list[Path]:
    """Everything that a view is read from; a file beside it may turn out not to be needed."""
    return [file for file in (view.path, view.mask, view.rpc or rpc_beside(view.path)) if file is not None]


def stage_params(config: Config, stage: str) -> dict[str, Any]:
    """The part of the configuration that a stage's result depends on, as plain values."""
    dumped = config.model_dump(mode="json")
    params = {section: dumped[section] for section in STAGE_SECTIONS[stage]}
    for section in _PLACE_OF_WORK.keys() & params.keys():
        params[section] = {key: v for key, v in params[section].items() if key not in _PLACE_OF_WORK[section]}
    if stage in _PER_TILE:  # a city may grow round a tile without changing it
        params["city"] = {key: value for key, value in params["city"].items() if key not in ("bounds_m", "polygon")}
    if stage == "survey":
        params["derived"] = {
            "pointing_allowance_px": config.ingest.pointing_allowance_px,
            "reach_m": survey_reach_m(config),
        }
    elif stage == "ingest":
        params["derived"] = {"halo_m": ingest_halo_m(config), "gsd_m": config.dsm.gsd_m}
        if told_by_a_picture(config):
            params["derived"] |= {"views_needed": False}
    elif stage == "cityscale":
        params["derived"] = {"halo_m": cityscale_halo_m(config)}
    elif stage == "dsm":
        halos = halos_m(config)
        params["derived"] = {"halo_m": halos["geometry"], "occluders_m": halos["dsm's occluders"]}
    elif stage == "geometry":
        params["derived"] = {"gsd_m": config.dsm.gsd_m}
    elif stage == "texture":
        params["derived"] = {"rings": texture_rings(config)}
        if config.texture.refine.rounds:
            params["derived"] |= {"rendered_rings": rendered_rings(config)}
    return params


def canonical_json(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
