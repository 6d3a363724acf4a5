"""The unseen views of a city: rendered, scored, and kept side by side for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.cameras import Pinhole
from cityweave.evaluate.city import City
from cityweave.evaluate.texture import (
    MIN_SCORED_STREET,
    PLAN_PIXEL_M,
    STREET_FIGURES,
    TextureScore,
    core_mask,
    seam_step,
)
from cityweave.evaluate.truth import Truth
from cityweave.grid import Tile
from cityweave.manifest import Manifest
from cityweave.render.textured import Frame, MapView, render

_SAMPLES = 2  # per pixel and axis
_MAX_PLAN_PX = 4096
_SHOWN_WIDTH_PX = 640
_MAX_PAIRS = 8
_JPEG_QUALITY = 88
_FADED_GREY = 130


def tiles_in_view(city: City, camera: Pinhole, heights_m: tuple[float, float]) -> list[Tile]:
    """Tiles whose box may fall on the picture."""
    found = []
    for tile in city.with_texture:
        box = city.local(tile.core.grow(4.0))
        corners = np.array(
            [(x, y, z - city.origin[2]) for x in (box.xmin, box.xmax) for y in (box.ymin, box.ymax) for z in heights_m]
        )
        u, v, depth = camera.project(corners[:, 0], corners[:, 1], corners[:, 2])
        if (depth <= 1.0).all():
            continue
        if (depth > 1.0).all() and (u.max() < 0 or v.max() < 0 or u.min() > camera.width or v.min() > camera.height):
            continue
        found.append(tile)
    return found


def texture_figures(city: City, truth: Truth, pictures: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Writes `{view}.jpg` (truth beside ours) into `pictures` for the first views that count."""
    names = (
        *("psnr", "ssim", "st_lpips", "sharpness", "true_sharpness", "scored_share", "observed_share"),
        *("source_psnr", "restored_psnr", "generated_share", "seam_step"),
        *(f"street_{name}" for name in STREET_FIGURES),
    )
    if not city.with_texture:
        return dict.fromkeys(names), dict.fromkeys(names, "no tile has a texture")
    mesh, views = truth.mesh, truth.views()
    score, street = TextureScore(), TextureScore(least_scored=MIN_SCORED_STREET)
    core = city.local(city.run.config.city.box)
    shown = 0
    if mesh is not None:
        for view in views:
            scored = core_mask(view.camera, mesh.points, mesh.faces, core)
            meshes = (city.textured(tile) for tile in tiles_in_view(city, view.camera, city.run.config.city.heights_m))
            frame = render(meshes, view.camera, _SAMPLES)
            true = view.pixels()
            where = street if view.from_street else score
            if where.add(view.name, frame, true, scored) and shown < _MAX_PAIRS:
                save_jpeg(pictures / f"{view.name}.jpg", side_by_side(true, frame.averaged(), scored))
                shown += 1
    figures, reasons = score.figures()
    if not [view for view in views if not view.from_street]:
        reasons = dict.fromkeys(figures, "there are no unseen views: the city is not synthetic")
    below, why = street.figures()
    figures |= {f"street_{name}": below[name] for name in STREET_FIGURES}
    if any(below[name] is None for name in STREET_FIGURES):
        none = "there are no unseen views from the street: synth.test_street_views"
        seen = [view for view in views if view.from_street]
        reasons |= {f"street_{name}": why[name] if seen else none for name in STREET_FIGURES if below[name] is None}
    figures |= _from_manifests(city)
    if figures["restored_psnr"] is None:
        reasons["restored_psnr"] = "the texture was not refined: texture.refine.rounds is 0"
    step, reason = _seam_step(city)
    figures["seam_step"] = step
    if step is None:
        reasons["seam_step"] = reason
    return figures, reasons


def _from_manifests(city: City) -> dict[str, float | None]:
    """How well the texture agrees with the satellites' own pixels, and with restored pictures, which is how well these
    agree with one another; and how much of it no satellite saw but a restorer made up."""
    notes = [Manifest.read(city.run.manifest_path("texture", tile)).values["notes"] for tile in city.with_texture]
    generated = float(np.mean([note["generated_share"] for note in notes]))
    return {"source_psnr": _psnr(notes, "source"), "restored_psnr": _psnr(notes, "novel"), "generated_share": generated}


def _psnr(notes: list[dict[str, Any]], of: str) -> float | None:
    pixels = sum(note[f"{of}_pixels"] for note in notes)
    error = sum(note[f"{of}_error"] * note[f"{of}_pixels"] for note in notes) / max(pixels, 1)
    return float(10 * np.log10(255**2 / error)) if error > 0 else None


def save_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)


def side_by_side(true: NDArray[np.uint8], ours: NDArray[np.uint8], scored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Truth left, ours right, each at most 640 pixels wide; what isn't scored is faded."""
    from PIL import Image

    width = min(_SHOWN_WIDTH_PX, true.shape[1])
    height = round(true.shape[0] * width / true.shape[1])
    halves = []
    for picture in (true, ours):
        faded = np.where(scored[..., None], picture, picture // 4 + np.uint8(_FADED_GREY))
        halves.append(np.asarray(Image.fromarray(faded).resize((width, height), Image.Resampling.BOX)))
    gap = np.full((height, 4, 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def plan_frames(city: City) -> list[Frame]:
    """The city from above, in strips no larger than 4096 pixels a side."""
    boxes = [city.local(tile.core) for tile in city.with_texture]
    west, east = min(b.xmin for b in boxes), max(b.xmax for b in boxes)
    south, north = min(b.ymin for b in boxes), max(b.ymax for b in boxes)
    side = _MAX_PLAN_PX * PLAN_PIXEL_M
    frames = []
    for top in np.arange(north, south, -side):
        for left in np.arange(west, east, side):
            width = round(min(side, east - left) / PLAN_PIXEL_M)
            height = round(min(side, top - south) / PLAN_PIXEL_M)
            view = MapView(float(left), float(top), PLAN_PIXEL_M, max(width, 1), max(height, 1))
            low_x, high_x = left - 4.0, left + side + 4.0
            low_y, high_y = top - side - 4.0, top + 4.0
            inside = [
                tile
                for tile, box in zip(city.with_texture, boxes, strict=True)
                if box.xmax > low_x and box.xmin < high_x and box.ymax > low_y and box.ymin < high_y
            ]
            frames.append(render((city.textured(tile) for tile in inside), view, 1))
    return frames


def _seam_step(city: City) -> tuple[float | None, str]:
    """Mean over the strips, weighted equally; a city of up to 4 km² is one strip."""
    if len(city.with_texture) < 2:
        return None, "fewer than two tiles have a texture: there is no border"
    steps = [step for step in map(seam_step, plan_frames(city)) if step is not None]
    if not steps:
        return None, "no two tiles with a texture are neighbours"
    return float(np.mean(steps)), ""
