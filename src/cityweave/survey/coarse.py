"""Heights of a window from the views themselves, at an eighth of their resolution: only to know where to search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numba import njit

from cityweave.cameras import PolyCamera, fit_local
from cityweave.grid import Tile
from cityweave.io.satellite import Crop, crop_for
from cityweave.survey.patches import sample_plane
from cityweave.survey.ties import Reach, TieView, camera_of_crop, read_grey

PIXELS = 8  # of an image in one of its coarse means, along each side
HALF = 2  # cells around the middle of the compared patch
MOST_PAIRS = 2
BEST_ANGLE_DEG, ANGLES_DEG = 15.0, (3.0, 40.0)
LEAST_CORRELATION = 0.8
LEAST_CELLS = 60  # with a height that its neighbours share
PERCENTILES = (0.5, 99.5)
BELOW_M, ABOVE_M = 10.0, 15.0  # room for what is too small to be seen at this resolution
ABOVE_SHARE = 0.25  # of the city's tallest structure, if that is more
STEP_CELLS, STEPS_M = 0.5, (2.0, 10.0)


def coarse_range(
    views: Sequence[TieView], window: Tile, reach: Reach, max_building_m: float, seen_m: np.ndarray
) -> tuple[float, float] | None:
    """Lowest and highest of what stands in the window with room around; None when no two views show it.

    The city's own range when they do but can't be matched. `seen_m`: heights of ties in the window, which may be
    slimmer than what is seen here. The views' RPCs are the corrected ones.
    """
    city = reach.heights_m
    crops = _crops(views, window, reach)
    if len(crops) < 2:
        return None
    cameras = {k: fit_local(views[k].rpc, reach.to_geodetic, window.core, city, (0.0, 0.0, 0.0)) for k in crops}
    pairs = _pairs(cameras)
    if not pairs:
        return city
    gsd = PIXELS * max(views[k].gsd_m for k in crops)
    used = sorted({k for pair in pairs for k in pair})
    images = {k: _reduced(read_grey(views[k], crops[k])[0]) for k in used}
    planes = {k: (images[k], *camera_of_crop(cameras[k], crops[k], PIXELS)) for k in used}
    move = min(float(np.hypot(*(cameras[a].lean() - cameras[b].lean()))) for a, b in pairs)
    step = float(np.clip(STEP_CELLS * gsd / move, *STEPS_M))
    heights = np.arange(city[0], city[1] + step, step)
    surface, score = _sweep(planes, pairs, heights, window, gsd)
    known = surface[_consistent(surface, score, step)]
    if len(known) + len(seen_m) < LEAST_CELLS:
        return city
    low, high = np.percentile(known, PERCENTILES) if len(known) else (np.inf, -np.inf)
    if len(seen_m):
        low, high = min(low, float(seen_m.min())), max(high, float(seen_m.max()))
    above = max(ABOVE_M, ABOVE_SHARE * max_building_m)
    low, high = max(np.floor(low - BELOW_M - step), city[0]), min(np.ceil(high + above + step), city[1])
    return (float(low), float(high)) if low < high else city


def _crops(views: Sequence[TieView], window: Tile, reach: Reach) -> dict[int, Crop]:
    out = {}
    for k, view in enumerate(views):
        crop = crop_for(view.rpc, reach.to_geodetic, window.core, reach.heights_m, view.size_px, 2.0 * PIXELS)
        if crop is not None and min(crop.width, crop.height) >= PIXELS * (2 * HALF + 4):
            out[k] = crop
    return out


def _pairs(cameras: dict[int, PolyCamera]) -> list[tuple[int, int]]:
    """The pairs whose angle is good to match: wide enough to tell heights, narrow enough to look alike."""
    rays = {k: np.array([*camera.lean(), 1.0]) for k, camera in cameras.items()}
    found = []
    for a, b in combinations(cameras, 2):
        cosine = rays[a] @ rays[b] / np.linalg.norm(rays[a]) / np.linalg.norm(rays[b])
        angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        if ANGLES_DEG[0] <= angle <= ANGLES_DEG[1]:
            found.append((round(abs(angle - BEST_ANGLE_DEG), 3), a, b))
    return [(a, b) for _, a, b in sorted(found)[:MOST_PAIRS]]


def _reduced(image: np.ndarray) -> np.ndarray:
    rows, cols = image.shape[0] // PIXELS, image.shape[1] // PIXELS
    blocks = image[: rows * PIXELS, : cols * PIXELS].reshape(rows, PIXELS, cols, PIXELS)
    return np.ascontiguousarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _sweep(
    planes: Mapping[int, tuple[np.ndarray, ...]],
    pairs: list[tuple[int, int]],
    heights: np.ndarray,
    window: Tile,
    gsd: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Per cell the height at which the pairs look most alike, and how much they do."""
    side = int(np.ceil(window.size_m / gsd)) + 2 * HALF
    west, north = window.core.xmin - HALF * gsd, window.core.ymax + HALF * gsd
    shape = (side - 2 * HALF, side - 2 * HALF)
    best, surface = np.full(shape, -1, np.float32), np.full(shape, np.nan, np.float32)
    laid = {k: np.empty((side, side), np.float32) for k in planes}
    total, count = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for z in heights:
        for k, (image, coefficients, centre, scale) in planes.items():
            sample_plane(image, coefficients, centre, scale, west, north, gsd, float(z), laid[k])
        total[:], count[:] = 0, 0
        for a, b in pairs:
            _add_correlation(laid[a], laid[b], total, count)
        score = np.where(count > 0, total / np.maximum(count, 1), -1)
        better = score > best
        best, surface = np.where(better, score, best), np.where(better, np.float32(z), surface)
    return surface, best


@njit(cache=True, nogil=True)
def _add_correlation(a, b, total, count):  # type: ignore[no-untyped-def]
    side = 2 * HALF + 1
    n = side * side
    for r in range(total.shape[0]):
        for c in range(total.shape[1]):
            sa, sb, saa, sbb, sab = 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(side):
                for j in range(side):
                    x, y = float(a[r + i, c + j]), float(b[r + i, c + j])
                    sa += x
                    sb += y
                    saa += x * x
                    sbb += y * y
                    sab += x * y
            va, vb = saa - sa * sa / n, sbb - sb * sb / n
            if va > 1e-3 and vb > 1e-3:
                total[r, c] += (sab - sa * sb / n) / np.sqrt(va * vb)
                count[r, c] += 1


def _consistent(surface: np.ndarray, score: np.ndarray, step: float) -> np.ndarray:
    """Cells that look alike well and of whose eight neighbours four have about the same height."""
    good = score >= LEAST_CORRELATION
    padded = np.pad(np.where(good, surface, np.nan), 1, constant_values=np.nan)
    rows, cols = surface.shape
    alike = np.zeros(surface.shape, int)
    for dr in range(3):
        for dc in range(3):
            with np.errstate(invalid="ignore"):
                alike += np.abs(padded[dr : dr + rows, dc : dc + cols] - surface) <= 1.5 * step
    out: np.ndarray = good & (alike >= 5)  # itself included
    return out
