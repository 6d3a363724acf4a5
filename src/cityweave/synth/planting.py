"""Trees, cars and car parks, for blocks and streets alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cityweave.synth.layout import Layout, at, part
from cityweave.synth.scene import Builder, Label, Material

Quad = NDArray[np.float64]


class Ground(Protocol):
    def height_at(self, p: NDArray[np.float64]) -> float: ...


def edge_length(q: Quad, k: int) -> float:
    return float(np.hypot(*(q[(k + 1) % 4] - q[k])))


def plant(b: Builder, layout: Ground, rng: np.random.Generator, p: Quad, small: bool = False) -> None:
    kind = 1 if rng.random() < 0.12 else 0
    radius = rng.uniform(1.5, 2.6) if small else rng.uniform(2.2, 4.4)
    height = radius * (rng.uniform(3.2, 4.2) if kind else rng.uniform(1.9, 2.6))
    z = layout.height_at(p)
    b.tree(float(p[0]), float(p[1]), z, radius * (0.75 if kind else 1.0), height, kind, int(rng.integers(1 << 30)))


def scatter(b: Builder, layout: Layout, rng: np.random.Generator, quad: Quad, count: int, small: bool = False) -> None:
    for _ in range(count):
        plant(b, layout, rng, at(quad, rng.uniform(0.05, 0.95), rng.uniform(0.06, 0.94)), small)


def parking(b: Builder, layout: Layout, rng: np.random.Generator, quad: Quad) -> None:
    """Bays on both long sides of a strip whose edge 0 is long, with painted lines and some cars."""
    b.label(quad, Label.PARKING)
    length, width = edge_length(quad, 0), edge_length(quad, 1)
    bays = int(length / 2.7)
    bay = 4.8 / width
    for n in range(bays + 1):
        a = n / bays
        d = 0.11 / length
        for b0, b1 in ((0.0, bay), (1.0 - bay, 1.0)):
            b.label(part(quad, max(a - d, 0), min(a + d, 1), b0, b1), Label.MARKING)
            if n < bays and rng.random() < 0.55:
                c = at(quad, a + 0.5 / bays, (b0 + b1) / 2)
                car(b, layout, rng, c, (quad[3] - quad[0]) / width)


CAR_PAINT = (
    (0.75, 0.75, 0.76),
    (0.16, 0.16, 0.18),
    (0.45, 0.46, 0.48),
    (0.85, 0.85, 0.84),
    (0.55, 0.12, 0.10),
    (0.14, 0.22, 0.42),
    (0.60, 0.58, 0.52),
)


def car(b: Builder, layout: Layout, rng: np.random.Generator, c: Quad, along: Quad) -> None:
    z = layout.height_at(c)
    paint = CAR_PAINT[int(rng.integers(len(CAR_PAINT)))]
    length = rng.uniform(3.9, 4.7)
    b.box(c, along, length, 1.8, z - 0.4, z + 0.85, Material.CAR, paint)
    b.box(c - along * 0.25, along, length * 0.5, 1.6, z + 0.5, z + 1.45, Material.CAR, (0.13, 0.15, 0.18))
    b.box(c - along * 0.25, along, length * 0.4, 1.4, z + 0.9, z + 1.5, Material.CAR, paint)
