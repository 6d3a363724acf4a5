"""Colour for a grey texture: panchromatic views give the detail, an orthophoto what is red and what is green.

A tint is the bands of a place over their mean, so that neither exposure nor gain of the orthophoto matters. It is
looked up in plan; walls, which an orthophoto doesn't show, stay grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from cityweave.aoi import OrthoLayer
from cityweave.io.textures import OUTSIDE, TileTexture
from cityweave.texture.atlas import Atlas
from cityweave.texture.fill import push_pull

_DARK = 0.05  # of the orthophoto's usual brightness: what is darker has hardly a tint
_USUAL = 0.5  # quantile that is taken for that brightness
_STRONGEST = 2.5


def tinted(texture: TileTexture, atlas: Atlas, orthos: Sequence[OrthoLayer], origin_m: np.ndarray) -> TileTexture:
    """`origin_m`: of the atlas's metres, in the CRS. The first orthophoto that shows a place gives its tint."""
    band = atlas.bands[0]
    rows, cols = band.face.shape
    texels = np.flatnonzero(band.face.ravel() >= 0)
    if not len(texels) or not orthos:
        return texture
    x, y = (band.points(texels)[:, :2] + origin_m[:2]).T
    tint = np.full((len(texels), 3), np.nan, np.float32)
    for ortho in orthos:
        missing = np.isnan(tint[:, 0])
        tint[missing] = _tint(ortho, x[missing], y[missing])
    known = np.zeros((rows, cols), bool)
    known.ravel()[texels] = np.isfinite(tint[:, 0])
    if not known.any():
        return texture
    plane = np.ones((rows, cols, 3), np.float32)
    plane.reshape(-1, 3)[texels] = tint
    plane[~known] = 0
    push_pull(plane, known)
    part = (slice(band.row0, band.row0 + rows), slice(0, cols))
    inside = texture.provenance[part] != OUTSIDE
    grey = texture.colour[part].astype(np.float32)
    colour = texture.colour.copy()
    colour[part] = np.where(inside[..., None], np.rint(np.clip(grey * plane, 0, 255)), grey).astype(np.uint8)
    return replace(texture, colour=colour)


def _tint(ortho: OrthoLayer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 3), 1 for grey; NaN where the orthophoto shows nothing."""
    bands = np.where(ortho.valid, ortho.image[:3].astype(np.float32), np.float32(0))
    usual = float(np.quantile(bands.mean(axis=0)[ortho.valid], _USUAL)) if ortho.valid.any() else 0.0
    if not usual > 0:
        return np.full((len(x), 3), np.nan, np.float32)
    grid = ortho.grid
    place = np.stack([(grid.box.ymax - y) / grid.gsd_m - 0.5, (x - grid.box.xmin) / grid.gsd_m - 0.5])
    shown = ndimage.map_coordinates(ortho.valid.astype(np.float32), place, order=1, mode="constant") > 0.999
    looked_up = np.stack([ndimage.map_coordinates(band, place, order=1, mode="nearest") for band in bands], axis=1)
    slack = np.float32(_DARK * usual)
    tint = (looked_up + slack) / (looked_up.mean(axis=1, keepdims=True) + slack)
    return np.where(shown[:, None], np.clip(tint, 1 / _STRONGEST, _STRONGEST), np.float32(np.nan)).astype(np.float32)
