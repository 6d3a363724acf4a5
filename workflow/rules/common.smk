"""Paths, the tile list and what the rules share. Parsed by every job, so nothing heavy is imported here."""

from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

from cityweave.codehash import stage_hash
from cityweave.errors import CityweaveError
from cityweave.grid import DIVISIONS, Tile
from cityweave.manifest import Run
from cityweave.plan import (
    base_folder,
    canonical_json,
    city_tiles,
    load_config,
    local_workers,
    novel_name,
    novel_rings,
    pictured_tiles,
    predicting_tiles,
    rendered_rings,
    resolved_sources,
    run_folder,
    stage_params,
    stereo_rings,
    texture_name,
    texture_rings,
    tile_manifests,
    view_files,
)

try:
    CONFIG = load_config(config)
    if workflow.is_main_process:
        from cityweave.cityscale.weights import require_cityscale
        from cityweave.geometry.solvers import require_solver
        from cityweave.ingest.preflight import check_sources
        from cityweave.texture.restorer import require_restorer

        require_solver(CONFIG.geometry)
        require_restorer(CONFIG.texture.refine)
        require_cityscale(CONFIG)
        check_sources(CONFIG)
        if CONFIG.merge.cluster == "slurm":
            from cityweave.merge.workers import require_slurm

            require_slurm()
except CityweaveError as error:
    refuse(error)

RUN = str(run_folder(CONFIG))
BASE = str(base_folder(CONFIG))
TILES = {tile.name: tile for tile in city_tiles(CONFIG)}
CITY = set(TILES.values())


if workflow.is_main_process:
    Run.begin(CONFIG)


wildcard_constraints:
    tile=r"[EW]\d+_[NS]\d+",
    division=r"[0-3]",


def city_manifest(name, run=RUN):
    return f"{run}/city/{name}.json"


def tile_manifest(name, tile="{tile}"):
    return f"{RUN}/tiles/{tile}/{name}.json"


def all_tiles(name):
    return [tile_manifest(name, tile) for tile in TILES]


def known_tile(name):
    if name not in TILES:
        raise WorkflowError(f"{name} is not in the city; it has {', '.join(list(TILES)[:4])} ...")
    return TILES[name]


def around(name, rings):
    """Input function: a manifest of the tile and of its neighbours that belong to the city."""

    def manifests(wildcards):
        ring = known_tile(wildcards.tile).ring(rings)
        return [tile_manifest(name, tile.name) for tile in ring if tile.name in TILES]

    return manifests


def run_of(wildcards, output):
    """The run that an output belongs to."""
    return RUN if output[0].startswith(f"{RUN}/") else BASE


def params_of(stage):
    """What a result depends on beside its inputs; a change reruns the stage."""
    return canonical_json(stage_params(CONFIG, stage))


def code_of(stage):
    return stage_hash(stage) if CONFIG.workflow.on_code_change == "rerun" else "any"


def packs(tiles_per_pack):
    """The tile list cut into runs of neighbours, each served by one job."""
    names = list(TILES)
    return [names[start : start + tiles_per_pack] for start in range(0, len(names), tiles_per_pack)]


# Taken from the outputs, so that Snakemake doesn't count them among what a result depends on: a tile stays valid when
# the next run packs otherwise.


def tiles_of(wildcards, output):
    return " ".join(f"--tile {name}" for name in dict.fromkeys(Path(file).parent.name for file in output))


def at_once_of(wildcards, output):
    return CONFIG.workflow.pack.at_once


def divisions_of(wildcards, output):
    return " ".join(f"--division {name}" for name in dict.fromkeys(Path(file).stem[-1] for file in output))


def requested(rule):
    """What the profile asks for under a rule's name, for the jobs of that rule that serve several tiles."""
    asked = workflow.resource_settings.overwrite_resources.get(rule, {})
    return {name: each._evaluator or each.value for name, each in asked.items()}


def gathered(function, names):
    """The inputs that `function` names for each tile of a pack, each once."""
    files = []
    for name in names:
        wanted = function(SimpleNamespace(tile=name))
        files += [wanted] if isinstance(wanted, str) else wanted
    return list(dict.fromkeys(files))


ADOPTED = CONFIG.workflow.adopt.stages if CONFIG.workflow.adopt else ()
SOURCES = resolved_sources(CONFIG)
SOURCE_FILES = sorted(
    {str(file) for view in SOURCES.views for file in view_files(view)}
    | {str(ortho.path) for ortho in SOURCES.ortho}
    | {str(raster.path) for raster in (SOURCES.terrain, SOURCES.reference) if raster}
)
# A synthetic city's sources are known by the manifest of the job that makes them.
SOURCE_INPUT = [city_manifest("synth", BASE)] if CONFIG.synth else SOURCE_FILES
PACK = CONFIG.workflow.pack
CITYSCALE_WEIGHTS = [str(CONFIG.cityscale.weights)] if CONFIG.cityscale.weights else []


# What each tile's job reads.


def ingest_input(wildcards):
    return [city_manifest("survey"), *SOURCE_INPUT]


def cityscale_input(wildcards):
    tiles = pictured_tiles(CONFIG, known_tile(wildcards.tile), CITY)
    return [tile_manifest("ingest", tile.name) for tile in tiles] + CITYSCALE_WEIGHTS


def measure_input(wildcards):
    return tile_manifest("ingest", wildcards.tile)


def predict_input(wildcards):
    measured = around("stereo", stereo_rings(CONFIG))(wildcards) if CONFIG.dsm.method == "fused" else []
    predicting = predicting_tiles(CONFIG, known_tile(wildcards.tile), CITY)
    return [measure_input(wildcards), *measured, *(tile_manifest("cityscale", tile.name) for tile in predicting)]


def fit_input(wildcards):
    return tile_manifest("dsm", wildcards.tile)


def mesh_input(wildcards):
    return [manifest for division in DIVISIONS for manifest in around(f"sdf_{division}", 1)(wildcards)]
