"""The z-buffer again in plain numpy, one triangle at a time: slow, short, and the judge of `rasterise`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.render.rasterise import NO_FACE, Fragments, Nearest, checked


def _edge(a: NDArray[Any], b: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float64]:
    """Twice the signed area of (a, b, sample), computed from the lower end point whatever the direction."""
    sign = 1.0
    if not (a[1] < b[1] or (a[1] == b[1] and a[0] <= b[0])):
        a, b, sign = b, a, -1.0
    return sign * ((b[0] - a[0]) * (v - a[1]) - (b[1] - a[1]) * (u - a[0]))  # type: ignore[no-any-return]


def rasterise_reference(
    screen_nx2: NDArray[Any],
    depth_n: NDArray[Any],
    faces_mx3: NDArray[Any],
    width: int,
    height: int,
    nearest: Nearest = "smallest",
    perspective: bool = False,
) -> Fragments:
    """Same meaning as `rasterise.rasterise`, over every pixel for every triangle."""
    screen, depth, faces = checked(screen_nx2, depth_n, faces_mx3, (width, height), nearest)
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    face = np.full((height, width), NO_FACE, dtype=np.int32)
    best = np.full((height, width), np.nan, dtype=np.float32)
    bary = np.zeros((height, width, 2), dtype=np.float32)
    for f, corner in enumerate(faces):
        p, z = screen[corner], depth[corner]
        area = (p[1, 0] - p[0, 0]) * (p[2, 1] - p[0, 1]) - (p[1, 1] - p[0, 1]) * (p[2, 0] - p[0, 0])
        if not np.isfinite(area) or area == 0.0 or not np.isfinite(z).all():
            continue
        order = [0, 1, 2] if area > 0 else [0, 2, 1]
        inside = np.ones((height, width), dtype=bool)
        weight = np.zeros((3, height, width))
        for k in range(3):
            a, b = p[order[(k + 1) % 3]], p[order[(k + 2) % 3]]
            e = _edge(a, b, u, v)
            owns = b[1] < a[1] or (b[1] == a[1] and b[0] > a[0])
            inside &= (e > 0) | ((e == 0) & owns)
            weight[order[k]] = e * (1.0 / abs(area))
        weight[order[2]] = 1.0 - weight[order[0]] - weight[order[1]]
        if perspective:
            inverse = np.tensordot(1.0 / z, weight, axes=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                value = 1.0 / inverse
                weight = weight / z[:, None, None] * value
        else:
            value = np.tensordot(z, weight, axes=1)
        value = value.astype(np.float32)
        with np.errstate(invalid="ignore"):
            closer = value > best if nearest == "largest" else value < best
        won = inside & ((face < 0) | closer)
        face[won], best[won] = f, value[won]
        bary[won, 0], bary[won, 1] = weight[0][won], weight[1][won]
    return Fragments(face, best, bary)
