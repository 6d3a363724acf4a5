"""Heights that fit the shadows: a network sees how long a shadow is, but measures it badly.

Where the sun stood is told. What a network predicts is cut into bodies, such as a tower or one part of it. A ray from
each low cell towards the sun says how high every body on it would have to be to hide the sun. How dark a cell is speaks
for or against that, by what cells in predicted shadow and in predicted sunlight look like in this very picture. Each
body gets the factor on its height that is likeliest by all its cells and by how far predictions are off: all bodies at
once, a few rounds of a mean field, since a cell that another one shadows says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import ndimage

from cityweave.patches import patches_between_jumps

CELL_M = 1.0  # finer tells nothing more
LOW_M = 2.5  # cells that shadows are read on: ground and what is about as low
BODY_M, BODY_CELLS, STEP_M = 6.0, 40, 1.5  # a body is higher, larger, and has no steps above that
LEAST_M = 20.0  # lower bodies stay as they are: their shadows are as long as footprints are uncertain
REACH_M = 250.0  # heights above a cell that are looked at
FACTORS = np.exp(np.linspace(-0.96, 0.96, 65))  # 1 is the middle one
FITS, OFF = 2, 0.2  # once more with fitted heights; standard deviation of a height's logarithm before each
MOST = 0.4  # logarithm of a factor that is believed: what asks for more isn't that body's shadow, or not a body
CELL_WEIGHT = 0.006  # cells say much the same as their neighbours: so much of what independent ones would
ROUNDS, DAMPING = 12, 0.5
SHADES, LEAST_CELLS = 32, 200  # of how dark a cell is; cells in shadow and in sunlight without which nothing is told
LEAST_EVIDENCE = 0.5  # mean of cells in predicted shadow, or against it in sunlight; 1.2 and more with the right sun


@dataclass(frozen=True)
class Sun:
    azimuth_deg: float  # direction from the city to the sun
    elevation_deg: float

    def shift(self, cell_m: float) -> tuple[float, float]:
        """Rows and columns that the tip of a shadow moves by with a metre of height."""
        length = 1 / np.tan(np.radians(self.elevation_deg)) / cell_m
        azimuth = np.radians(self.azimuth_deg)
        return float(length * np.cos(azimuth)), float(-length * np.sin(azimuth))


def shadow_factors(
    metres: np.ndarray,
    picture: np.ndarray,
    known: np.ndarray,
    sun: Sun,
    gsd_m: float,
    ground_m: np.ndarray | None = None,
) -> np.ndarray | None:
    """[y, x]: times what predicted heights [y, x] are as high as shadows in the picture [3, y, x] are long.

    None where shadows tell nothing. `known` says where both picture and heights are, `ground_m` [y, x] how high the
    ground is, flat otherwise: down a slope a shadow is longer.
    """
    times = max(1, round(CELL_M / gsd_m))
    rows, cols = (size // times * times for size in metres.shape)
    seen, ground_m = np.where(known, metres, 0), np.zeros_like(metres) if ground_m is None else ground_m
    heights, light, ground = (_coarser(layer[:rows, :cols], times) for layer in (seen, picture.mean(axis=0), ground_m))
    told = _coarser(known[:rows, :cols], times) > 0.999
    coarse = np.ones_like(heights)
    for fit in range(FITS):
        found = _fit(heights * coarse, light, told, ground, sun.shift(gsd_m * times))
        if found is None and fit == 0:
            return None
        coarse *= 1 if found is None else found
    factors = np.ones(metres.shape, np.float32)
    factors[:rows, :cols] = np.kron(coarse, np.ones((times, times)))
    return factors


def _fit(
    heights: np.ndarray, light: np.ndarray, told: np.ndarray, ground: np.ndarray, shift: tuple[float, float]
) -> np.ndarray | None:
    body = _bodies(heights)
    predicted = ndimage.median(heights, body, np.arange(int(body.max()) + 1))
    predicted[0] = 0
    if not (predicted >= LEAST_M).any():
        return None
    rays = _Rays.of(heights, ground, body, shift, told)
    evidence = rays.evidence(light)
    return None if evidence is None else _factors(rays, evidence, predicted)[body].astype(np.float32)


def _coarser(layer: np.ndarray, times: int) -> np.ndarray:
    rows, cols = layer.shape
    mean: np.ndarray = layer.reshape(rows // times, times, cols // times, times).mean(axis=(1, 3), dtype=np.float32)
    return mean


def _bodies(heights: np.ndarray) -> np.ndarray:
    """Numbers from 1 on; 0 is ground. Walls, where heights change fast, go to the nearest body."""
    high = heights > BODY_M
    patches = np.where(high, patches_between_jumps(np.where(high, heights, np.nan), STEP_M) + 1, 0)
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0
    kept = sizes >= BODY_CELLS
    if not kept.any():
        return np.zeros(heights.shape, np.int64)
    cores = np.where(kept[patches], np.cumsum(kept)[patches], 0)
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    return np.where(high, cores[tuple(nearest)], 0)


@dataclass(frozen=True)
class _Rays:
    """From low cells towards the sun: every body that one enters, and how high it would have to be to hide the sun."""

    cell: np.ndarray  # index of the low cell
    body: np.ndarray
    needed_m: np.ndarray
    low: np.ndarray  # [y, x] bool: the cells that they start from
    hidden: np.ndarray  # [y, x] bool: whether the sun is, by the predicted heights

    @staticmethod
    def of(
        heights: np.ndarray, ground: np.ndarray, body: np.ndarray, shift: tuple[float, float], told: np.ndarray
    ) -> _Rays:
        low = (heights < LOW_M) & told
        hidden = np.zeros(heights.shape, bool)
        nothing = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        most = _march(heights, ground, body, *shift, low, hidden, *nothing)
        cell, entered, needed = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.float32)
        count = _march(heights, ground, body, *shift, low, hidden, cell, entered, needed)
        return _Rays(cell[:count], entered[:count], needed[:count], low, hidden)

    def evidence(self, light: np.ndarray) -> np.ndarray | None:
        """By cell, how much likelier it looks as it does in shadow than in sunlight, as a logarithm. None where
        predicted shadows are hardly darker: under clouds, or with the sun elsewhere than it is told to be."""
        dark, lit = self.low & self.hidden, self.low & ~self.hidden
        if min(dark.sum(), lit.sum()) < LEAST_CELLS:
            return None
        edges = np.quantile(light[self.low], np.linspace(0, 1, SHADES + 1)[1:-1])
        shade = np.searchsorted(edges, light)
        many = [np.bincount(shade[part], minlength=SHADES) + 20.0 for part in (dark, lit)]
        ratio = np.log(many[0] / many[0].sum()) - np.log(many[1] / many[1].sum())
        evidence: np.ndarray = np.minimum.accumulate(ratio)[shade]  # what is lighter is in shadow less likely
        if min(evidence[dark].mean(), -evidence[lit].mean()) < LEAST_EVIDENCE:
            return None
        return evidence.ravel()


@njit(cache=True, nogil=True)
def _march(heights, ground, body, by_row, by_col, low, hidden, cell, entered, needed):  # type: ignore[no-untyped-def]
    """Fills what is long enough for it; returns how many bodies all rays enter, where it isn't: how many times."""
    rows, cols = heights.shape
    step_m = 1 / max(abs(by_row), abs(by_col))
    count = 0
    for r in range(rows):
        for c in range(cols):
            if not low[r, c]:
                continue
            first, last, k = count, 0, 1
            while True:
                up = k * step_m
                row, col = int(np.round(r - by_row * up)), int(np.round(c - by_col * up))
                if up > REACH_M or row < 0 or col < 0 or row >= rows or col >= cols:
                    break
                line = ground[r, c] - ground[row, col] + up  # above the ground there
                if heights[row, col] > heights[r, c] + line:
                    hidden[r, c] = True
                here = body[row, col]
                if here > 0 and here != last:
                    again = False
                    for before in range(first, min(count, len(cell))):
                        again |= entered[before] == here
                    if not again:
                        if count < len(cell):
                            cell[count], entered[count] = r * cols + c, here
                            needed[count] = max(heights[r, c], 0.0) + line - step_m / 2
                        count += 1
                last = here
                k += 1
    return count


