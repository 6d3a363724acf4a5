"""The texture job: meshes and views of a tile in, its atlas out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.aoi import Aoi, OrthoLayer
from cityweave.cameras import fit_local, geodetic_transform, straight_down
from cityweave.config import Config
from cityweave.errors import DataError, Quarantine
from cityweave.grid import Tile
from cityweave.io.textures import GENERATED, MAX_COUNT, NO_VIEW, OUTSIDE, save_texture
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.mesh import TileMesh, load_levels
from cityweave.plan import (
    city_tiles,
    novel_name,
    novel_rings,
    occluders_lean,
    texture_name,
    texture_rings,
    vertical_grid,
)
from cityweave.texture.atlas import Atlas, AtlasSettings, Triangles, build_atlas, surface_triangles
from cityweave.texture.bake import BakeSettings, bake
from cityweave.texture.novel import NovelView, load_views
from cityweave.texture.sharpen import SharpenSettings
from cityweave.texture.tint import tinted
from cityweave.texture.views import SourceView, VisibilitySettings

_HEIGHT_SLACK_M = 2.0  # cameras are fitted a little beyond the meshes


def run(run: Run, tile: Tile, round_number: int | None = None) -> None:
    """texture.<hash>/ with atlas.png, provenance.png and uv.npz, after so many rounds of refinement; default: all."""
    refine = run.config.texture.refine
    number = refine.rounds if round_number is None else round_number
    around = _neighbours(run.config, tile)
    inputs = {"ingest": run.manifest_path("ingest", tile), "survey": run.manifest_path("survey")}
    inputs |= {f"mesh/{other.name}": run.manifest_path("mesh", other) for other in [tile, *around]}
    novel = {other: run.manifest_path(novel_name(number), other) for other in _ring(run, tile, novel_rings(run.config))}
    inputs |= {f"novel/{other.name}": path for other, path in novel.items()} if number else {}
    run_job(
        run,
        "texture",
        lambda products: _work(run, tile, products, number, list(novel.values()) if number else []),
        name=texture_name(run.config, number),
        tile=tile,
        inputs=inputs,
    )


def _ring(run: Run, tile: Tile, rings: int) -> list[Tile]:
    known = set(city_tiles(run.config))
    return [other for other in tile.ring(rings) if other in known]


def _neighbours(config: Config, tile: Tile) -> list[Tile]:
    """The city's tiles that may stand before this one, row by row from the south-west."""
    known = set(city_tiles(config))
    return [other for other in tile.ring(texture_rings(config)) if other in known and other != tile]


def _work(run: Run, tile: Tile, products: Products, number: int, novel: list[Path]) -> None:
    for stage in ("mesh", "ingest"):
        if quarantined := Manifest.read(run.manifest_path(stage, tile)).quarantined:
            raise Quarantine(quarantined)
    scene, settings = scene_of(run, tile), run.config.texture
    refine = settings.refine
    prior = refine.prior_px if number else settings.prior_px
    sharpening = SharpenSettings(
        settings.sharpen_steps, settings.blur_px, prior=prior, outlier_floor=settings.robust_floor
    )
    bake_settings = BakeSettings(
        scene.visibility, sharpening, refine.weight, refine.generated, robust_floor=settings.robust_floor
    )
    atlas, views = scene.atlas, scene.views
    restored = _novel_views(novel, scene, refine.reach_m)
    baked = bake(atlas, scene.own, scene.occluders, views, bake_settings, restored)
    last = number == refine.rounds  # before, the views' grey is what restored pictures are laid beside
    colours = scene.colours if settings.tint and last else []
    texture = tinted(baked.texture, atlas, colours, scene.origin_m)
    with products.path(texture_name(run.config, number)) as folder:
        save_texture(folder, texture)
    known = {view["name"]: view.get("acquired") for view in _survey(run)["views"]}
    acquired = [known.get(view.name) for view in views]  # an orthophoto's is unknown
    inside = texture.provenance[texture.provenance != OUTSIDE]
    seen = inside[inside <= MAX_COUNT]
    products.notes |= {
        "views": [view.name for view in views],
        "acquired": acquired,
        "dates": _shares_of_dates(texture.lead, acquired),
        "atlas_px": [atlas.layout.width, atlas.layout.height],
        "charts": [len(band.chart) for band in atlas.bands[1:]],
        "tinted_by": [ortho.name for ortho in colours],
        "observed_share": round(float((inside <= MAX_COUNT).mean()), 4),
        "novel_views": len(restored),
        "generated_share": round(float((inside == GENERATED).mean()), 4),
        "source_error": round(baked.source_error, 4),
        "source_pixels": baked.source_pixels,
        "novel_error": round(baked.novel_error, 4),
        "novel_pixels": baked.novel_pixels,
        "mean_views": round(float(seen.mean()), 3) if seen.size else 0.0,
    }


def _shares_of_dates(lead: np.ndarray, acquired: list[str | None]) -> dict[str, float]:
    """Of the texels that satellites saw, how many owe most to a view of each date."""
    counts = np.bincount(lead[lead != NO_VIEW], minlength=len(acquired))
    dates = [(when or "unknown")[:10] for when in acquired]
    shares = {
        date: sum(int(n) for n, of in zip(counts, dates, strict=True) if of == date) for date in sorted(set(dates))
    }
    return {date: round(n / max(int(counts.sum()), 1), 4) for date, n in shares.items()}


