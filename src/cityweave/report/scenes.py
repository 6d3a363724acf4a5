"""The city as a model on a table: textured, or in plain clay under sun and sky."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.cameras import Pinhole
from cityweave.grid import Tile
from cityweave.io.textures import NO_VIEW
from cityweave.manifest import Manifest, Run
from cityweave.mesh import RIM, SURFACE
from cityweave.render.city import textured_tile, tile_levels, tiles_with
from cityweave.render.depth import bounds, depth_map
from cityweave.render.textured import NO_TILE, Frame, MapView, TexturedMesh, render

MAX_TILES = 64  # a picture shows no more; the ones nearest to the middle
_FOV_DEG = 32.0
_MARGIN = 0.02  # of the picture, on each side
_HEADING_DEG, _PITCH_DEG = 338.0, 31.0
_SUN = (-148.0, 40.0)  # azimuth and elevation in degrees, seen from the south-west
_SKY_DIRECTIONS = 20
_SHADOW_SIDE_PX = 1280
_SKY_TOP, _SKY_BOTTOM = (196, 211, 225), (240, 241, 238)
_PLINTH_RGB, _PLINTH_SHADE_RGB = (171, 167, 158), (132, 129, 124)
_CLAY_RGB = (232, 227, 217)


@dataclass(frozen=True)
class Stage:
    """The tiles that a picture shows, and the frame they are drawn in."""

    run: Run
    tiles: list[Tile]
    origin: NDArray[np.float64]

    @staticmethod
    def of(run: Run) -> Stage | None:
        """None when no tile has a texture."""
        textured = set(tiles_with(run, "texture"))
        tiles = [tile for tile in tiles_with(run, "mesh") if tile in textured]
        if not tiles:
            return None
        box = run.config.city.box
        middle = np.array([(box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2])

        def far(tile: Tile) -> float:
            core = tile.core
            return float(np.abs(middle - [(core.xmin + core.xmax) / 2, (core.ymin + core.ymax) / 2]).max())

        shown = set(sorted(tiles, key=lambda tile: (far(tile), tile))[:MAX_TILES])
        origin = np.array([box.xmin, box.ymin, run.config.city.z0_m])
        return Stage(run, [tile for tile in tiles if tile in shown], origin)

    @property
    def level(self) -> int:
        """Finest for a few tiles; a picture of many shows no more detail than a coarser one has."""
        return 0 if len(self.tiles) <= 16 else 2

    def outline(self) -> NDArray[np.float64]:
        """Points (n, 3) that a picture of the whole must hold: the coarsest surface, thinned, and the plinth's foot."""
        parts = []
        for tile in self.tiles:
            mesh = tile_levels(self.run, tile)[-1]
            points = mesh.world()[np.unique(mesh.faces[mesh.part == SURFACE])] - self.origin
            thinned = points[:: max(1, len(points) // 2000)]
            parts += [thinned, points[[points[:, 2].argmin(), points[:, 2].argmax()]]]
        low, high = bounds(np.concatenate(parts))
        foot = low[2] - 0.02 * float(max(high[0] - low[0], high[1] - low[1]))
        parts.append(np.array([(x, y, foot) for x in (low[0], high[0]) for y in (low[1], high[1])]))
        return np.concatenate(parts)

    def meshes(self) -> Iterator[TexturedMesh]:
        for tile in self.tiles:
            yield textured_tile(self.run, tile, self.origin, self.level)

    def plinth(self, outline: NDArray[np.float64]) -> TexturedMesh:
        """The rim that closes the city, in one colour, cut off where the outline ends."""
        points, faces, start = [], [], 0
        floor = float(outline[:, 2].min())
        for tile in self.tiles:
            levels = tile_levels(self.run, tile)
            mesh = levels[min(self.level, len(levels) - 1)]
            world = mesh.world() - self.origin
            world[:, 2] = np.maximum(world[:, 2], floor)
            rim = mesh.faces[mesh.part == RIM]
            points.append(world)
            faces.append(rim + start)
            start += len(world)
        corners, joined = np.concatenate(points), np.concatenate(faces).astype(np.int32)
        a, b, c = (corners[joined[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        sideways = np.abs(normal[:, 0]) > np.abs(normal[:, 1])  # its east and west sides lie in the shade
        uv = np.full((len(joined), 3, 2), 0.5, np.float32)
        uv[:, :, 0] = np.where(sideways, 0.75, 0.25)[:, None]
        colour = np.array([[_PLINTH_RGB, _PLINTH_SHADE_RGB]] * 2, np.uint8)
        return TexturedMesh(corners, joined, uv, colour, np.full((2, 2), 255, np.uint8))


def aerial(outline: NDArray[np.float64], width: int, height: int, heading_deg: float, pitch_deg: float) -> Pinhole:
    """The nearest camera that has every point in view, looking towards `heading_deg` and down by `pitch_deg`."""
    a, p = np.radians(heading_deg), np.radians(pitch_deg)
    forward = np.array([np.sin(a) * np.cos(p), np.cos(a) * np.cos(p), -np.sin(p)])
    target = (outline.min(axis=0) + outline.max(axis=0)) / 2

    def at(distance: float) -> tuple[Pinhole, bool]:
        """Perspective moves the city off the middle: shift the picture back, then see whether it fits."""
        camera = Pinhole.look_at(target - forward * distance, target, _FOV_DEG, width, height)
        u, v, depth = camera.project(outline[:, 0], outline[:, 1], outline[:, 2])
        if depth.min() <= 1.0:
            return camera, False
        cx = camera.cx + width / 2 - (float(u.min()) + float(u.max())) / 2
        cy = camera.cy + height / 2 - (float(v.min()) + float(v.max())) / 2
        fits = u.max() - u.min() < (1 - 2 * _MARGIN) * width and v.max() - v.min() < (1 - 2 * _MARGIN) * height
        return Pinhole(camera.position, camera.rotation, camera.focal_px, cx, cy, width, height), bool(fits)

    near, far = 1.0, 50.0 * float(np.linalg.norm(outline.max(axis=0) - outline.min(axis=0)))
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if at(middle)[1] else (middle, far)
    return at(far)[0]


def sky(width: int, height: int) -> NDArray[np.uint8]:
    share = np.linspace(0, 1, height)[:, None, None]
    gradient = np.array(_SKY_TOP) * (1 - share) + np.array(_SKY_BOTTOM) * share
    return np.broadcast_to(np.rint(gradient), (height, width, 3)).astype(np.uint8)


def _over_sky(frame: Frame) -> NDArray[np.uint8]:
    """The picture over a soft sky, its edges mixed by how many samples are covered."""
    picture = frame.averaged().astype(np.float64)
    h, w = picture.shape[:2]
    s = frame.samples
    covered = (frame.tile != NO_TILE).reshape(h, s, w, s).mean(axis=(1, 3))[..., None]
    # Uncovered samples are black, so the picture is already weighted by the covered ones.
    return np.clip(np.rint(picture + (1 - covered) * sky(w, h)), 0, 255).astype(np.uint8)


def textured_picture(
    stage: Stage,
    width: int,
    height: int,
    heading_deg: float = _HEADING_DEG,
    pitch_deg: float = _PITCH_DEG,
    samples: int = 3,
) -> NDArray[np.uint8]:
    """The textured city in an oblique view from the air."""
    outline = stage.outline()
    camera = aerial(outline, width, height, heading_deg, pitch_deg)
    return _over_sky(render(_with_plinth(stage, outline), camera, samples))


def _with_plinth(stage: Stage, outline: NDArray[np.float64]) -> Iterator[TexturedMesh]:
    yield from stage.meshes()
    yield stage.plinth(outline)


def clay_picture(
    stage: Stage,
    width: int,
    height: int,
    heading_deg: float = _HEADING_DEG,
    pitch_deg: float = _PITCH_DEG,
    samples: int = 2,
) -> NDArray[np.uint8]:
    """The bare geometry under a sun with shadows and an even sky."""
    outline = stage.outline()
    camera = aerial(outline, width, height, heading_deg, pitch_deg)
    meshes = list(_with_plinth(stage, outline))
    frame = render(meshes, camera, samples)
    drawn = frame.tile != NO_TILE
    points = np.concatenate([mesh.points for mesh in meshes])
    starts = np.cumsum([0] + [len(mesh.points) for mesh in meshes])
    faces = np.concatenate([mesh.faces + np.int32(s) for mesh, s in zip(meshes, starts, strict=False)])
    place, normal = _surface_at(frame, drawn, camera)
    sun = _direction(*_SUN)
    direct = np.zeros(drawn.shape)
    direct[drawn] = np.clip(_dot(normal, sun), 0, 1) * _lit(points, faces, place, normal, sun)
    # The sky's light is smooth: one sample of each pixel speaks for all of them.
    first = np.zeros(drawn.shape, np.bool_)
    first[::samples, ::samples] = drawn[::samples, ::samples]
    sky_light = np.full(drawn.shape, np.nan)
    chosen = first[drawn]
    sky_light[first] = _sky_light(points, faces, place[chosen], normal[chosen])
    coarse = sky_light[::samples, ::samples]
    sky_light = np.nan_to_num(np.repeat(np.repeat(coarse, samples, 0), samples, 1), nan=0.5)
    light = np.clip(0.10 + 0.44 * sky_light + 0.62 * direct, 0, 1.05)[drawn]
    colour = np.array(_CLAY_RGB) * light[:, None]
    colour[frame.tile[drawn] == len(meshes) - 1] *= 0.8
    frame.rgb[drawn] = np.clip(np.rint(colour), 0, 255).astype(np.uint8)
    return _over_sky(frame)


def _surface_at(
    frame: Frame, drawn: NDArray[np.bool_], camera: Pinhole
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place and normal of the samples that see something, the normal turned towards the camera."""
    place = _positions(frame.depth, drawn, camera, frame.samples)
    normal = frame.normal[drawn].astype(np.float64)
    away = (normal * (camera.position - place)).sum(axis=1) < 0
    normal[away] *= -1
    return place, normal


def _positions(
    depth: NDArray[np.float32], drawn: NDArray[np.bool_], camera: Pinhole, samples: int
) -> NDArray[np.float64]:
    """Where the samples that see something lie, (n, 3)."""
    rows, cols = np.nonzero(drawn)
    z = depth[drawn].astype(np.float64)
    focal = camera.focal_px * samples
    x = (cols + 0.5 - camera.cx * samples) / focal * z
    y = (rows + 0.5 - camera.cy * samples) / focal * z
    r = camera.rotation
    return np.stack([x * r[0, k] + y * r[1, k] + z * r[2, k] + camera.position[k] for k in range(3)], axis=1)


def _dot(vectors: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """By hand: a matrix product of such thin arrays only wakes threads that wait for each other."""
    return vectors[:, 0] * one[0] + vectors[:, 1] * one[1] + vectors[:, 2] * one[2]


def _direction(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Unit vector towards a light."""
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    return np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])


def _sky_light(
    points: NDArray[np.float64], faces: NDArray[np.int32], place: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of an even sky's light that reaches each place, from a spiral of directions."""
    total, most = np.zeros(len(place)), 0.0
    for k in range(_SKY_DIRECTIONS):
        height = (k + 0.5) / _SKY_DIRECTIONS  # even steps of the sine spread directions evenly over the hemisphere
        light = _direction(137.508 * k, float(np.degrees(np.arcsin(0.08 + 0.92 * height))))
        total += np.clip(_dot(normal, light), 0, 1) * _lit(points, faces, place, normal, light)
        most += light[2]
    return total / most  # type: ignore[no-any-return]


def _lit(
    points: NDArray[np.float64],
    faces: NDArray[np.int32],
    place: NDArray[np.float64],
    normal: NDArray[np.float64],
    light: NDArray[np.float64],
) -> NDArray[np.float64]:
    """0 to 1: whether nothing stands between each place and a light, softened over 2 x 2 samples."""
    sides = bounds(points)
    pixel = float((sides[1] - sides[0]).max()) * 1.2 / _SHADOW_SIDE_PX
    found = depth_map(points, sides, faces, -light, pixel)
    out = np.empty(len(place))
    _compare(place, normal, found.axes, found.origin, found.pixel_m, found.depth, out)
    return out


@njit(cache=True)
def _compare(place, normal, axes, origin, pixel, depth, out):  # type: ignore[no-untyped-def]
    """Looks from a texel of the map above the surface, or it would shadow itself."""
    height, width = depth.shape
    at = np.empty(3)
    for p in range(place.shape[0]):
        for k in range(3):
            at[k] = -origin[k]
            for j in range(3):
                at[k] += axes[k, j] * (place[p, j] + 1.2 * pixel * normal[p, j])
        u, v = at[0] / pixel - 0.5, at[1] / pixel - 0.5
        c, r = int(np.floor(u)), int(np.floor(v))
        fu, fv = u - c, v - r
        total = 0.0
        for i in range(2):
            for j in range(2):
                weight = (fv if i else 1 - fv) * (fu if j else 1 - fu)
                rr, cc = r + i, c + j
                clear = 1.0
                if 0 <= rr < height and 0 <= cc < width and depth[rr, cc] < at[2] - 0.5 * pixel:
                    clear = 0.0
                total += weight * clear
        out[p] = total


def plan_view(stage: Stage, side_px: int) -> Frame:
    """Straight from above, the finest level, one sample a pixel."""
    return _from_above(stage, side_px, (textured_tile(stage.run, tile, stage.origin) for tile in stage.tiles))


def _from_above(stage: Stage, side_px: int, meshes: Iterable[TexturedMesh]) -> Frame:
    cores = [tile.core for tile in stage.tiles]
    west, north = min(c.xmin for c in cores) - stage.origin[0], max(c.ymax for c in cores) - stage.origin[1]
    east, south = max(c.xmax for c in cores) - stage.origin[0], min(c.ymin for c in cores) - stage.origin[1]
    pixel = max(east - west, north - south) / side_px
    view = MapView(west, north, pixel, round((east - west) / pixel), round((north - south) / pixel))
    return render(meshes, view, 1)


def plan_dates(stage: Stage, side_px: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Straight from above: number of the date that each texel owes most to, 255 without one; and the dates in order."""
    acquired = {tile: Manifest.read(stage.run.manifest_path("texture", tile)).notes["acquired"] for tile in stage.tiles}
    dates = sorted({when[:10] for times in acquired.values() for when in times if when})
    meshes = []
    for tile in stage.tiles:
        table = np.full(256, NO_VIEW, np.uint8)
        table[: len(acquired[tile])] = [dates.index(when[:10]) if when else NO_VIEW for when in acquired[tile]]
        mesh = textured_tile(stage.run, tile, stage.origin, layer="lead")
        meshes.append(replace(mesh, provenance=table[mesh.provenance]))
    return _from_above(stage, side_px, meshes).provenance, dates


def write_hero(run: Run, path: Path, width: int = 1600, height: int = 900) -> None:
    """The picture that a README shows: the textured city from the air."""
    from PIL import Image

    from cityweave.errors import DataError

    stage = Stage.of(run)
    if stage is None:
        raise DataError(f"{run.folder} has no textured tile to show; run the workflow first")
    picture = textured_picture(stage, width, height, samples=4)
    Image.fromarray(picture).save(path, optimize=True)
