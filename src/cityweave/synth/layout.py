"""Where streets, blocks and the river run, for the whole plane: the box only cuts a piece out of it.

Streets are lines of constant s or t in a turned and gently bent frame. Block (i, j) lies between the lines i and
i + 1 of s and the lines j and j + 1 of t. Every drawn number belongs to a line or a block, never to a box.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.synth.noise import CODE_LAYOUT, generator, hash2, value_noise
from cityweave.synth.styles import STYLES, CityStyle

PITCH_S_M, PITCH_T_M = 98.0, 80.0
RIVER_PERIOD = 9  # one column of blocks in so many is the river's
RIVER_HALF_M = 19.0
BANK_M = 4.0  # width of the slope from the quay to the water
SIDEWALK_M = 3.2


@njit(cache=True, nogil=True)
def to_frame(x, y, bend):  # type: ignore[no-untyped-def]
    """(x, y) of the CRS to the bent street frame (s, t)."""
    c, n = bend[0], bend[1]
    p, q = c * x + n * y, -n * x + c * y
    s = p + bend[2] * np.sin(q * bend[4] + bend[6]) + 0.4 * bend[2] * np.sin(p * bend[5] + bend[7])
    t = q + bend[3] * np.sin(p * bend[4] + bend[7]) + 0.4 * bend[3] * np.sin(q * bend[5] + bend[6])
    return s, t


@njit(cache=True, nogil=True)
def from_frame(s, t, bend):  # type: ignore[no-untyped-def]
    c, n = bend[0], bend[1]
    p, q = s, t
    for _ in range(12):  # the bend is a contraction: its slope is below 0.15
        ps = s - bend[2] * np.sin(q * bend[4] + bend[6]) - 0.4 * bend[2] * np.sin(p * bend[5] + bend[7])
        qs = t - bend[3] * np.sin(p * bend[4] + bend[7]) - 0.4 * bend[3] * np.sin(q * bend[5] + bend[6])
        p, q = ps, qs
    return c * p - n * q, n * p + c * q


@njit(cache=True, nogil=True)
def _reach(x, y, bend):  # type: ignore[no-untyped-def]
    """Least and largest s of a box's corners."""
    low, high = 1e18, -1e18
    for a in (x.min(), x.max()):
        for b in (y.min(), y.max()):
            s, _ = to_frame(a, b, bend)
            low, high = min(low, s), max(high, s)
    return low, high


@njit(cache=True, nogil=True)
def _relief(x, y, bend, river_s, ground_m, relief_m, seed, out):  # type: ignore[no-untyped-def]
    for k in range(x.size):
        h = (value_noise(x[k] / 520.0, y[k] / 520.0, seed + 1) - 0.5) * 1.6
        h += (value_noise(x[k] / 210.0, y[k] / 210.0, seed + 2) - 0.5) * 0.5
        h += (value_noise(x[k] / 90.0, y[k] / 90.0, seed + 3) - 0.5) * 0.12
        s, _ = to_frame(x[k], y[k], bend)
        distance = 1e9
        for r in river_s:
            distance = min(distance, abs(s - r))
        flat = min(max((distance - RIVER_HALF_M - 28.0) / 150.0, 0.0), 1.0)
        flat = flat * flat * (3.0 - 2.0 * flat)
        bank = min(max((distance - RIVER_HALF_M) / BANK_M, 0.0), 1.0)
        out[k] = ground_m + relief_m * (h + 0.5) * flat - 3.5 * (1.0 - bank)


