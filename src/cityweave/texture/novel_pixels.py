"""A novel view as rows of the linear system that sharpens a texture: which texels its pixels come of."""

from __future__ import annotations

import math

import numpy as np

from cityweave.render.textured import fragments_of
from cityweave.texture.atlas import Triangles
from cityweave.texture.novel import NovelView
from cityweave.texture.sharpen import PAD, ViewPixels, shares

_BIAS_M, _LARGEST_BIAS_M, _LEAST_COSINE = 0.4, 4.0, 0.05  # when a view sees a texel
_BLUR_PX = 0.15


def pixels_of(
    view: NovelView, points: np.ndarray, normals: np.ndarray, texel_m2: np.ndarray, scene: Triangles, worth: float
) -> ViewPixels:
    """A view's pixels as they come of texels; its camera in the points' frame, `scene` all that may stand before."""
    camera = view.camera
    fragments, _ = fragments_of(scene.xyz, scene.faces, camera, 1)
    nearest = np.where(fragments.seen, fragments.depth, np.inf)
    u, v, depth = camera.project(*points.T)
    toward = camera.position - points
    away = np.linalg.norm(toward, axis=1)
    cosine = np.einsum("nk,nk->n", normals, toward) / away
    inside = (u >= 1) & (v >= 1) & (u < camera.width - 1) & (v < camera.height - 1) & (depth > 0)
    index = np.flatnonzero(inside & (cosine > _LEAST_COSINE)).astype(np.int32)
    u, v, depth, away, cosine = (values[index] for values in (u, v, depth, away, cosine))
    # A pixel along the face changes the depth by so much.
    slope = depth / camera.focal_px * np.sqrt(1 - np.minimum(cosine, 1) ** 2) / cosine
    hit = nearest[v.astype(np.int64), u.astype(np.int64)] > depth - np.minimum(_BIAS_M + slope, _LARGEST_BIAS_M)
    index, u, v, away, cosine = (values[hit] for values in (index, u, v, away, cosine))
    area = (texel_m2[index] * cosine * (camera.focal_px / away) ** 2).astype(np.float32)
    texel_px = math.sqrt(float(np.median(area))) if len(area) else 0.0
    x, y = ((values - 0.5 + PAD).astype(np.float32) for values in (u, v))
    pad = ((PAD, PAD), (PAD, PAD))
    picture = np.pad(view.picture.astype(np.float32), (*pad, (0, 0)), mode="edge")
    quality = np.pad(view.known.astype(np.float32), pad)
    return ViewPixels(index, x, y, area, shares(_BLUR_PX, texel_px), picture, quality, worth)
