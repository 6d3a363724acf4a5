"""The bake: every texel's colour from the views that see it, in closed form, then a few steps that sharpen.

Each view is rasterised once with everything that can stand before the tile. A texel asks every view for its pixel and
for the highest surface there; views whose surface is higher don't see it. What the rest say is fused robustly, and on
the finest level sharpened until the views' pixels follow from it (`sharpen.py`).
Memory: the views' windows and z-buffers, the atlas, 16 bytes for every texel and view that sees it; nothing grows with
the city.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cityweave.cores import side_by_side
from cityweave.io.textures import GENERATED, INFERRED, MAX_COUNT, NO_VIEW, OUTSIDE, TileTexture
from cityweave.texture.atlas import Atlas, Band, Triangles
from cityweave.texture.fill import chart_means, fill_charts, push_pull, spare_colours
from cityweave.texture.fuse import fuse
from cityweave.texture.novel import NovelView
from cityweave.texture.novel_pixels import pixels_of
from cityweave.texture.sharpen import SharpenSettings, ViewPixels, mean_look, sharpen, squared_error
from cityweave.texture.views import PreparedView, SourceView, VisibilitySettings, look, prepare

_BLOCK = 1 << 16  # texels at a time


@dataclass(frozen=True)
class BakeSettings:
    visibility: VisibilitySettings = field(default_factory=VisibilitySettings)
    sharpening: SharpenSettings = field(default_factory=SharpenSettings)
    novel_worth: float = 1.0  # of a restored pixel beside a satellite's
    generated: bool = True  # whether what only restored views saw takes their colour
    robust_floor: float = 6.0  # disagreement of views, 0..255 scale, that is still noise
    gamma: float = 1.0
    plain: tuple[int, int, int] = (128, 124, 118)  # rim and bottom
    unknown: tuple[int, int, int] = (128, 128, 128)  # where not even a neighbour was seen
    coarse_slack_m: float = 1.0  # what a level's walls may be off the finest surface, doubled per level


def bake(
    atlas: Atlas,
    own: Triangles,
    occluders: Triangles,
    views: list[SourceView],
    settings: BakeSettings,
    novel: Sequence[NovelView] = (),
) -> Baked:
    """`own`, `occluders` and the cameras of `novel` in tile-local metres; the order of `views` doesn't matter beyond
    rounding."""
    every = side_by_side(lambda view: prepare(view, own, occluders, settings.visibility), views)
    prepared = [view for view in every if view is not None]
    numbers = np.array([*(number for number, view in enumerate(every) if view is not None), NO_VIEW], np.uint8)
    layout = atlas.layout
    colour = np.zeros((layout.height, layout.width, 3), np.float32)
    provenance = np.full((layout.height, layout.width), OUTSIDE, np.uint8)
    lead = np.full_like(provenance, NO_VIEW)
    default = np.asarray(settings.unknown, np.float64)
    looks: list[tuple[Band, _Looks]] = []
    for number, band in enumerate(atlas.bands):
        slack = settings.coarse_slack_m * (2.0 ** (number - 1) - 1.0) if number > 1 else 0.0
        looks.append((band, _bake_band(band, prepared, slack, settings, _part(colour, band))))
    scene = Triangles.joined([own, occluders])
    source, restored = _sharpen_finest(looks[:2], prepared, novel, scene, settings, colour)
    for number, (band, look_at) in enumerate(looks):
        rows, cols = band.face.shape
        if not rows:
            continue
        part, seen = _part(colour, band), look_at.count
        known = (seen > 0) & (seen < OUTSIDE)
        if number == 0:
            if known.any():
                push_pull(part, known)
                default = part[known].mean(axis=0, dtype=np.float64)
            else:
                part[:] = settings.unknown
        else:
            _fill_band(band, part, known, default)
        seen[seen == 0] = INFERRED
        provenance[band.row0 : band.row0 + rows, :cols] = seen
        lead[band.row0 : band.row0 + rows, :cols] = numbers[look_at.lead]
    x0, y0, x1, y1 = atlas.plain_box
    out = _to_bytes(colour, settings.gamma)
    out[y0:y1, x0:x1] = settings.plain
    return Baked(TileTexture(layout, out, provenance, lead, atlas.uv), *source, *restored)


def _to_bytes(colour: np.ndarray, gamma: float) -> np.ndarray:
    value = np.clip(colour, 0.0, 255.0)
    if gamma != 1.0:
        value = 255.0 * (value / 255.0) ** (1.0 / gamma)
    return np.rint(value).astype(np.uint8)


def _part(picture: np.ndarray, band: Band) -> np.ndarray:
    rows, cols = band.face.shape
    return picture[band.row0 : band.row0 + rows, :cols]


@dataclass(frozen=True)
class Baked:
    """`source_error`: mean square of what the satellites' pixels differ by from what the texture makes them show, on
    the 0..255 scale; over `source_pixels` pixels. `novel_error`: the same of the restored views' pixels."""

    texture: TileTexture
    source_error: float
    source_pixels: int
    novel_error: float
    novel_pixels: int


@dataclass(frozen=True)
class _Looks:
    """Who saw a band: count uint8 [rows, cols] of views (0 none, OUTSIDE off the charts), lead int16 [rows, cols] the
    view that counts most or -1, and of the texels in charts bool (views, texels)."""

    count: np.ndarray
    lead: np.ndarray
    texels: np.ndarray
    by_view: np.ndarray


