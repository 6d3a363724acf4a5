"""The merge jobs: the city's height model, and its 3D products. Workers do a tile at a time each (`workers.py`); what
they hand back is small, and is put in the tiles' order here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cityweave.cameras import ToGeodetic, geodetic_transform
from cityweave.errors import DataError
from cityweave.grid import Box, Tile
from cityweave.io.textures import MAX_COUNT, OUTSIDE, TileTexture, load_texture
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.merge.earth import Placement
from cityweave.merge.heights import CityRaster, TileHeights, create_store, write_raster, write_shards
from cityweave.merge.index import TileEntry, write_stac, write_tiles_geojson
from cityweave.merge.overview import Choice, OverviewPart, TileSize, overview_part, size_of, write_overview
from cityweave.merge.tiles3d import TileNode, write_tile, write_tileset
from cityweave.merge.workers import Workers, await_files, open_workers
from cityweave.mesh import TileMesh, load_levels
from cityweave.plan import city_cells, city_tiles, vertical_grid

CITY_PRODUCTS = ("city_dsm.tif", "city_dtm.tif", "city.zarr", "tiles3d/tileset.json", "city.glb", "tiles.geojson")


def heights(run: Run, cpus: int = 1) -> None:
    """city_dsm.tif, city_dtm.tif and city.zarr. Tiles are cut by workers, each into its own shards; then one worker
    makes the one raster, one the other."""

    def work(products: Products) -> None:
        tiles = list(_delivered(run, ("dsm",)))
        if not tiles:
            raise DataError("no tile has a height model; every one is quarantined: see tiles/*/dsm.json")
        grid, side = city_cells(run.config), round(run.config.tiles.size_m / run.config.dsm.gsd_m)
        city = CityRaster(grid, side, run.config.city.crs, _vertical_epsg(run))
        with _workers(run, "merge_heights", cpus, len(tiles)) as workers:
            with products.fixed(run.folder / "city.zarr") as store:
                create_store(store, city)
                cuts = {tile.name: _Cut(manifest.path, tile.core, city, store) for tile, (manifest,) in tiles}
                shards = {shard for _, written in workers.map(_cut, cuts) for shard in written}
                await_files(store, shards)
                with ExitStack() as rasters:
                    tasks = {}
                    for name in ("dsm", "dtm"):
                        path = rasters.enter_context(products.fixed(run.folder / f"city_{name}.tif"))
                        # Named so that the next attempt of a killed job removes it.
                        scratch = products.folder / f"{name}.{products.prefix}.tmp.tif"
                        own = frozenset(shard for shard in shards if shard.startswith(f"{name}/"))
                        tasks[path.name] = _Raster(name, own, city, store, scratch, path, workers.threads_per_task)
                    for _ in workers.map(_raster, tasks):
                        pass
            products.usage |= workers.usage()
        products.notes["tiles"] = len(tiles)

    run_job(run, "merge", work, name="merge_heights", inputs=_inputs(run, ("dsm",)))


@dataclass(frozen=True)
class _Cut:
    """A tile's core to be written into the store. `manifest` is that of its dsm job."""

    manifest: Path
    core: Box
    city: CityRaster
    store: Path


def _cut(task: _Cut) -> list[str]:
    tile = TileHeights.read(Manifest.read(task.manifest).product("dsm"), task.city.grid.gsd_m)
    return write_shards(task.store, task.city, *tile.core(task.core))


@dataclass(frozen=True)
class _Raster:
    layer: str
    shards: frozenset[str]
    city: CityRaster
    store: Path
    scratch: Path
    path: Path
    threads: int


def _raster(task: _Raster) -> None:
    await_files(task.store, task.shards)
    write_raster(task.store, task.city, task.layer, task.shards, task.scratch, task.path, task.threads)


def city(run: Run, cpus: int = 1) -> None:
    """tiles3d/, city.glb, tiles.geojson and stac/."""

    def work(products: Products) -> None:
        gather = _Gather(run, products)
        with _workers(run, "merge_city", cpus, len(gather.sources)) as workers:
            gather.everything(workers)
            products.usage |= workers.usage()

    run_job(run, "merge", work, name="merge_city", inputs=_inputs(run, ("mesh", "texture")))


