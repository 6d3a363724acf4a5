"""Kernels of the survey: views laid on a level plane, and patches of one found in another.

Arrays are north-up; NaN is what must not be used and spreads through every sum.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cityweave.cameras import project_poly

COARSE_HALF, MIDDLE_HALF, FINE_HALF = 5, 6, 10  # half sides of the patches at 4, 2 and 1 cells
CANDIDATES = 3  # best places of the coarse search that are looked at more closely
APART = 2  # cells by which two candidates differ at least
MAX_FULL = 0.1  # share of a patch that may be at the sensor's limit
LSM_STEPS = 10
SLOPE_PRIOR = 0.15  # how much a patch is stretched along the parallax by the slope of its ground
_SUM = {"reassoc", "contract", "nsz", "arcp"}  # lets sums run in vector registers; NaN stays NaN


@njit(cache=True, nogil=True)
def sample_plane(image, coefficients, centre, scale, west, north, gsd, z, out):  # type: ignore[no-untyped-def]
    """Fills `out` with the view's values (Catmull-Rom) where the cell centres of the plane at `z` appear."""
    rows, cols = image.shape
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    for r in range(out.shape[0]):
        y = north - (r + 0.5) * gsd
        for c in range(out.shape[1]):
            u, v = project_poly(coefficients, centre, scale, west + (c + 0.5) * gsd, y, z)
            a, b = u - 0.5, v - 0.5
            i, j = int(np.floor(b)), int(np.floor(a))
            if i < 1 or j < 1 or i + 2 >= rows or j + 2 >= cols:
                out[r, c] = np.nan
                continue
            _taps(a - j, wx)
            _taps(b - i, wy)
            total = np.float32(0)
            for k in range(4):
                line = image[i - 1 + k]
                total += wy[k] * (
                    wx[0] * line[j - 1] + wx[1] * line[j] + wx[2] * line[j + 1] + wx[3] * line[j + 2]
                )  # fmt: skip
            out[r, c] = total


@njit(cache=True, nogil=True, inline="always")
def _taps(t, out):  # type: ignore[no-untyped-def]
    out[0] = ((-t + 2) * t - 1) * t / 2
    out[1] = ((3 * t - 5) * t * t + 2) / 2
    out[2] = ((-3 * t + 4) * t + 1) * t / 2
    out[3] = (t - 1) * t * t / 2


def halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 cells."""
    rows, cols = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    a = image[:rows, :cols]
    return (a[0::2, 0::2] + a[1::2, 0::2] + a[0::2, 1::2] + a[1::2, 1::2]) * np.float32(0.25)


@njit(cache=True, nogil=True)
def corner_strength(image, top, left, full, out):  # type: ignore[no-untyped-def]
    """Fills `out`, whose first pixel is (top, left) of the image: contrast of the fine patch in its poorest direction.

    The smaller eigenvalue of the structure tensor; 0 where the patch holds NaN or mostly values from `full` upwards.
    """
    half, side = FINE_HALF, 2 * FINE_HALF + 1
    rows, cols = out.shape
    lines = np.zeros((5, cols + 2 * half))  # sums down the patch: xx, yy, xy, unusable, full
    for r in range(top - half, top + rows + half):
        for sign, line in ((1.0, r), (-1.0, r - side)):
            if line < max(top - half, 1) or line >= image.shape[0] - 1:
                if sign > 0:
                    lines[3] += 1
                elif line >= top - half:
                    lines[3] -= 1
                continue
            for c in range(cols + 2 * half):
                col = left - half + c
                if col < 1 or col >= image.shape[1] - 1:
                    lines[3, c] += sign
                    continue
                dx = float(image[line, col + 1] - image[line, col - 1])
                dy = float(image[line + 1, col] - image[line - 1, col])
                if np.isnan(dx) or np.isnan(dy):
                    lines[3, c] += sign
                    continue
                lines[0, c] += sign * dx * dx
                lines[1, c] += sign * dy * dy
                lines[2, c] += sign * dx * dy
                lines[4, c] += sign * (image[line, col] >= full)
        row = r - half - top
        if row < 0 or row >= rows:
            continue
        total = np.zeros(5)
        for c in range(cols + 2 * half):
            for k in range(5):
                total[k] += lines[k, c]
                if c >= side:
                    total[k] -= lines[k, c - side]
            if c >= side - 1:
                xx, yy, xy = total[0], total[1], total[2]
                smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
                usable = total[3] < 0.5 and total[4] <= MAX_FULL * side * side
                out[row, c - side + 1] = max(smaller, 0.0) if usable else 0.0


@njit(cache=True, nogil=True, fastmath=_SUM)
def _template(image, row, col, half, out):  # type: ignore[no-untyped-def]
    """Fills `out` with the patch, mean 0 and length 1; false if it holds NaN, leaves the image or is flat."""
    if row < half or col < half or row + half >= image.shape[0] or col + half >= image.shape[1]:
        return False
    side = 2 * half + 1
    total = np.float32(0)
    for r in range(side):
        for c in range(side):
            out[r, c] = image[row - half + r, col - half + c]
            total += out[r, c]
    mean = total / np.float32(side * side)
    square = np.float32(0)
    for r in range(side):
        for c in range(side):
            out[r, c] -= mean
            square += out[r, c] * out[r, c]
    if not square > np.float32(1e-3):
        return False
    scale = np.float32(1) / np.sqrt(square)
    for r in range(side):
        for c in range(side):
            out[r, c] *= scale
    return True


@njit(cache=True, nogil=True, fastmath=_SUM)
def _correlation(template, image, row, col, half):  # type: ignore[no-untyped-def]
    """Normalised cross-correlation in -1..1; -2 outside the image and at NaN."""
    if row < half or col < half or row + half >= image.shape[0] or col + half >= image.shape[1]:
        return np.float32(-2)
    side = 2 * half + 1
    product, total, square = np.float32(0), np.float32(0), np.float32(0)
    for r in range(side):
        for c in range(side):
            value = image[row - half + r, col - half + c]
            product += template[r, c] * value
            total += value
            square += value * value
    spread = square - total * total / np.float32(side * side)
    if not spread > np.float32(1e-3):
        return np.float32(-2)
    return product / np.sqrt(spread)


@njit(cache=True, nogil=True)
def _best_around(template, image, row, col, half, reach):  # type: ignore[no-untyped-def]
    best, at_r, at_c = np.float32(-2), row, col
    for r in range(row - reach, row + reach + 1):
        for c in range(col - reach, col + reach + 1):
            score = _correlation(template, image, r, c, half)
            if score > best:
                best, at_r, at_c = score, r, c
    return best, at_r, at_c


@njit(cache=True, nogil=True)
def _strip_scores(template, image, row, col, along, lowest, highest, across, scores):  # type: ignore[no-untyped-def]
    for t in range(lowest, highest + 1):
        for w in range(-across, across + 1):
            r = row + int(np.rint(t * along[1] + w * along[0]))
            c = col + int(np.rint(t * along[0] - w * along[1]))
            scores[t - lowest, w + across] = _correlation(template, image, r, c, COARSE_HALF)


@njit(cache=True, nogil=True)
def _take_best(scores):  # type: ignore[no-untyped-def]
    """Indices of the largest score; what lies around it is struck out."""
    best, bt, bw = np.float32(-1), -1, -1
    for t in range(scores.shape[0]):
        for w in range(scores.shape[1]):
            if scores[t, w] > best:
                best, bt, bw = scores[t, w], t, w
    if bt >= 0:
        for t in range(max(bt - APART, 0), min(bt + APART + 1, scores.shape[0])):
            for w in range(max(bw - APART, 0), min(bw + APART + 1, scores.shape[1])):
                scores[t, w] = np.float32(-2)
    return bt, bw


@njit(cache=True, nogil=True)
def match_points(a0, a1, a2, b0, b1, b2, points, along, lowest, highest, across, out):  # type: ignore[no-untyped-def]
    """Where patches of plane `a` appear on plane `b`.

    a0, a1, a2: the same plane at 1, 2 and 4 cells. points (n, 2): row and column. along: unit (column, row) in which
    higher ground moves. lowest, highest, across: search in cells of 4. out (n, 5): columns and rows moved, correlation,
    correlation of the next best place, standard deviation across `along` in cells; NaN where nothing was found.
    """
    coarse = np.empty((2 * COARSE_HALF + 1, 2 * COARSE_HALF + 1), np.float32)
    middle = np.empty((2 * MIDDLE_HALF + 1, 2 * MIDDLE_HALF + 1), np.float32)
    fine = np.empty((2 * FINE_HALF + 1, 2 * FINE_HALF + 1), np.float32)
    scores = np.empty((highest - lowest + 1, 2 * across + 1), np.float32)
    for n in range(points.shape[0]):
        out[n, :] = np.nan
        row, col = points[n, 0], points[n, 1]
        if not (
            _template(a2, row // 4, col // 4, COARSE_HALF, coarse)
            and _template(a1, row // 2, col // 2, MIDDLE_HALF, middle)
            and _template(a0, row, col, FINE_HALF, fine)
        ):
            continue
        _strip_scores(coarse, b2, row // 4, col // 4, along, lowest, highest, across, scores)
        best, second, dr, dc = np.float32(-2), np.float32(-2), 0, 0
        for _ in range(CANDIDATES):
            t, w = _take_best(scores)
            if t < 0:
                break
            t, w = t + lowest, w - across
            r, c = int(np.rint(t * along[1] + w * along[0])), int(np.rint(t * along[0] - w * along[1]))
            _, r1, c1 = _best_around(middle, b1, row // 2 + 2 * r, col // 2 + 2 * c, MIDDLE_HALF, 2)
            r, c = r1 - row // 2, c1 - col // 2
            score, r0, c0 = _best_around(fine, b0, row + 2 * r, col + 2 * c, FINE_HALF, 2)
            r, c = r0 - row, c0 - col
            if score > best:
                if abs(r - dr) > APART or abs(c - dc) > APART:
                    second = best
                best, dr, dc = score, r, c
            elif score > second and (abs(r - dr) > APART or abs(c - dc) > APART):
                second = score
        if best > -1:
            _refine(fine, b0, row, col, dc, dr, along, out[n])
            out[n, 3] = second


@njit(cache=True, nogil=True)
def _refine(template, image, row, col, dc, dr, along, out):  # type: ignore[no-untyped-def]
    """Least squares for shift, gain, offset, and stretch along the parallax, which sloping ground causes."""
    place = np.array([float(dc), float(dr), 0.0, 0.0])  # columns, rows, stretch per column and per row
    normal, right = np.empty((6, 6)), np.empty(6)
    moved, correlation, variance = 1.0, np.nan, np.nan
    for step in range(LSM_STEPS + 1):
        # Gain and offset first: with them the rest is linear.
        correlation, gain, offset = _gain(template, image, row, col, place, along)
        if not gain > 0:
            return
        if moved < 1e-3 or step == LSM_STEPS:
            break
        noise = _equations(template, image, row, col, place, along, gain, offset, normal, right)
        prior = noise / (SLOPE_PRIOR * SLOPE_PRIOR)
        for k in range(2, 4):
            normal[k, k] += prior
            right[k] -= prior * place[k]
        if not _solve_in_place(normal, right):
            return
        x, y = -along[1], along[0]  # across
        variance = noise * (x * x * normal[0, 0] + 2 * x * y * normal[0, 1] + y * y * normal[1, 1])
        place += right[:4]
        moved = abs(right[0]) + abs(right[1])
        if abs(place[0] - dc) > 1.5 or abs(place[1] - dr) > 1.5 or abs(place[2]) > 0.6 or abs(place[3]) > 0.6:
            return
    if moved < 0.05 and variance >= 0:
        out[0], out[1], out[2], out[4] = place[0], place[1], correlation, np.sqrt(variance)


@njit(cache=True, nogil=True)
def _gain(template, image, row, col, place, along):  # type: ignore[no-untyped-def]
    """Correlation with the patch there, and the gain and offset that make it the template; gain 0 if none does."""
    n = template.size
    s_tb, s_b, s_bb = 0.0, 0.0, 0.0
    for r in range(template.shape[0]):
        for c in range(template.shape[1]):
            value, _, _ = _at(image, row, col, r - FINE_HALF, c - FINE_HALF, place, along)
            s_tb += template[r, c] * value
            s_b += value
            s_bb += value * value
    spread = s_bb - s_b * s_b / n
    if not spread > 1e-3:
        return np.nan, 0.0, 0.0
    gain = s_tb / spread
    return s_tb / np.sqrt(spread), gain, -gain * s_b / n


@njit(cache=True, nogil=True)
def _equations(template, image, row, col, place, along, gain, offset, normal, right):  # type: ignore[no-untyped-def]
    """Fills the normal equations of shift, stretch, gain and offset; returns the variance of what is left."""
    normal[:] = 0.0
    right[:] = 0.0
    line = np.empty(6)
    left = 0.0
    for r in range(template.shape[0]):
        for c in range(template.shape[1]):
            i, j = r - FINE_HALF, c - FINE_HALF
            value, bx, by = _at(image, row, col, i, j, place, along)
            ahead = bx * along[0] + by * along[1]
            line[0], line[1], line[2], line[3] = gain * bx, gain * by, gain * ahead * j, gain * ahead * i
            line[4], line[5] = value, 1.0
            error = template[r, c] - gain * value - offset
            left += error * error
            for k in range(6):
                right[k] += line[k] * error
                for m in range(k + 1):
                    normal[k, m] += line[k] * line[m]
    for k in range(6):
        for m in range(k + 1, 6):
            normal[k, m] = normal[m, k]
    return left / (template.size - 6)


@njit(cache=True, nogil=True, inline="always")
def _at(image, row, col, i, j, place, along):  # type: ignore[no-untyped-def]
    """Value and slopes (Catmull-Rom) of the image where offset (i, j) of a patch belongs; NaN outside."""
    stretch = place[2] * j + place[3] * i
    a, b = col + j + place[0] + stretch * along[0], row + i + place[1] + stretch * along[1]
    c, r = int(np.floor(a)), int(np.floor(b))
    if r < 1 or c < 1 or r + 2 >= image.shape[0] or c + 2 >= image.shape[1]:
        return np.nan, np.nan, np.nan
    s, t = a - c, b - r
    value, dx, dy = 0.0, 0.0, 0.0
    u0, u1, u2, u3 = _weights(s)
    d0, d1, d2, d3 = _slopes(s)
    for k in range(4):
        m0, m1, m2, m3 = image[r - 1 + k, c - 1], image[r - 1 + k, c], image[r - 1 + k, c + 1], image[r - 1 + k, c + 2]
        here = u0 * m0 + u1 * m1 + u2 * m2 + u3 * m3
        w = _weight(k, t)
        value += w * here
        dx += w * (d0 * m0 + d1 * m1 + d2 * m2 + d3 * m3)
        dy += _slope(k, t) * here
    return value, dx, dy


@njit(cache=True, nogil=True, inline="always")
def _weights(t):  # type: ignore[no-untyped-def]
    return (
        ((-t + 2) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((-3 * t + 4) * t + 1) * t / 2, (t - 1) * t * t / 2,
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _slopes(t):  # type: ignore[no-untyped-def]
    return (
        ((-3 * t + 4) * t - 1) / 2, (9 * t - 10) * t / 2, ((-9 * t + 8) * t + 1) / 2, (3 * t - 2) * t / 2,
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _weight(k, t):  # type: ignore[no-untyped-def]
    return _weights(t)[k]


@njit(cache=True, nogil=True, inline="always")
def _slope(k, t):  # type: ignore[no-untyped-def]
    return _slopes(t)[k]


@njit(cache=True, nogil=True)
def _solve_in_place(normal, right):  # type: ignore[no-untyped-def]
    """`right` becomes the solution and `normal` its own inverse, by Gauss-Jordan steps; false if it is singular."""
    n = len(right)
    for k in range(n):
        pivot = normal[k, k]
        if not pivot > 1e-12:
            return False
        for m in range(n):
            normal[k, m] /= pivot
        normal[k, k] = 1 / pivot
        right[k] /= pivot
        for r in range(n):
            if r == k:
                continue
            factor = normal[r, k]
            for m in range(n):
                if m != k:
                    normal[r, m] -= factor * normal[k, m]
            normal[r, k] = -factor / pivot
            right[r] -= factor * right[k]
    return True
