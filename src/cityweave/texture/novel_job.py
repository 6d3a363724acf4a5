"""The novel job: a tile's own novel views, rendered from what is textured so far and restored, each once."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cityweave import gpu
from cityweave.cameras import Pinhole
from cityweave.cores import side_by_side
from cityweave.errors import Quarantine
from cityweave.grid import Tile
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import city_tiles, novel_name, rendered_rings, texture_name
from cityweave.render.city import is_done, textured_tile, tile_levels
from cityweave.render.textured import Frame, render
from cityweave.texture.novel import Aim, NovelView, aims_of, camera_of, ground_below, save_views, within_reach
from cityweave.texture.restorer import Rendered, open_restorer

_SAMPLES = 2  # per pixel and axis
_SHRUNK = 8  # how many times smaller the picture is that tells how much a view shows
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
    cameras = {aim.name: camera_of(aim, ground_below(aim, mesh.world()), refine) for aim in aims}
    local = {name: replace(camera, position=camera.position - origin) for name, camera in cameras.items()}

    def known_of(aim: Aim, frame: Frame, camera: Pinhole) -> np.ndarray:
        aim_m = (aim.x_m - origin[0], aim.y_m - origin[1])
        return within_reach(camera, frame.centre(frame.depth), aim_m, refine.reach_m)

    def share_of(aim: Aim) -> float:
        small = _shrunk(local[aim.name])
        return float(known_of(aim, render(meshes, small, 1), small).mean())

    shown = dict(zip((aim.name for aim in aims), side_by_side(share_of, aims), strict=True))
    most = sorted((name for name in shown if shown[name] >= _LEAST_SHARE), key=lambda name: (-shown[name], name))
    kept = set(most[: refine.most_views])
    restorer = open_restorer(refine, gpu.in_use()) if kept else None
    away_m = refine.height_m / math.sin(math.radians(refine.pitch_deg))

    def view_of(aim: Aim) -> NovelView:
        assert restorer is not None  # there is one where a view is kept
        camera = local[aim.name]
        frame = render(meshes, camera, _SAMPLES)
        picture = restorer.restore(Rendered.of(frame, camera, away_m))
        known = known_of(aim, frame, camera)
        return NovelView(aim.name, (aim.x_m, aim.y_m), cameras[aim.name], picture, known)

    views = side_by_side(view_of, [aim for aim in aims if aim.name in kept])
    return views, [aim.name for aim in aims if aim.name not in kept]


def _shrunk(camera: Pinhole) -> Pinhole:
    """The same picture with an eighth of the pixels a side: enough to tell how much it shows."""
    width, height = camera.width // _SHRUNK, camera.height // _SHRUNK
    return Pinhole(camera.position, camera.rotation, camera.focal_px / _SHRUNK, width / 2, height / 2, width, height)