@dataclass(frozen=True)
class _TileSource:
    """A tile's mesh and texture. Their paths are looked up where they are read."""

    tile: Tile
    mesh: Path  # manifests
    texture: Path

    def load(self) -> tuple[list[TileMesh], TileTexture]:
        mesh, texture = Manifest.read(self.mesh), Manifest.read(self.texture)
        return load_levels(mesh.product("mesh")), load_texture(texture.product("texture"))


@dataclass(frozen=True)
class _Placed:
    """A tile to be written as 3D Tiles into `folder`."""

    source: _TileSource
    folder: Path
    run_folder: Path
    crs: str
    vertical_grid: Path | None
    quality: int


def _place(task: _Placed) -> tuple[TileNode, TileSize, TileEntry]:
    levels, texture = task.source.load()
    tile = task.source.tile
    to_geodetic = _geodetic(task.crs, task.vertical_grid)
    placement = Placement.of_tile(_centre(tile.core, levels[0].origin_m[2]), to_geodetic)
    node = write_tile(task.folder, tile, levels, texture, placement, task.quality)
    return node, size_of(tile, levels, texture), _entry(task, node, levels, texture)


@cache
def _geodetic(crs: str, grid: Path | None) -> ToGeodetic:
    return geodetic_transform(crs, grid)


def _entry(task: _Placed, node: TileNode, levels: list[TileMesh], texture: TileTexture) -> TileEntry:
    inside = texture.provenance != OUTSIDE
    products = {"mesh": task.source.mesh, "texture": task.source.texture}
    files = {name: Manifest.read(path).product(name).relative_to(task.run_folder) for name, path in products.items()}
    return TileEntry(
        node.tile,
        files={
            **{name: path.as_posix() for name, path in files.items()},
            "glb": [f"tiles3d/{name}" for name in node.files],
        },
        statistics={
            "triangles": [len(level.faces) for level in levels],
            "geometric_error_m": node.error_m,
            "texture_px": [texture.layout.width, texture.layout.height],
            "observed_share": round(float((texture.provenance[inside] <= MAX_COUNT).mean()), 4),
            "dates": Manifest.read(task.source.texture).notes.get("dates", {}),
        },
    )


@dataclass(frozen=True)
class _Part:
    """A tile's share of the overview."""

    source: _TileSource
    number: int  # of its material
    origin_m: tuple[float, float, float]
    choice: Choice
    quality: int


def _part(task: _Part) -> OverviewPart:
    levels, texture = task.source.load()
    return overview_part(task.source.tile.name, levels, texture, task.choice, task.number, task.origin_m, task.quality)


