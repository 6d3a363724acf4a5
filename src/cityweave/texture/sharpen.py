"""Sharper than its views: texels from which the views' own pixels follow.

A pixel of a satellite view is the mean of what lies in it and, by the optics' blur, around it. Several views cut the
ground into pixels in different places, so that together they know more than each. Texels are moved until their means
over the pixels are what was taken. What a pixel shows is linear in the texels and the surface is fixed, so this is
least squares, every view is looked at once, and its weights are kept: 16 bytes for each texel that it sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.cameras import project_poly
from cityweave.texture.views import PreparedView

_TAPS = 4  # pixels per axis that a texel takes part in
_PHASES = 32  # places of a texel within a pixel that are told apart
PAD = 2
COVERED = 0.7  # pixels: what is known of less than this of a pixel says little about its colour
_AROUND_PX = 3
_SPREADS = 2.0
_SSIM_SIGMA_PX, _SSIM_RADIUS_PX, _SSIM_C2 = 1.5, 5, 0.03**2


@dataclass(frozen=True)
class SharpenSettings:
    """steps: 0 leaves the texture as it was fused. blur_px: sigma of the views' optics. prior: how many pixels the
    fused colour is worth. outlier_floor: as of the fusing, disagreement in 0..255 that is still noise."""

    steps: int = 4
    blur_px: float = 0.4
    prior: float = 0.1
    outlier_floor: float = 6.0


@dataclass
class ViewPixels:
    """A view as rows of a linear system: texel `index[k]` gives `area[k]` pixels of light round (`x`, `y`)."""

    index: np.ndarray  # (k,) int32
    x: np.ndarray  # (k,) float32, pixel centres are whole numbers, counted from the padding's corner
    y: np.ndarray
    area: np.ndarray  # (k,) float32
    share: np.ndarray  # (phases, taps) float32
    picture: np.ndarray  # (rows, cols, 3) float32, 0..255
    quality: np.ndarray  # (rows, cols) float32, 0 to 1
    worth: float | None = None  # of its pixels; None: a satellite's, judged by how they agree with the fused texture

    @staticmethod
    def of(
        view: PreparedView, points: np.ndarray, normals: np.ndarray, texel_m2: np.ndarray, seen: np.ndarray, blur: float
    ) -> ViewPixels:
        index = np.flatnonzero(seen).astype(np.int32)
        x, y = np.empty(len(index), np.float32), np.empty(len(index), np.float32)
        _project(points[index], *view.camera, view.col0 + 0.5 - PAD, view.row0 + 0.5 - PAD, x, y)
        area = (texel_m2[index] * view.area_px * (normals[index] @ view.toward)).astype(np.float32)
        bands = [0, 1, 2] if len(view.image) >= 3 else [0, 0, 0]
        colour = np.stack([view.image[b] * view.gain[k] + view.offset[k] for k, b in enumerate(bands)], axis=2)
        texel_px = math.sqrt(float(np.median(area))) if len(area) else 0.0
        pad = ((PAD, PAD), (PAD, PAD))
        picture = np.pad(colour.astype(np.float32), (*pad, (0, 0)), mode="edge")
        return ViewPixels(index, x, y, area, shares(blur, texel_px), picture, np.pad(view.quality, pad))

    def shown(self, texels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the view would show (rows, cols, 3) of texels (n, 3), and how much of each pixel they cover."""
        sums = np.zeros((*self.quality.shape, 4), np.float32)
        _scatter(self.index, self.x, self.y, self.area, self.share, texels, sums)
        cover = sums[:, :, 3]
        return sums[:, :, :3] / np.maximum(cover, 1e-6)[:, :, None], cover

    def gathered(self, per_pixel: np.ndarray, out: np.ndarray) -> None:
        """Add to `out` (n, 4) what each texel collects of `per_pixel` (rows, cols, 4) over the pixels it is part of."""
        _gather(self.index, self.x, self.y, self.area, self.share, per_pixel, out)


def squared_error(view: ViewPixels, texels: np.ndarray) -> tuple[float, int]:
    """Of what texels (n, 3) make the view show, summed over the pixels that they cover, and how many those are."""
    shown, cover = view.shown(texels)
    counted = (view.quality > 0) & (cover > COVERED)
    missing = (view.picture - shown)[counted]
    return float(np.mean(missing**2, axis=1, dtype=np.float64).sum()), int(counted.sum())


def mean_look(views: Sequence[ViewPixels], texels: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) what the views show of each texel, blurred as their pixels are, and how many pixels of them (n,)."""
    total = np.zeros((texels, 4), np.float32)
    for view in views:
        weight = view.quality[:, :, None]
        view.gathered(np.concatenate([view.picture * weight, weight], axis=2), total)
    return total[:, :3] / np.maximum(total[:, 3:], 1e-6), total[:, 3]


def sharpen(texels: np.ndarray, views: Sequence[ViewPixels], settings: SharpenSettings) -> np.ndarray:
    """(n, 3) float32 from fused texels; what no view sees stays.

    Conjugate gradients for the least squares of pixels and prior, preconditioned by what each texel weighs in them.
    """
    now = texels.astype(np.float32)
    if not settings.steps or not views:
        return now
    covers, weights = [], []
    total = np.zeros((len(now), 4), np.float32)
    for view in views:
        shown, cover = view.shown(now)
        weights.append(_weight_of(view, shown, cover, settings.outlier_floor))
        covers.append(np.maximum(cover, COVERED)[:, :, None])
        view.gathered(_per_pixel(view.picture - shown, weights[-1], covers[-1]), total)
    left, mass = total[:, :3].copy(), total[:, 3:] + np.float32(settings.prior)
    way = left / mass
    size = _dot(left, way)
    for _ in range(settings.steps):
        pushed = np.zeros((len(now), 4), np.float32)
        for view, weight, cover in zip(views, weights, covers, strict=True):
            view.gathered(_per_pixel(view.shown(way)[0], weight, cover), pushed)
        against = pushed[:, :3] + settings.prior * way
        length = size / np.maximum(_dot(way, against), 1e-20)
        now += length * way
        left -= length * against
        closer = left / mass
        after = _dot(left, closer)
        way = closer + (after / np.maximum(size, 1e-20)) * way
        size = after
    return now


def _per_pixel(values: np.ndarray, weight: np.ndarray, cover: np.ndarray) -> np.ndarray:
    factor = weight[:, :, None] / cover
    return np.concatenate([values * factor, factor], axis=2).astype(np.float32)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Per band; the bands are three systems with one matrix."""
    return np.einsum("nb,nb->b", a, b, dtype=np.float64).astype(np.float32)


