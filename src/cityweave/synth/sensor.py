"""From radiance at a finer raster to the numbers a camera delivers: blur, pixels, gain, noise, quantisation."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

DN_PER_RADIANCE = 1500.0
DN_MAX = 2047  # 11 bits
DN_PER_GREY = 6.0  # 8-bit pictures are DN / 6, whatever made them
BLUR_REACH_PX = 1.5


def blur_weights(sigma_px: float, supersample: int) -> tuple[NDArray[np.float64], int]:
    """One axis of (Gaussian, then the pixel's own area) as weights of fine samples, and how far they reach over."""
    reach = int(np.ceil(BLUR_REACH_PX * supersample)) if sigma_px > 0 else 0
    k = np.arange(-reach, reach + 1)
    gauss = np.exp(-0.5 * (k / max(sigma_px * supersample, 1e-9)) ** 2)
    weights = np.convolve(gauss / gauss.sum(), np.full(supersample, 1.0 / supersample))
    return weights, reach


@njit(cache=True, nogil=True)
def _downsample(fine, weights, reach, supersample, out):  # type: ignore[no-untyped-def]
    """Fine samples outside the array or without radiance take no part; a pixel any of whose own fine samples is
    empty is empty."""
    rows, cols = out.shape[0], out.shape[1]
    fine_rows, fine_cols = fine.shape[0], fine.shape[1]
    line = np.empty((fine_cols, 3))
    share = np.empty(fine_cols)
    whole = np.empty(fine_cols, dtype=np.bool_)
    for r in range(rows):
        for c in range(fine_cols):
            line[c, 0] = line[c, 1] = line[c, 2] = share[c] = 0.0
            whole[c] = True
        for k in range(weights.size):
            row = r * supersample - reach + k
            if row < 0 or row >= fine_rows:
                continue
            own = reach <= k < reach + supersample
            w = weights[k]
            for c in range(fine_cols):
                if np.isnan(fine[row, c, 0]):
                    if own:
                        whole[c] = False
                    continue
                line[c, 0] += w * fine[row, c, 0]
                line[c, 1] += w * fine[row, c, 1]
                line[c, 2] += w * fine[row, c, 2]
                share[c] += w
        for c in range(cols):
            s0 = s1 = s2 = t = 0.0
            good = True
            for k in range(weights.size):
                col = c * supersample - reach + k
                if col < 0 or col >= fine_cols:
                    continue
                if reach <= k < reach + supersample and not whole[col]:
                    good = False
                w = weights[k]
                s0 += w * line[col, 0]
                s1 += w * line[col, 1]
                s2 += w * line[col, 2]
                t += w * share[col]
            if good and t > 0.0:
                out[r, c, 0] = s0 / t
                out[r, c, 1] = s1 / t
                out[r, c, 2] = s2 / t
            else:
                out[r, c, 0] = out[r, c, 1] = out[r, c, 2] = np.nan


def downsample(
    fine: NDArray[np.float32], rows: int, cols: int, sigma_px: float, supersample: int
) -> NDArray[np.float32]:
    """Fine radiance [rows * s, cols * s, 3] to pixels."""
    weights, reach = blur_weights(sigma_px, supersample)
    out = np.empty((rows, cols, 3), dtype=np.float32)
    _downsample(fine, weights, reach, supersample, out)
    return out


@njit(cache=True, nogil=True)
def _digitise(radiance, noise, factor, offset_dn, noise_dn, out):  # type: ignore[no-untyped-def]
    for r in range(radiance.shape[0]):
        for c in range(radiance.shape[1]):
            for k in range(3):
                if np.isnan(radiance[r, c, k]):
                    out[r, c, k] = 0
                    continue
                dn = radiance[r, c, k] * factor + offset_dn
                # reading noise, and shot noise that doubles it at full scale
                dn += noise[r, c, k] * noise_dn * np.sqrt(1.0 + 3.0 * min(max(dn, 0.0), DN_MAX) / DN_MAX)
                out[r, c, k] = np.uint16(min(max(np.rint(dn), 1.0), DN_MAX))


def digitise(
    radiance: NDArray[np.float32], gain: float, offset_dn: float, noise_dn: float, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """11-bit numbers; 0 means nothing was seen, so the darkest real value is 1."""
    noise = rng.standard_normal(radiance.shape, dtype=np.float32)
    out = np.empty(radiance.shape, dtype=np.uint16)
    _digitise(radiance, noise, DN_PER_RADIANCE * gain, float(offset_dn), float(noise_dn), out)
    return out


@njit(cache=True, nogil=True)
def _to_grey(radiance, factor, out):  # type: ignore[no-untyped-def]
    for r in range(radiance.shape[0]):
        for c in range(radiance.shape[1]):
            for k in range(3):
                value = radiance[r, c, k] * factor
                out[r, c, k] = 0 if np.isnan(value) else np.uint8(min(max(np.rint(value), 0.0), 255.0))


def to_grey(radiance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The 8-bit picture of nominal DN (gain 1, no offset, no noise): DN / 6, black where nothing is seen."""
    out = np.empty(radiance.shape, dtype=np.uint8)
    _to_grey(radiance, DN_PER_RADIANCE / DN_PER_GREY, out)
    return out
