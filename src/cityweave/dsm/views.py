"""Images made ready for matching: luminance, finer sampling, census words.

Census asks of every neighbour only whether it is darker than the middle pixel, so gain and offset of a view cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cityweave.cameras import PolyCamera, project_poly
from cityweave.cores import shares, side_by_side
from cityweave.grid import CellGrid

CENSUS_HALF_COLS, CENSUS_HALF_ROWS = 4, 3
CENSUS_BITS = (2 * CENSUS_HALF_COLS + 1) * (2 * CENSUS_HALF_ROWS + 1) - 1  # 62: one word, with room for a flag
STRIP = 2048  # columns
INVALID_WORD = np.uint64(1 << 63)


@dataclass(frozen=True)
class SweepView:
    """One view as matching sees it. `camera` takes tile-local metres to (u, v) of this very image."""

    name: str
    image: np.ndarray  # [row, col] luminance, any real type
    valid: np.ndarray  # [row, col] bool
    camera: PolyCamera

    def pixel_m(self) -> float:
        """Side of a pixel on the ground, geometric mean of both directions."""
        linear = self.camera.coefficients[:, 1:3] / self.camera.scale[:2]
        return float(1 / np.sqrt(abs(np.linalg.det(linear))))


@dataclass(frozen=True)
class CensusStack:
    """Census words of all views in one flat array, and the cameras that address it."""

    words: np.ndarray  # uint64, views one after another, each [row, col]; INVALID_WORD marks unusable pixels
    offsets: np.ndarray  # int64 (views,)
    widths: np.ndarray  # int64 (views,)
    heights: np.ndarray  # int64 (views,)
    coefficients: np.ndarray  # float64 (views, 2, 10), in samples of the stack
    centres: np.ndarray  # float64 (views, 3)
    scales: np.ndarray  # float64 (views, 3)

    @property
    def views(self) -> int:
        return len(self.offsets)


def leans_of(views: Sequence[SweepView]) -> np.ndarray:
    """(views, 2): metres east and north that a point of the ray moves per metre up, at the centre."""
    coefficients, _, scales = zip(*(view.camera.arrays() for view in views), strict=True)
    linear = np.stack(coefficients)[:, :, 1:4] / np.stack(scales)[:, None, :]
    return np.stack([-np.linalg.solve(m[:, :2], m[:, 2]) for m in linear])


def luminance(bands: np.ndarray) -> np.ndarray:
    """Mean of the bands, [band,row,col] -> [row,col] float32."""
    return np.ascontiguousarray(bands.astype(np.float32).mean(axis=0, dtype=np.float32))


def census_stack(views: Sequence[SweepView], factors: Sequence[float], spacing: int) -> CensusStack:
    """`factors`: samples per pixel of each view: above 1 whole numbers upsample, 1/n averages n x n pixels.

    Neighbours of the census window lie `spacing` samples apart.
    """
    shapes = [_sampled_shape(view.image.shape, factor) for view, factor in zip(views, factors, strict=True)]
    sizes = np.array([rows * cols for rows, cols in shapes], np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    words = np.full(int(sizes.sum()), INVALID_WORD, np.uint64)  # in place: twice this would be the job's peak memory
    for view, factor, shape, offset in zip(views, factors, shapes, offsets, strict=True):
        image, usable = _sampled(view, factor, spacing)
        _fill_words(image, usable, spacing, words[offset : offset + image.size].reshape(shape))
    return CensusStack(
        words=words,
        offsets=offsets,
        widths=np.array([cols for _, cols in shapes], np.int64),
        heights=np.array([rows for rows, _ in shapes], np.int64),
        coefficients=np.stack([view.camera.coefficients * _exact(f) for view, f in zip(views, factors, strict=True)]),
        centres=np.stack([np.asarray(view.camera.centre, np.float64) for view in views]),
        scales=np.stack([np.asarray(view.camera.scale, np.float64) for view in views]),
    )


def _fill_words(image: np.ndarray, usable: np.ndarray, spacing: int, out: np.ndarray) -> None:
    side_by_side(lambda rows: _census(image, usable, spacing, *rows, out), shares(len(image)))


def _exact(factor: float) -> float:
    """A whole number, or one over a whole number."""
    return float(round(factor)) if factor >= 1 else 1 / round(1 / factor)


def _sampled_shape(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    if factor >= 1:
        return shape[0] * round(factor), shape[1] * round(factor)
    return shape[0] // round(1 / factor), shape[1] // round(1 / factor)


def _sampled(view: SweepView, factor: float, spacing: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and which of them have a census window of valid pixels only."""
    image = np.where(view.valid, view.image, 0).astype(np.float32)
    if factor >= 1:
        k = round(factor)
        reach = (spacing * CENSUS_HALF_COLS + k - 1) // k + (2 if k > 1 else 0)
        return upsample_cubic(image, k), np.repeat(np.repeat(_shrink(view.valid, reach), k, 0), k, 1)
    image, valid = _block_mean(image, view.valid, round(1 / factor))
    return image, _shrink(valid, spacing * CENSUS_HALF_COLS)