def _factors(rays: _Rays, evidence: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """By body, the median of what its height may have to be multiplied by, if it is believed."""
    free, choices = predicted >= LEAST_M, len(FACTORS)
    prior = np.where(free[:, None], -0.5 * (np.log(FACTORS) / OFF) ** 2, 0.0)
    # From which choice on the body hides the sun of the ray's cell.
    least = np.searchsorted(FACTORS, rays.needed_m / np.maximum(predicted[rays.body], 1e-3))
    hides = predicted[rays.body] > rays.needed_m
    least = np.where(free[rays.body], least, np.where(hides, 0, choices))
    place = rays.body * np.int64(choices + 1) + least
    weight = CELL_WEIGHT * evidence[rays.cell]
    score, hiding = prior, _hiding(prior)
    for _ in range(ROUNDS):
        clear = np.log1p(-np.minimum(hiding.ravel()[place], 1 - 1e-6))
        clear_of_all = np.bincount(rays.cell, weights=clear, minlength=len(evidence))
        of_others = np.exp(clear_of_all[rays.cell] - clear)
        told = np.bincount(place, weights=weight * of_others, minlength=hiding.size).reshape(hiding.shape)
        score = prior + told[:, :-1].cumsum(axis=1)
        hiding = (1 - DAMPING) * hiding + DAMPING * _hiding(score)
    middle = FACTORS[(_chances(score).cumsum(axis=1) >= 0.5).argmax(axis=1)]
    return np.where(free & (np.abs(np.log(middle)) <= MOST), middle, 1.0)


def _chances(score: np.ndarray) -> np.ndarray:
    chances = np.exp(score - score.max(axis=1, keepdims=True))
    share: np.ndarray = chances / chances.sum(axis=1, keepdims=True)
    return share


def _hiding(score: np.ndarray) -> np.ndarray:
    """[body, choice]: how likely the body is at least as high as with that choice; 0 beyond the last."""
    above = _chances(score)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.pad(above, ((0, 0), (0, 1)))
