"""One colour from many looks, none of which is to be trusted: shadows move, edges leak, cars drive away."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fuse(colour, weight, floor, out_colour, out_count, out_lead):  # type: ignore[no-untyped-def]
    """colour (k,views,3), weight (k,views) -> out_colour (k,3) float32, out_count (k,) of views that saw it and
    out_lead (k,), the view that counts most, -1 where none did.

    Start from the weighted median per band, which ignores the minority; then one reweighting step
    w / (1 + (d / s)²)² by the distance d from it brings back the mean's low noise. s follows the spread of the
    looks and is at least `floor` (0..255 scale). Two looks that disagree: the better one wins by its weight.
    """
    texels, views = weight.shape
    value = np.empty(views, np.float64)
    mass = np.empty(views, np.float64)
    distance = np.empty(views, np.float64)
    start = np.empty(3, np.float64)
    for k in range(texels):
        count = 0
        total = 0.0
        for v in range(views):
            if weight[k, v] > 0.0:
                count += 1
                total += weight[k, v]
        out_count[k] = count
        out_lead[k] = -1
        most = 0.0
        if count == 0:
            continue
        if count <= 2:
            for b in range(3):
                out_colour[k, b] = 0.0
            square = 0.0
            for v in range(views):
                square += weight[k, v] ** 2
            for v in range(views):
                if weight[k, v] > 0.0:
                    if weight[k, v] > most:
                        most, out_lead[k] = weight[k, v], v
                    for b in range(3):
                        out_colour[k, b] += colour[k, v, b] * weight[k, v] ** 2 / square
            continue
        for b in range(3):
            n = 0
            for v in range(views):
                if weight[k, v] > 0.0:
                    x, w = colour[k, v, b], weight[k, v]
                    at = n
                    while at > 0 and value[at - 1] > x:
                        value[at], mass[at] = value[at - 1], mass[at - 1]
                        at -= 1
                    value[at], mass[at] = x, w
                    n += 1
            start[b] = _half_way(value, mass, n, total)
        n = 0
        for v in range(views):
            if weight[k, v] > 0.0:
                d = 0.0
                for b in range(3):
                    d += abs(colour[k, v, b] - start[b])
                distance[v] = d / 3.0
                x, w = distance[v], weight[k, v]
                at = n
                while at > 0 and value[at - 1] > x:
                    value[at], mass[at] = value[at - 1], mass[at - 1]
                    at -= 1
                value[at], mass[at] = x, w
                n += 1
        spread = max(_half_way(value, mass, n, total), floor)
        total = 0.0
        for b in range(3):
            start[b] = 0.0
        for v in range(views):
            if weight[k, v] > 0.0:
                w = weight[k, v] / (1.0 + (distance[v] / spread) ** 2) ** 2
                total += w
                if w > most:
                    most, out_lead[k] = w, v
                for b in range(3):
                    start[b] += w * colour[k, v, b]
        for b in range(3):
            out_colour[k, b] = start[b] / total


@njit(cache=True, inline="always")
def _half_way(value, mass, n, total):  # type: ignore[no-untyped-def]
    """Where the mass of the first n sorted values passes half, interpolated between neighbours."""
    below = 0.0
    for i in range(n):
        centre = below + mass[i] / 2
        if centre >= total / 2:
            if i == 0:
                return value[0]
            before = below - mass[i - 1] / 2
            t = (total / 2 - before) / (centre - before)
            return value[i - 1] + t * (value[i] - value[i - 1])
        below += mass[i]
    return value[n - 1]