def _weight_of(view: ViewPixels, shown: np.ndarray, cover: np.ndarray, floor: float) -> np.ndarray:
    """(rows, cols): what the square of each pixel's error counts."""
    if view.worth is not None:
        return np.where(cover > COVERED, view.worth * view.quality, 0).astype(np.float32)
    worth = worth_of(view, shown, cover, floor)
    return worth * _loss_weight(view.picture, worth)


def worth_of(view: ViewPixels, shown: np.ndarray, cover: np.ndarray, floor: float) -> np.ndarray:
    """(rows, cols) 0 to 1. Low where a view differs from the fused texture over several pixels: a shadow that moved, a
    car that left. A single pixel differs since the texture is still blurred; it counts in full."""
    quality, missing = np.where(cover > COVERED, view.quality, 0), view.picture - shown
    some = np.where(quality > 0, 1, 0).astype(np.float32)
    share = np.maximum(ndimage.uniform_filter(some, _AROUND_PX), 1e-6)
    mean = [ndimage.uniform_filter(missing[:, :, band] * some, _AROUND_PX) / share for band in range(3)]
    distance = np.abs(np.stack(mean)).mean(axis=0)
    usual = float(np.median(distance[quality > 0])) if some.any() else 0.0
    return (quality / (1 + (distance / (_SPREADS * max(floor, usual))) ** 2) ** 2).astype(np.float32)


def _loss_weight(picture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What a pixel's squared error weighs in 0.8 MSE + 0.2 (1 - SSIM), 1 in the mean.

    1 - SSIM is, but for the means of the windows, the error's variance in a window over the variance of what both
    pictures show there; the latter is taken from the view. So an error counts for more where little is to be seen.
    """
    grey = picture / 255
    inside = partial(ndimage.gaussian_filter, sigma=_SSIM_SIGMA_PX, radius=_SSIM_RADIUS_PX, mode="nearest")
    variance = np.mean([inside(grey[:, :, b] ** 2) - inside(grey[:, :, b]) ** 2 for b in range(3)], axis=0)
    weights = 0.8 + 0.2 * inside(1 / (2 * np.maximum(variance, 0) + _SSIM_C2))
    return (weights * weight.sum() / max(float((weights * weight).sum()), 1e-20)).astype(np.float32)


def shares(blur_px: float, texel_px: float) -> np.ndarray:
    """Along one axis, which shares of a texel's light fall on the pixels around it: [place in the pixel, tap]."""
    sigma = math.sqrt(blur_px**2 + texel_px**2 / 12)

    def below(distance: float) -> float:
        return 0.5 * (1 + math.erf(distance / (max(sigma, 1e-3) * math.sqrt(2))))

    shares = np.empty((_PHASES, _TAPS))
    for phase in range(_PHASES):
        place = (phase + 0.5) / _PHASES
        shares[phase] = [below(tap - 0.5 - place) - below(tap - 1.5 - place) for tap in range(_TAPS)]
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


@njit(cache=True, nogil=True)
def _project(points, coefficients, centre, scale, left, top, x, y):  # type: ignore[no-untyped-def]
    for k in range(points.shape[0]):
        u, v = project_poly(coefficients, centre, scale, points[k, 0], points[k, 1], points[k, 2])
        x[k], y[k] = u - left, v - top


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter(index, x, y, area, share, texels, sums):  # type: ignore[no-untyped-def]
    phases = share.shape[0]
    for k in range(index.size):
        col, row = int(x[k]), int(y[k])
        along = share[int((x[k] - col) * phases)]
        across = share[int((y[k] - row) * phases)]
        t = index[k]
        red, green, blue = texels[t, 0], texels[t, 1], texels[t, 2]
        for i in range(4):
            weight = across[i] * area[k]
            line = sums[row - 1 + i]
            for j in range(4):
                w = weight * along[j]
                line[col - 1 + j, 0] += w * red
                line[col - 1 + j, 1] += w * green
                line[col - 1 + j, 2] += w * blue
                line[col - 1 + j, 3] += w


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(index, x, y, area, share, per_pixel, out):  # type: ignore[no-untyped-def]
    phases = share.shape[0]
    for k in range(index.size):
        col, row = int(x[k]), int(y[k])
        along = share[int((x[k] - col) * phases)]
        across = share[int((y[k] - row) * phases)]
        red = green = blue = mass = np.float32(0)
        for i in range(4):
            weight = across[i] * area[k]
            line = per_pixel[row - 1 + i]
            for j in range(4):
                w = weight * along[j]
                red += w * line[col - 1 + j, 0]
                green += w * line[col - 1 + j, 1]
                blue += w * line[col - 1 + j, 2]
                mass += w * line[col - 1 + j, 3]
        t = index[k]
        out[t, 0] += red
        out[t, 1] += green
        out[t, 2] += blue
        out[t, 3] += mass
