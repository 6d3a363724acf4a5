"""Colours where no view looked: from around the hole, else from charts that face the same way."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def push_pull(colour, known):  # type: ignore[no-untyped-def]
    """Fill a rectangle in place: colour float32 [h,w,3], known bool [h,w] with at least one True.

    Means of known texels over 2 x 2 squares, level by level until all is known; then back down, unknown texels
    blending the four coarse ones around them. Smooth, and exact where something was known.
    """
    levels_colour = [colour]
    levels_known = [known]
    while True:
        c, m = levels_colour[-1], levels_known[-1]
        h, w = m.shape
        complete = True
        for r in range(h):
            for q in range(w):
                if not m[r, q]:
                    complete = False
        if complete or (h == 1 and w == 1):
            break
        hh, ww = (h + 1) // 2, (w + 1) // 2
        cc = np.zeros((hh, ww, 3), np.float32)
        mm = np.zeros((hh, ww), np.bool_)
        for r in range(hh):
            for q in range(ww):
                n = 0
                for i in range(2 * r, min(2 * r + 2, h)):
                    for j in range(2 * q, min(2 * q + 2, w)):
                        if m[i, j]:
                            n += 1
                            for b in range(3):
                                cc[r, q, b] += c[i, j, b]
                if n:
                    mm[r, q] = True
                    for b in range(3):
                        cc[r, q, b] /= n
        levels_colour.append(cc)
        levels_known.append(mm)
    for level in range(len(levels_colour) - 2, -1, -1):
        c, m, cc = levels_colour[level], levels_known[level], levels_colour[level + 1]
        h, w = m.shape
        hh, ww = cc.shape[0], cc.shape[1]
        for r in range(h):
            for q in range(w):
                if m[r, q]:
                    continue
                y, x = r * 0.5 - 0.25, q * 0.5 - 0.25
                r0, q0 = int(np.floor(y)), int(np.floor(x))
                fy, fx = y - r0, x - q0
                ra, rb = max(r0, 0), min(r0 + 1, hh - 1)
                qa, qb = max(q0, 0), min(q0 + 1, ww - 1)
                for b in range(3):
                    above = (1 - fx) * cc[ra, qa, b] + fx * cc[ra, qb, b]
                    below = (1 - fx) * cc[rb, qa, b] + fx * cc[rb, qb, b]
                    c[r, q, b] = (1 - fy) * above + fy * below


@njit(cache=True, nogil=True)
def fill_charts(colour, known, chart, spare):  # type: ignore[no-untyped-def]
    """Push-pull inside each rectangle (x, y, w, h) of `chart`; rectangles without a known texel become `spare` (n,3).

    The whole rectangle is filled, padding included: that is the gutter.
    """
    for n in range(chart.shape[0]):
        x, y, w, h = chart[n, 0], chart[n, 1], chart[n, 2], chart[n, 3]
        any_known = False
        for r in range(y, y + h):
            for q in range(x, x + w):
                if known[r, q]:
                    any_known = True
        if not any_known:
            for r in range(y, y + h):
                for q in range(x, x + w):
                    for b in range(3):
                        colour[r, q, b] = spare[n, b]
            continue
        # Element by element: assigning slices takes many seconds to compile.
        c, m = np.empty((h, w, 3), np.float32), np.empty((h, w), np.bool_)
        for r in range(h):
            for q in range(w):
                m[r, q] = known[y + r, x + q]
                for b in range(3):
                    c[r, q, b] = colour[y + r, x + q, b]
        push_pull(c, m)
        for r in range(h):
            for q in range(w):
                for b in range(3):
                    colour[y + r, x + q, b] = c[r, q, b]


@njit(cache=True, nogil=True)
def chart_means(colour, known, chart):  # type: ignore[no-untyped-def]
    """Mean colour (n,3) and number (n,) of known texels per rectangle."""
    mean = np.zeros((chart.shape[0], 3), np.float64)
    count = np.zeros(chart.shape[0], np.int64)
    for n in range(chart.shape[0]):
        x, y, w, h = chart[n, 0], chart[n, 1], chart[n, 2], chart[n, 3]
        for r in range(y, y + h):
            for q in range(x, x + w):
                if known[r, q]:
                    count[n] += 1
                    for b in range(3):
                        mean[n, b] += colour[r, q, b]
        if count[n]:
            for b in range(3):
                mean[n, b] /= count[n]
    return mean, count


def spare_colours(
    mean: np.ndarray, count: np.ndarray, centre: np.ndarray, facing: np.ndarray, default: np.ndarray
) -> np.ndarray:
    """A colour (n,3) for every chart: its own mean, else that of the nearest chart facing within 60 degrees.

    `centre` (n,3) local metres. Charts with few texels don't vouch for others. `default` where no chart was seen.
    """
    out = np.where(count[:, None] > 0, mean, default)
    donors = np.flatnonzero(count >= 16)
    if len(donors):
        overall = (mean[donors] * count[donors, None]).sum(axis=0) / count[donors].sum()
        for n in np.flatnonzero(count == 0):
            alike = donors[facing[donors] @ facing[n] > 0.5]
            if len(alike):
                gap = ((centre[alike] - centre[n]) ** 2).sum(axis=1)
                out[n] = mean[alike[np.argmin(gap)]]
            else:
                out[n] = overall
    return out.astype(np.float32)