class _Gather:
    """The 3D products of one run: tiles are written on a first pass, the overview takes what it needs on a second."""

    def __init__(self, run: Run, products: Products) -> None:
        city = run.config.city
        self.run, self.products = run, products
        self.vertical_grid = vertical_grid(city.vertical)
        self.to_geodetic = _geodetic(city.crs, self.vertical_grid)
        self.sources = {
            tile: _TileSource(tile, mesh.path, texture.path)
            for tile, (mesh, texture) in _delivered(run, ("mesh", "texture"))
        }
        if not self.sources:
            raise DataError("no tile has a textured mesh; every one is quarantined: see tiles/*/texture.json")
        epsg = _vertical_epsg(run)
        self.reference = {
            "crs": city.crs,
            "vertical": "ellipsoid" if epsg is None else f"EPSG:{epsg}",
        }

    def everything(self, workers: Workers) -> None:
        with self.products.fixed(self.run.folder / "tiles3d") as folder:
            folder.mkdir()
            placed = self.place(workers, folder)
            nodes = [node for node, _, _ in placed]
            await_files(folder, {name for node in nodes for name in node.files})
            write_tileset(folder / "tileset.json", nodes, {**self.reference, "tiles": len(nodes)})
        self.overview(workers, [size for _, size, _ in placed])
        self.index({entry.tile: entry for _, _, entry in placed})

    def place(self, workers: Workers, folder: Path) -> list[tuple[TileNode, TileSize, TileEntry]]:
        city, quality = self.run.config.city, self.run.config.merge.jpeg_quality
        tasks = {
            tile.name: _Placed(source, folder, self.run.folder, city.crs, self.vertical_grid, quality)
            for tile, source in self.sources.items()
        }
        done = dict(workers.map(_place, tasks))
        return [done[name] for name in tasks]

    def overview(self, workers: Workers, sizes: list[TileSize]) -> None:
        merge = self.run.config.merge
        origin = _centre(self.run.config.city.box, self.run.config.city.z0_m)
        extras = {**self.reference, "origin_m": list(origin), "axes": "x east, y up, z south"}

        def parts(choice: Choice) -> list[OverviewPart]:
            tasks = {
                tile.name: _Part(source, number, origin, choice, merge.jpeg_quality)
                for number, (tile, source) in enumerate(self.sources.items(), start=1)
            }
            done = dict(workers.map(_part, tasks))
            return [done[name] for name in tasks]

        with self.products.fixed(self.run.folder / "city.glb") as path:
            choice = write_overview(path, sizes, parts, merge.overview_budget_mb, extras)
            self.products.notes["overview"] = {
                "level": choice.level,
                "halvings": choice.halvings,
                "within_budget": path.stat().st_size <= merge.overview_budget_mb * 1e6,
            }

    def index(self, entries: dict[Tile, TileEntry]) -> None:
        config = self.run.config
        listed = [entries.get(tile) or TileEntry(tile, reason=_reason(self.run, tile)) for tile in city_tiles(config)]
        with self.products.fixed(self.run.folder / "tiles.geojson") as path:
            write_tiles_geojson(
                path, listed, self.to_geodetic, config.city.z0_m, {"city": config.city.name, **self.reference}
            )
        acquired = sorted(view["acquired"] for view in _survey(self.run)["views"] if view.get("acquired"))
        if not acquired:
            self.products.notes["stac"] = "left out: no view tells its acquisition time, which an item needs"
            return
        facts: dict[str, Any] = {"gsd": config.dsm.gsd_m, "vertical": self.reference["vertical"]}
        if config.city.crs.upper().startswith("EPSG:"):
            facts["proj:epsg"] = int(config.city.crs[5:])
        with self.products.fixed(self.run.folder / "stac") as folder:
            write_stac(
                folder, config.city.name, config.city.box, self.to_geodetic, config.city.heights_m, acquired, facts,
                CITY_PRODUCTS,
            )  # fmt: skip


def _workers(run: Run, job: str, cpus: int, tiles: int) -> AbstractContextManager[Workers]:
    return open_workers(run.config.merge, cpus, tiles, run.folder / "logs" / f"{job}_workers")


def _centre(box: Box, z_m: float) -> tuple[float, float, float]:
    return ((box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2, float(z_m))


def _vertical_epsg(run: Run) -> int | None:
    vertical = run.config.city.vertical
    return None if vertical == "ellipsoid" else vertical.epsg


def _survey(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Manifest.read(run.manifest_path("survey")).product("survey").read_text())
    return values


def _inputs(run: Run, stages: tuple[str, ...]) -> dict[str, Path]:
    tiles = city_tiles(run.config)
    named = {f"{stage}/{tile.name}": run.manifest_path(stage, tile) for stage in stages for tile in tiles}
    return named | {"survey": run.manifest_path("survey")}


def _delivered(run: Run, stages: tuple[str, ...]) -> Iterator[tuple[Tile, tuple[Manifest, ...]]]:
    """Tiles with all of these products, row by row from the south-west."""
    for tile in city_tiles(run.config):
        manifests = tuple(Manifest.read(run.manifest_path(stage, tile)) for stage in stages)
        if not any(manifest.quarantined for manifest in manifests):
            yield tile, manifests


def _reason(run: Run, tile: Tile) -> str | None:
    manifests = (Manifest.read(run.manifest_path(stage, tile)) for stage in ("mesh", "texture"))
    return next((manifest.quarantined for manifest in manifests if manifest.quarantined), None)