def _shrink(valid: np.ndarray, pixels: int) -> np.ndarray:
    """Where a window of that half side holds valid pixels only; outside the image nothing is valid."""
    if pixels == 0:
        return valid
    out: np.ndarray = valid.copy()
    for axis in (0, 1):
        wrong = np.pad(~out, [(1 + pixels, pixels) if a == axis else (0, 0) for a in (0, 1)], constant_values=True)
        if axis == 0:
            wrong[0] = False
        else:
            wrong[:, 0] = False
        total = np.cumsum(wrong, axis=axis, dtype=np.int32)
        n = out.shape[axis]
        # No invalid pixel was counted between the two ends of the window.
        out = np.take(total, range(2 * pixels + 1, n + 2 * pixels + 1), axis) == np.take(total, range(n), axis)
    return out


def _block_mean(image: np.ndarray, valid: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = image.shape[0] // k, image.shape[1] // k
    blocks = image[: rows * k, : cols * k].reshape(rows, k, cols, k)
    good = np.asarray(valid[: rows * k, : cols * k].reshape(rows, k, cols, k).all(axis=(1, 3)))
    return np.ascontiguousarray(blocks.mean(axis=(1, 3), dtype=np.float32)), good


def _cubic_taps(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Per phase: first of four taps relative to the pixel, and the Catmull-Rom weights."""
    first = np.empty(k, np.int64)
    weights = np.empty((k, 4), np.float32)
    for phase in range(k):
        position = (phase + 0.5) / k - 0.5  # from the middle of the pixel
        base = int(np.floor(position))
        t = position - base
        first[phase] = base - 1
        weights[phase] = (
            ((-t + 2) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((-3 * t + 4) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        )
    return first, weights


def upsample_cubic(image: np.ndarray, k: int) -> np.ndarray:
    """k x k samples for every pixel (Catmull-Rom); the image corner stays at (0, 0)."""
    if k == 1:
        return np.ascontiguousarray(image, np.float32)
    image = np.ascontiguousarray(image, np.float32)
    out = np.empty((image.shape[0] * k, image.shape[1] * k), np.float32)
    side_by_side(lambda rows: _upsample(image, *_cubic_taps(k), *rows, out), shares(len(image)))
    return out


@njit(cache=True, nogil=True)
def _upsample(image, first, weights, first_row, end_row, out):  # type: ignore[no-untyped-def]
    rows, cols = image.shape
    k = len(first)
    padded = np.empty(cols + 6, np.float32)
    for r in range(first_row, end_row):
        for phase in range(k):
            top = r + first[phase]
            r0, r1 = max(top, 0), min(max(top + 1, 0), rows - 1)
            r2, r3 = min(max(top + 2, 0), rows - 1), min(top + 3, rows - 1)
            w0, w1, w2, w3 = weights[phase, 0], weights[phase, 1], weights[phase, 2], weights[phase, 3]
            for c in range(cols):
                padded[c + 3] = w0 * image[r0, c] + w1 * image[r1, c] + w2 * image[r2, c] + w3 * image[r3, c]
            for c in range(3):
                padded[c] = padded[3]
                padded[cols + 3 + c] = padded[cols + 2]
            line = out[r * k + phase]
            for across in range(k):
                shift = first[across] + 3
                a0, a1, a2, a3 = weights[across, 0], weights[across, 1], weights[across, 2], weights[across, 3]
                for c in range(cols):
                    p = c + shift
                    line[c * k + across] = a0 * padded[p] + a1 * padded[p + 1] + a2 * padded[p + 2] + a3 * padded[p + 3]


@njit(cache=True, nogil=True)
def _census(image, usable, spacing, first, end, out):  # type: ignore[no-untyped-def]
    """Fills rows `first` to before `end` of `out` where `usable` and far enough from the border."""
    rows, cols = image.shape
    margin_r, margin_c = 3 * spacing, 4 * spacing
    half = CENSUS_BITS // 2
    halves = np.empty((2, STRIP), np.uint32)  # twice as many columns fit into a register as of whole words
    # Strips of columns: the seven lines of a strip and its words stay in the nearest cache.
    for left in range(margin_c, cols - margin_c, STRIP):
        width = min(STRIP, cols - margin_c - left)
        for r in range(max(first, margin_r), min(end, rows - margin_r)):
            middle = image[r, left : left + width]
            halves[:] = 0
            for k in range(CENSUS_BITS):
                at = k + k // half  # the pixel in the middle has no bit
                shift = left + (at % 9 - 4) * spacing
                _darker(image[r + (at // 9 - 3) * spacing, shift : shift + width], middle, k % half, halves[k // half])
            for c in range(width):
                if usable[r, left + c]:
                    out[r, left + c] = np.uint64(halves[0, c]) | np.uint64(halves[1, c]) << np.uint64(half)


@njit(cache=True, nogil=True)
def _darker(other, middle, bit, words):  # type: ignore[no-untyped-def]
    """Sets the bit of the words where `other` is darker than `middle`."""
    value = np.uint32(1 << bit)
    for c in range(len(other)):
        words[c] |= value if other[c] < middle[c] else np.uint32(0)


def ortho_luminance(
    views: Sequence[SweepView], grid: CellGrid, surface_m: np.ndarray, horizon_m: np.ndarray
) -> np.ndarray:
    """(cells,) uint8: mean of the views that see the surface, each stretched to its own range; 128 where none does."""
    total = np.zeros(surface_m.size, np.float32)
    count = np.zeros(surface_m.size, np.float32)
    for view, horizon in zip(views, horizon_m, strict=True):
        some = view.image[view.valid][::7]  # a seventh is enough for percentiles
        low, high = np.percentile(some, (2, 98)) if some.size else (0.0, 1.0)
        stretched = np.clip((view.image - np.float32(low)) * np.float32(255 / max(high - low, 1e-6)), 0, 255)
        _add_ortho(
            stretched.astype(np.float32), view.valid, *view.camera.arrays(), grid.x_centres, grid.y_centres,
            surface_m.astype(np.float32).ravel(), horizon, total, count,
        )  # fmt: skip
    return np.where(count > 0, total / np.maximum(count, 1), 128).astype(np.uint8)


@njit(cache=True, nogil=True)
def _add_ortho(image, valid, coefficients, centre, scale, xs, ys, surface, horizon, total, count):  # type: ignore[no-untyped-def]
    rows, cols = image.shape
    for cell in range(len(surface)):
        z = surface[cell]
        if not (z >= horizon[cell]):  # also where there is no surface
            continue
        u, v = project_poly(coefficients, centre, scale, xs[cell % len(xs)], ys[cell // len(xs)], np.float64(z))
        if u >= 0 and v >= 0 and u < cols and v < rows and valid[np.int64(v), np.int64(u)]:
            total[cell] += image[np.int64(v), np.int64(u)]
            count[cell] += np.float32(1)