def _sharpen_finest(
    looks: list[tuple[Band, _Looks]],
    views: list[PreparedView],
    novel: Sequence[NovelView],
    scene: Triangles,
    settings: BakeSettings,
    colour: np.ndarray,
) -> tuple[tuple[float, int], tuple[float, int]]:
    """In place, the bands that the finest level shows: the views see them as one surface. Returns the mean square that
    the satellites' pixels then differ by and how many they are, and the same of the restored ones."""
    if not views and not novel:
        return (0.0, 0), (0.0, 0)
    points = np.concatenate([band.points(found.texels) for band, found in looks])
    normals = np.concatenate([band.normals(found.texels) for band, found in looks])
    texel_m2 = np.concatenate([band.texel_m2(found.texels) for band, found in looks])
    places = [np.divmod(found.texels, band.face.shape[1]) for band, found in looks]
    texels = np.concatenate([_part(colour, band)[place] for (band, _), place in zip(looks, places, strict=True)])
    seen = np.concatenate([found.by_view for _, found in looks], axis=1)
    blur_px = settings.sharpening.blur_px
    pixels = side_by_side(
        lambda n: ViewPixels.of(views[n], points, normals, texel_m2, seen[n], blur_px), range(len(views))
    )
    restored = side_by_side(lambda view: pixels_of(view, points, normals, texel_m2, scene, settings.novel_worth), novel)
    generated = np.zeros(len(texels), bool)
    if restored and settings.generated:
        first, mass = mean_look(restored, len(texels))
        generated = ~seen.any(axis=0) & (mass > 0)
        texels[generated] = first[generated]
    sharp = sharpen(texels, [*pixels, *restored], settings.sharpening)
    cut = [len(looks[0][1].texels)]
    for (band, found), place, part, new in zip(
        looks, places, np.split(sharp, cut), np.split(generated, cut), strict=True
    ):
        _part(colour, band)[place] = part
        found.count.reshape(-1)[found.texels[new]] = GENERATED
    return _mean_error(pixels, sharp), _mean_error(restored, sharp)


def _mean_error(views: list[ViewPixels], texels: np.ndarray) -> tuple[float, int]:
    errors = [squared_error(view, texels) for view in views]
    pixels = sum(count for _, count in errors)
    return sum(error for error, _ in errors) / max(pixels, 1), pixels


def _bake_band(
    band: Band, views: list[PreparedView], slack_m: float, settings: BakeSettings, colour: np.ndarray
) -> _Looks:
    """Write the colours of seen texels."""
    inside = band.face >= 0
    texels = np.flatnonzero(inside)
    count = np.full(band.face.shape, OUTSIDE, np.uint8)
    count[inside] = 0
    lead = np.full(band.face.shape, -1, np.int16)
    by_view = np.zeros((len(views), len(texels)), bool)
    if not views or not len(texels):
        return _Looks(count, lead, texels, by_view)
    samples = np.zeros((_BLOCK, len(views), 3), np.float32)
    weights = np.zeros((_BLOCK, len(views)), np.float32)
    fused, number = np.zeros((_BLOCK, 3), np.float32), np.zeros(_BLOCK, np.int64)
    first = np.zeros(_BLOCK, np.int16)
    one_colour, one_weight = np.zeros((_BLOCK, 3), np.float32), np.zeros(_BLOCK, np.float32)
    flat_count, flat_lead = count.reshape(-1), lead.reshape(-1)
    for start in range(0, len(texels), _BLOCK):
        block = texels[start : start + _BLOCK]
        n = len(block)
        points, normals = band.points(block), band.normals(block)
        for v, view in enumerate(views):
            look(view, points, normals, slack_m, settings.visibility, one_colour[:n], one_weight[:n])
            samples[:n, v], weights[:n, v] = one_colour[:n], one_weight[:n]
            by_view[v, start : start + n] = one_weight[:n] > 0
        fuse(samples[:n], weights[:n], settings.robust_floor, fused[:n], number[:n], first[:n])
        hit = number[:n] > 0
        row, col = np.divmod(block[hit], band.face.shape[1])
        colour[row, col] = fused[:n][hit]
        flat_count[block], flat_lead[block] = np.minimum(number[:n], MAX_COUNT), first[:n]
    return _Looks(count, lead, texels, by_view)


def _fill_band(band: Band, colour: np.ndarray, known: np.ndarray, default: np.ndarray) -> None:
    seen = colour[known]
    mean, count = chart_means(colour, known, band.chart)
    x, y = band.chart[:, 0] + band.chart[:, 2] // 2, band.chart[:, 1] + band.chart[:, 3] // 2
    centre = _chart_centres(band, x, y)
    spare = spare_colours(mean, count, centre, band.facing, default)
    # Between the charts the mean wall: a viewer's mipmaps reach past the gutters, and JPEG likes no black.
    colour[:] = spare.mean(axis=0) if len(spare) else default
    colour[known] = seen
    fill_charts(colour, known, band.chart, spare)


def _chart_centres(band: Band, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Some point of each chart, local metres: its middle texel, or the mean of all triangles where that is free."""
    centre = np.tile(band.triangles.xyz.mean(axis=0), (len(x), 1))
    texel = y.astype(np.int64) * band.face.shape[1] + x
    hit = band.face.ravel()[texel] >= 0
    centre[hit] = band.points(texel[hit])
    return centre
