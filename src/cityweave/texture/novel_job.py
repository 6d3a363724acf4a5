"""The novel job: a tile's own novel views, rendered from what is textured so far and restored, each once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cityweave import gpu
from cityweave.cameras import Pinhole
from cityweave.config import RefineConfig
from cityweave.errors import Quarantine
from cityweave.grid import Tile
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import city_tiles, novel_name, rendered_rings, texture_name
from cityweave.render.city import is_done, textured_tile, tile_levels
from cityweave.render.textured import TexturedMesh, render
from cityweave.texture.novel import Aim, NovelView, aims_of, camera_of, ground_below, save_views, within_reach
from cityweave.texture.restorer import Rendered, open_restorer

_SAMPLES = 2  # per pixel and axis
_LEAST_SHARE = 0.02  # of its pixels that a view must know to be worth restoring


def run(run: Run, tile: Tile, round_number: int) -> None:
    """novel.<hash>/ with the restored pictures of round `round_number`, from the textures of the round before."""
    known = set(city_tiles(run.config))
    around = [other for other in tile.ring(rendered_rings(run.config)) if other in known]
    before = texture_name(run.config, round_number - 1)
    inputs = {f"texture/{other.name}": run.manifest_path(before, other) for other in around}
    inputs |= {f"mesh/{other.name}": run.manifest_path("mesh", other) for other in around}
    if weights := run.config.texture.refine.weights:
        inputs["weights"] = weights

    def work(products: Products) -> None:
        if quarantined := Manifest.read(run.manifest_path(before, tile)).quarantined:
            raise Quarantine(quarantined)
        views, left_out = novel_views(run, tile, [other for other in around if is_done(run, before, other)], before)
        with products.path(novel_name(round_number)) as folder:
            save_views(folder, views)
        products.notes |= {"views": [view.name for view in views], "left_out": left_out}

    run_job(run, "texture", work, name=novel_name(round_number), tile=tile, inputs=inputs)


def novel_views(run: Run, tile: Tile, around: list[Tile], texture: str) -> tuple[list[NovelView], list[str]]:
    """The tile's own views, restored, and the names of those that show too little, or less than the most that count."""
    refine = run.config.texture.refine
    mesh = tile_levels(run, tile)[0]
    origin = np.asarray(mesh.origin_m, np.float64)
    meshes = [textured_tile(run, other, origin, name=texture) for other in around]
    aims = aims_of(tile, refine)
    seen = []
    for aim in aims:
        camera = camera_of(aim, ground_below(aim, mesh.world()), refine)
        picture, known = _rendered(meshes, _moved(camera, -origin), refine, (aim.x_m - origin[0], aim.y_m - origin[1]))
        if known.mean() >= _LEAST_SHARE:
            seen.append((aim, camera, picture, known))
    # Those that show most, in their own order again.
    most = sorted(range(len(seen)), key=lambda k: (-int(seen[k][3].sum()), k))[: refine.most_views]
    kept = [seen[k] for k in sorted(most)]
    names = {aim.name for aim, *_ in kept}
    return list(_restored(kept, refine)), [aim.name for aim in aims if aim.name not in names]


def _restored(rendered: list[tuple[Aim, Pinhole, Rendered, np.ndarray]], refine: RefineConfig) -> Iterator[NovelView]:
    if not rendered:
        return
    restorer = open_restorer(refine, gpu.in_use())
    for aim, camera, picture, known in rendered:
        yield NovelView(aim.name, (aim.x_m, aim.y_m), camera, restorer.restore(picture), known)


def _moved(camera: Pinhole, by_m: np.ndarray) -> Pinhole:
    return Pinhole(
        camera.position + by_m, camera.rotation, camera.focal_px, camera.cx, camera.cy, camera.width, camera.height
    )


def _rendered(
    meshes: list[TexturedMesh], camera: Pinhole, refine: RefineConfig, aim_m: tuple[float, float]
) -> tuple[Rendered, np.ndarray]:
    """The picture, and which of its pixels count."""
    frame = render(meshes, camera, _SAMPLES)
    depth = frame.centre(frame.depth)
    drawn = np.isfinite(depth)
    away_m = refine.height_m / np.sin(np.radians(refine.pitch_deg))
    normal = frame.centre(frame.normal) @ camera.rotation.T.astype(np.float32)
    beyond_m = np.where(drawn, depth - np.float32(away_m), np.float32(0))
    picture = Rendered(frame.averaged(), drawn, frame.centre(frame.provenance), normal, beyond_m)
    return picture, within_reach(camera, depth, aim_m, refine.reach_m)
