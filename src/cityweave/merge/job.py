"""The merge jobs: the city's height model, and its 3D products. Each reads one tile at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cityweave.cameras import ToGeodetic, geodetic_transform
from cityweave.errors import DataError
from cityweave.grid import Box, Tile
from cityweave.io.textures import MAX_COUNT, OUTSIDE, TileTexture, load_texture
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.merge.earth import Placement
from cityweave.merge.heights import CityRaster, TileHeights, city_grid, heights_writer, write_cog
from cityweave.merge.index import TileEntry, write_stac, write_tiles_geojson
from cityweave.merge.overview import TileSize, size_of, write_overview
from cityweave.merge.tiles3d import TileNode, write_tile, write_tileset
from cityweave.mesh import TileMesh, load_levels
from cityweave.plan import city_tiles, vertical_grid

CITY_PRODUCTS = ("city_dsm.tif", "city_dtm.tif", "city.zarr", "tiles3d/tileset.json", "city.glb", "tiles.geojson")


def heights(run: Run) -> None:
    """city_dsm.tif, city_dtm.tif and city.zarr."""

    def work(products: Products) -> None:
        tiles = list(_delivered(run, ("dsm",)))
        if not tiles:
            raise DataError("no tile has a height model; every one is quarantined: see tiles/*/dsm.json")
        gsd_m = run.config.dsm.gsd_m
        city = CityRaster(
            city_grid((tile.core for tile in city_tiles(run.config)), gsd_m),
            round(run.config.tiles.size_m / gsd_m),
            run.config.city.crs,
            _vertical_epsg(run),
        )
        # Named so that the next attempt of a killed job removes them.
        scratch = {name: products.folder / f"{name}.{products.prefix}.tmp.tif" for name in ("dsm", "dtm")}
        with products.fixed(run.folder / "city.zarr") as store, heights_writer(city, scratch, store) as writer:
            for tile, (manifest,) in tiles:
                layers = TileHeights.read(manifest.product("dsm"), gsd_m)
                writer.write(*layers.core(tile.core))
        for name, path in scratch.items():
            with products.fixed(run.folder / f"city_{name}.tif") as aside:
                write_cog(path, aside, city.grid.shape)
            path.unlink()
        products.notes["tiles"] = len(tiles)

    run_job(run, "merge", work, name="merge_heights", inputs=_inputs(run, ("dsm",)))


def city(run: Run) -> None:
    """tiles3d/, city.glb, tiles.geojson and stac/."""

    def work(products: Products) -> None:
        _Gather(run, products).everything()

    run_job(run, "merge", work, name="merge_city", inputs=_inputs(run, ("mesh", "texture")))


class _Gather:
    """The 3D products of one run: tiles are written on a first pass, the overview takes what it needs on a second."""

    def __init__(self, run: Run, products: Products) -> None:
        city = run.config.city
        self.run, self.products = run, products
        self.to_geodetic: ToGeodetic = geodetic_transform(city.crs, vertical_grid(city.vertical))
        self.manifests = {tile: (mesh, texture) for tile, (mesh, texture) in _delivered(run, ("mesh", "texture"))}
        if not self.manifests:
            raise DataError("no tile has a textured mesh; every one is quarantined: see tiles/*/texture.json")
        epsg = _vertical_epsg(run)
        self.reference = {
            "crs": city.crs,
            "vertical": "ellipsoid" if epsg is None else f"EPSG:{epsg}",
        }

    def everything(self) -> None:
        merge = self.run.config.merge
        nodes: list[TileNode] = []
        sizes: list[TileSize] = []
        entries: dict[Tile, TileEntry] = {}
        with self.products.fixed(self.run.folder / "tiles3d") as folder:
            folder.mkdir()
            for tile in self.manifests:
                levels, texture = self.load(tile)
                placement = Placement.of_tile(_centre(tile.core, levels[0].origin_m[2]), self.to_geodetic)
                nodes.append(write_tile(folder, tile, levels, texture, placement, merge.jpeg_quality))
                sizes.append(size_of(tile, levels, texture))
                entries[tile] = self.entry(nodes[-1], levels, texture)
            write_tileset(folder / "tileset.json", nodes, {**self.reference, "tiles": len(nodes)})
        origin = _centre(self.run.config.city.box, self.run.config.city.z0_m)
        extras = {**self.reference, "origin_m": list(origin), "axes": "x east, y up, z south"}
        with self.products.fixed(self.run.folder / "city.glb") as path:
            choice = write_overview(
                path, sizes, self.load, origin, merge.overview_budget_mb, merge.jpeg_quality, extras
            )
            self.products.notes["overview"] = {
                "level": choice.level,
                "halvings": choice.halvings,
                "within_budget": path.stat().st_size <= merge.overview_budget_mb * 1e6,
            }
        self.index(entries)

    def load(self, tile: Tile) -> tuple[list[TileMesh], TileTexture]:
        mesh, texture = self.manifests[tile]
        return load_levels(mesh.product("mesh")), load_texture(texture.product("texture"))

    def entry(self, node: TileNode, levels: list[TileMesh], texture: TileTexture) -> TileEntry:
        mesh, baked = self.manifests[node.tile]
        inside = texture.provenance != OUTSIDE
        return TileEntry(
            node.tile,
            files={
                "mesh": self._relative(mesh.product("mesh")),
                "texture": self._relative(baked.product("texture")),
                "glb": [f"tiles3d/{name}" for name in node.files],
            },
            statistics={
                "triangles": [len(level.faces) for level in levels],
                "geometric_error_m": node.error_m,
                "texture_px": [texture.layout.width, texture.layout.height],
                "observed_share": round(float((texture.provenance[inside] <= MAX_COUNT).mean()), 4),
            },
        )

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

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.run.folder).as_posix()


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