@dataclass(frozen=True)
class Layout:
    seed: int
    ground_m: float
    relief_m: float
    style: str = "mixed"

    @property
    def look(self) -> CityStyle:
        return STYLES[self.style]

    @property
    def bend(self) -> NDArray[np.float64]:
        return _bend(self.seed, self.look.bend)

    @property
    def pitch_m(self) -> tuple[float, float]:
        """Of the streets, across and along."""
        return (PITCH_S_M * self.look.pitch[0], PITCH_T_M * self.look.pitch[1])

    def to_xy(self, s: float, t: float) -> NDArray[np.float64]:
        return np.array(from_frame(float(s), float(t), self.bend))

    def to_st(self, x: float, y: float) -> tuple[float, float]:
        return to_frame(float(x), float(y), self.bend)  # type: ignore[no-any-return]

    def line_s(self, i: int) -> float:
        return self.pitch_m[0] * (i + 0.24 * (hash2(i, 0, self.seed + 11) - 0.5))

    def line_t(self, j: int) -> float:
        return self.pitch_m[1] * (j + 0.24 * (hash2(j, 1, self.seed + 12) - 0.5))

    def width_s(self, i: int) -> float:
        """Kerb to kerb: every fourth street is an avenue."""
        return 19.0 if (i + self.seed) % 4 == 0 else 9.0 + 3.5 * hash2(i, 2, self.seed + 13)

    def width_t(self, j: int) -> float:
        return 17.0 if (j + self.seed) % 5 == 0 else 9.0 + 3.5 * hash2(j, 3, self.seed + 14)

    def is_river(self, i: int) -> bool:
        return (i - _river_column(self.seed)) % RIVER_PERIOD == 0

    def river_line(self, i: int) -> float:
        return 0.5 * (self.line_s(i) + self.line_s(i + 1))

    def has_bridge(self, j: int) -> bool:
        return (j + self.seed) % 2 == 0

    def terrain(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height of the ground (of the water where there is water) at points of the CRS."""
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        out = np.empty(x.size)
        flat_x, flat_y = np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel()
        if flat_x.size:
            s0, s1 = _reach(flat_x, flat_y, self.bend)
            pitch_m = self.pitch_m[0]
            rivers = _river_lines(self, int(s0 // pitch_m) - 4, int(s1 // pitch_m) + 4)
            _relief(flat_x, flat_y, self.bend, rivers, self.ground_m, self.relief_m, self.seed, out)
        return out.reshape(x.shape)

    def height_at(self, p: NDArray[np.float64]) -> float:
        return float(self.terrain(p[:1], p[1:2])[0])

    def block(self, i: int, j: int) -> NDArray[np.float64]:
        """Kerb line of block (i, j): its four corners, counter-clockwise from the lower left one, in the CRS."""
        s0, s1 = self.line_s(i) + self.width_s(i) / 2, self.line_s(i + 1) - self.width_s(i + 1) / 2
        t0, t1 = self.line_t(j) + self.width_t(j) / 2, self.line_t(j + 1) - self.width_t(j + 1) / 2
        return np.array([self.to_xy(s, t) for s, t in ((s0, t0), (s1, t0), (s1, t1), (s0, t1))])

    def blocks_in(self, xmin: float, ymin: float, xmax: float, ymax: float) -> list[tuple[int, int]]:
        corners = [self.to_st(x, y) for x in (xmin, xmax) for y in (ymin, ymax)]
        pitch_s, pitch_t = self.pitch_m
        i0 = int(min(c[0] for c in corners) // pitch_s) - 2
        i1 = int(max(c[0] for c in corners) // pitch_s) + 2
        j0 = int(min(c[1] for c in corners) // pitch_t) - 2
        j1 = int(max(c[1] for c in corners) // pitch_t) + 2
        return [(i, j) for j in range(j0, j1 + 1) for i in range(i0, i1 + 1)]


@lru_cache(maxsize=256)
def _river_lines(layout: Layout, first: int, last: int) -> NDArray[np.float64]:
    """Middle lines of the rivers among columns first to last; a line far away where there is none."""
    return np.array([layout.river_line(i) for i in range(first, last) if layout.is_river(i)] + [-1e12])


@lru_cache(maxsize=8)
def _river_column(seed: int) -> int:
    return int(generator(seed, CODE_LAYOUT, 1).integers(RIVER_PERIOD))


@lru_cache(maxsize=8)
def _bend(seed: int, share: float) -> NDArray[np.float64]:
    """cos, sin of the turn; two amplitudes; two wave numbers; two phases."""
    rng = generator(seed, CODE_LAYOUT, 0)
    angle = np.radians(rng.uniform(9.0, 24.0)) * rng.choice([-1.0, 1.0])
    amplitudes, waves = rng.uniform(9.0, 15.0, 2) * share, 2 * np.pi / rng.uniform([750.0, 380.0], [950.0, 520.0])
    return np.concatenate([[np.cos(angle), np.sin(angle)], amplitudes, waves, rng.uniform(0.0, 2 * np.pi, 2)])


def inset(polygon: NDArray[np.float64], distance: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """A convex counter-clockwise polygon with its edges moved inwards, by one distance or one per edge."""
    following = np.roll(polygon, -1, axis=0)
    along = following - polygon
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    inwards = np.stack([-along[:, 1], along[:, 0]], axis=1)
    start = polygon + inwards * np.broadcast_to(distance, len(polygon))[:, None]
    before, ahead = np.roll(start, 1, axis=0), np.roll(along, 1, axis=0)
    cross = ahead[:, 0] * along[:, 1] - ahead[:, 1] * along[:, 0]
    delta = start - before
    reach = (delta[:, 0] * along[:, 1] - delta[:, 1] * along[:, 0]) / cross
    return before + ahead * reach[:, None]  # type: ignore[no-any-return]


def at(quad: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """Point (a, b) in [0, 1]² of a quadrilateral."""
    low, high = quad[0] + a * (quad[1] - quad[0]), quad[3] + a * (quad[2] - quad[3])
    return low + b * (high - low)  # type: ignore[no-any-return]


def part(quad: NDArray[np.float64], a0: float, a1: float, b0: float, b1: float) -> NDArray[np.float64]:
    return np.array([at(quad, a0, b0), at(quad, a1, b0), at(quad, a1, b1), at(quad, a0, b1)])
