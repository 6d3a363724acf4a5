"""PSNR, SSIM and sharpness over a chosen part of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import sobel, uniform_filter1d

_SIGMA_PX, _RADIUS_PX = 1.5, 5  # the 11 x 11 window of Wang et al. 2004
_REBLUR_PX = 11
_C1, _C2 = 0.01**2, 0.03**2


def psnr(ours: NDArray[Any], truth: NDArray[Any], scored: NDArray[np.bool_]) -> float:
    """Pictures (h, w, 3) in 0..1; infinite for identical ones."""
    difference = ours[scored].astype(np.float64) - truth[scored].astype(np.float64)
    error = float((difference * difference).mean())
    return float("inf") if error == 0 else float(-10.0 * np.log10(error))


@njit(cache=True)
def _blur_rows(image, kernel, out):  # type: ignore[no-untyped-def]
    """Gaussian along the last axis with mirrored ends; called twice on the transposed picture."""
    rows, cols = image.shape
    radius = kernel.shape[0] // 2
    for r in range(rows):
        for c in range(cols):
            total = 0.0
            for k in range(-radius, radius + 1):
                q = c + k
                if q < 0:
                    q = -q - 1
                if q >= cols:
                    q = 2 * cols - 1 - q
                total += kernel[k + radius] * image[r, q]
            out[c, r] = total


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    offset = np.arange(-_RADIUS_PX, _RADIUS_PX + 1)
    kernel = np.exp(-0.5 * (offset / _SIGMA_PX) ** 2)
    kernel /= kernel.sum()
    turned = np.empty(image.shape[::-1])
    _blur_rows(np.ascontiguousarray(image), kernel, turned)
    out = np.empty(image.shape)
    _blur_rows(turned, kernel, out)
    return out


def ssim_map(ours: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Structural similarity of grey pictures (h, w) in 0..1, per pixel."""
    a, b = ours.astype(np.float64), truth.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a * mean_a
    var_b = _blur(b * b) - mean_b * mean_b
    cov = _blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + _C1) * (2 * cov + _C2)
    return top / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))  # type: ignore[no-any-return]


def ssim(ours: NDArray[Any], truth: NDArray[Any], scored: NDArray[np.bool_]) -> float:
    """Mean over the three channels and the scored pixels of pictures (h, w, 3) in 0..1."""
    channels = [ssim_map(ours[..., k], truth[..., k])[scored].mean() for k in range(3)]
    return float(np.mean(channels))


def sharpness(picture: NDArray[Any], scored: NDArray[np.bool_]) -> float:
    """0 to 1 without a reference, of a picture (h, w, 3): 1 less the perceptual blur of Crété-Roffet et al. 2007.

    How much of the change between neighbours a wide blur takes away; what is blurred already has little to lose. The
    lower of the two axes counts.
    """
    grey = picture.astype(np.float64).mean(axis=2)
    found = []
    for axis in (0, 1):
        change, blurred = (
            np.abs(sobel(image, axis=axis)) for image in (grey, uniform_filter1d(grey, _REBLUR_PX, axis=axis))
        )
        before = float(change[scored].sum())
        found.append(float(np.maximum(change - blurred, 0)[scored].sum()) / before if before else 0.0)
    return min(found)