def _novel_views(manifests: list[Path], scene: Scene, reach_m: float) -> list[NovelView]:
    """Those whose reach meets the tile, in its metres."""
    found = []
    for path in manifests:
        manifest = Manifest.read(path)
        if manifest.quarantined:
            continue
        for view in load_views(manifest.product(path.stem)):
            position = view.camera.position - scene.origin_m
            x, y = (view.aim_m[k] - scene.origin_m[k] for k in range(2))
            low, high = scene.own.xyz.min(axis=0), scene.own.xyz.max(axis=0)
            away = np.hypot(max(low[0] - x, x - high[0], 0.0), max(low[1] - y, y - high[1], 0.0))
            if away <= reach_m:
                found.append(replace(view, camera=replace(view.camera, position=position)))
    return found


@dataclass(frozen=True)
class Scene:
    """What a tile's texture is made from."""

    atlas: Atlas
    own: Triangles
    occluders: Triangles
    views: list[SourceView]
    visibility: VisibilitySettings
    colours: list[OrthoLayer]  # where every view is grey
    origin_m: np.ndarray  # of its metres, in the city's CRS and height


def scene_of(run: Run, tile: Tile) -> Scene:
    settings = run.config.texture
    levels = load_levels(Manifest.read(run.manifest_path("mesh", tile)).product("mesh"))
    own = surface_triangles(levels[0])
    occluders = _occluders(run, levels[0], own, _neighbours(run.config, tile))
    aoi = Aoi(Manifest.read(run.manifest_path("ingest", tile)).product("aoi"))
    views = _views(run.config, tile, aoi, _survey(run), levels[0], Triangles.joined([own, occluders]))
    atlas = build_atlas(
        levels,
        occluders,
        AtlasSettings(settings.top_texel_m, settings.facade_texel_m, settings.padding_px, settings.steep_deg),
    )
    visibility = VisibilitySettings(bias_m=settings.visibility_bias_m, view_power=settings.view_power)
    grey = all(len(view.image) < 3 for view in views)
    colours = [layer for layer in map(aoi.ortho, aoi.orthos) if len(layer.image) >= 3] if grey else []
    return Scene(atlas, own, occluders, views, visibility, colours, np.asarray(levels[0].origin_m, np.float64))


def _survey(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Manifest.read(run.manifest_path("survey")).product("survey").read_text())
    return values


def _occluders(run: Run, mesh: TileMesh, own: Triangles, around: list[Tile]) -> Triangles:
    """Neighbours' surfaces within reach, in this tile's local metres. Missing tiles hide nothing."""
    lean = occluders_lean(run.config)
    low, high = own.xyz.min(axis=0), own.xyz.max(axis=0)
    parts = []
    for other in around:
        manifest = Manifest.read(run.manifest_path("mesh", other))
        if manifest.quarantined:
            continue
        triangles = surface_triangles(load_levels(manifest.product("mesh"))[0], mesh.origin_m)
        reach = max(float(triangles.xyz[:, 2].max() - low[2]), 1.0) * lean
        parts.append(triangles.near(low[:2] - reach, high[:2] + reach))
    return Triangles.joined(parts)


def _views(
    config: Config, tile: Tile, aoi: Aoi, survey: dict[str, Any], mesh: TileMesh, scene: Triangles
) -> list[SourceView]:
    """The views to bake from, with cameras in the tile's local metres."""
    if not aoi.views:
        return _from_orthophotos(aoi, mesh)
    known = {view["name"]: view for view in survey["views"]}
    names = [name for name in aoi.views if known[name]["off_nadir_deg"] <= config.texture.max_off_nadir_deg]
    if not names:  # a grey atlas would pass for a textured tile
        angles = ", ".join(f"{name} {known[name]['off_nadir_deg']:.1f}" for name in aoi.views)
        raise DataError(
            f"{tile.name}: no view is steep enough to texture from; texture.max_off_nadir_deg is "
            f"{config.texture.max_off_nadir_deg:g}, its views have {angles}: accepted from the least of them"
        )
    names = sorted(names, key=lambda name: (known[name]["off_nadir_deg"], name))[: config.texture.max_views]
    to_geodetic = geodetic_transform(config.city.crs, vertical_grid(config.city.vertical))
    z0 = mesh.origin_m[2]
    z_range = (
        float(scene.xyz[:, 2].min()) + z0 - _HEIGHT_SLACK_M,
        float(scene.xyz[:, 2].max()) + z0 + _HEIGHT_SLACK_M,
    )
    views = []
    for name in sorted(names):
        layer = aoi.view(name)
        camera = fit_local(layer.rpc, to_geodetic, aoi.core.grow(8.0), z_range, mesh.origin_m)
        gain, offset = to_display(known[name])
        views.append(SourceView(name, layer.image, layer.valid, camera, gain, offset))
    return views


def _from_orthophotos(aoi: Aoi, mesh: TileMesh) -> list[SourceView]:
    """For a city without views: roofs and ground as the orthophotos show them from straight above. They see no wall."""
    views = []
    for name in aoi.orthos:
        layer = aoi.ortho(name)
        black, white = layer.attributes.get("black_white", (0.0, 255.0))
        gain = np.full(3, 255.0 / (white - black))
        camera = straight_down(layer.grid, mesh.origin_m)
        views.append(SourceView(name, layer.image, layer.valid, camera, gain, -black * gain))
    return views


def to_display(view: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset (3,) from a view's digital numbers to 0..255: first like the reference view, then its range."""
    exposure, display = view["exposure"], view["display"]
    gain, offset = np.asarray(exposure["gain"], np.float64), np.asarray(exposure["offset"], np.float64)
    low, high = np.asarray(display["low"], np.float64), np.asarray(display["high"], np.float64)
    stretch = 255.0 / (high - low)
    gain, offset = gain * stretch, (offset - low) * stretch
    bands = [0, 1, 2] if len(gain) >= 3 else [0, 0, 0]
    return gain[bands], offset[bands]
