"""Lane markings, crossings, parked cars, street trees, quays and bridges: everything between the blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cityweave.synth.layout import RIVER_HALF_M, SIDEWALK_M, Layout
from cityweave.synth.noise import CODE_STREET, generator
from cityweave.synth.planting import car, plant
from cityweave.synth.scene import Builder, Label, Material


def strip(
    layout: Layout, along_s: bool, line: float, from_m: float, to_m: float, left: float, right: float
) -> NDArray[np.float64]:
    """A piece of a street: along t on a line of s (or the other way round), between two offsets from its middle."""
    points = ((line + left, from_m), (line + right, from_m), (line + right, to_m), (line + left, to_m))
    if not along_s:
        return np.array([layout.to_xy(s, t) for s, t in points])
    return np.array([layout.to_xy(t, s) for s, t in points])[::-1]


def street(b: Builder, layout: Layout, along_s: bool, i: int, j: int) -> None:
    """The piece of a street beside block (i, j): of the line i of s, or of the line j of t if `along_s`."""
    rng = generator(layout.seed, CODE_STREET, i, j, int(along_s))
    if along_s:
        line, width = layout.line_t(j), layout.width_t(j)
        start, end = layout.line_s(i) + layout.width_s(i) / 2, layout.line_s(i + 1) - layout.width_s(i + 1) / 2
        if layout.is_river(i):
            if layout.has_bridge(j):
                bridge(b, layout, i, j)
            return
    else:
        line, width = layout.line_s(i), layout.width_s(i)
        start, end = layout.line_t(j) + layout.width_t(j) / 2, layout.line_t(j + 1) - layout.width_t(j + 1) / 2
    avenue = width > 15.0
    for d in np.arange(start + 6.0, end - 9.0, 7.0):
        b.label(strip(layout, along_s, line, d, d + 3.2, -0.12, 0.12), Label.MARKING)
        if avenue:
            for side in (-1.0, 1.0):
                b.label(strip(layout, along_s, line, d, d + 3.2, side * 3.4 - 0.12, side * 3.4 + 0.12), Label.MARKING)
    for d in (start + 0.6, end - 3.6):  # crossings
        for x in np.arange(-width / 2 + 0.6, width / 2 - 0.9, 1.1):
            b.label(strip(layout, along_s, line, d, d + 3.0, x, x + 0.55), Label.MARKING)
    kerb = width / 2 - 1.15
    for side in (-1.0, 1.0):
        share = rng.uniform(0.15, 0.55)
        d = start + 9.0
        while d < end - 10.0:
            if rng.random() < share:
                _car_at(b, layout, rng, along_s, line, side * kerb, d)
            d += rng.uniform(5.8, 6.6)
        if rng.random() < 0.75:  # traffic
            _car_at(b, layout, rng, along_s, line, side * 1.9, rng.uniform(start + 8.0, end - 8.0))
        if avenue or rng.random() < 0.5:
            for d in np.arange(start + 7.0, end - 6.0, rng.uniform(9.5, 14.0)):
                if rng.random() < 0.8:
                    x = side * (width / 2 + 0.75)
                    p = layout.to_xy(d, line + x) if along_s else layout.to_xy(line + x, d)
                    plant(b, layout, rng, p, not avenue)


def _car_at(
    b: Builder, layout: Layout, rng: np.random.Generator, along_s: bool, line: float, offset: float, d: float
) -> None:
    def where(q: float) -> NDArray[np.float64]:
        return layout.to_xy(q, line + offset) if along_s else layout.to_xy(line + offset, q)

    direction = where(d + 1.0) - where(d)
    car(b, layout, rng, where(d), direction / np.linalg.norm(direction) * rng.choice([-1.0, 1.0]))


def river(b: Builder, layout: Layout, i: int, j: int) -> None:
    """The banks and the water of the river's column beside block (i, j), with the crossing street's ground."""
    rng = generator(layout.seed, CODE_STREET, i, j, 2)
    s0, s1 = layout.line_s(i) + layout.width_s(i) / 2, layout.line_s(i + 1) - layout.width_s(i + 1) / 2
    t0, t1 = layout.line_t(j), layout.line_t(j + 1)
    middle = layout.river_line(i)
    quay = RIVER_HALF_M + 3.0
    layers = [(s0, s1, Label.SIDEWALK), (s0 + SIDEWALK_M, s1 - SIDEWALK_M, Label.GRASS)]
    for side in (-1.0, 1.0):
        x = middle + side * (RIVER_HALF_M + 7.0)
        layers += [
            (x - 1.3, x + 1.3, Label.PATH),
            (middle + side * quay - 3.0, middle + side * quay + 3.0, Label.PAVING),
        ]
    layers.append((middle - RIVER_HALF_M - 0.4, middle + RIVER_HALF_M + 0.4, Label.WATER))
    for left, right, label in layers:
        for a, c in pairwise(np.linspace(t0, t1, 9)):
            # over the ends, the water most: what is straight in the street frame is not quite so on the ground
            over = 2.5 if label == Label.WATER else 1.0
            b.label(strip(layout, False, 0.0, a - over, c + over, left, right), label)
    gap = layout.width_t(j) / 2 + 5.0
    for side, edge in ((-1.0, s0), (1.0, s1)):
        room = abs(middle + side * RIVER_HALF_M - edge)
        for t in np.arange(t0 + gap, t1 - layout.width_t(j + 1) / 2 - 5.0, 8.0):
            if rng.random() < 0.6 and room > 14.0:
                x = middle + side * (RIVER_HALF_M + 10.5 + rng.uniform(0.0, max(room - 16.0, 0.1)))
                plant(b, layout, rng, layout.to_xy(x, t + rng.uniform(-1.5, 1.5)))


def bridge(b: Builder, layout: Layout, i: int, j: int) -> None:
    """A flat deck over the river where street j crosses column i, and its ramps painted on the banks."""
    middle, line, half = layout.river_line(i), layout.line_t(j), layout.width_t(j) / 2
    s0, s1 = layout.line_s(i) + layout.width_s(i) / 2, layout.line_s(i + 1) - layout.width_s(i + 1) / 2
    for bank0, bank1 in ((s0 - 1.0, middle - RIVER_HALF_M - 1.0), (middle + RIVER_HALF_M + 1.0, s1 + 1.0)):
        b.label(strip(layout, True, line, bank0, bank1, -half - 3.0, half + 3.0), Label.SIDEWALK)
        b.label(strip(layout, True, line, bank0, bank1, -half, half), Label.ASPHALT)
    a, c = layout.to_xy(middle - RIVER_HALF_M - 7.0, line), layout.to_xy(middle + RIVER_HALF_M + 7.0, line)
    along = (c - a) / np.linalg.norm(c - a)
    across = np.array([-along[1], along[0]])
    length, width = float(np.linalg.norm(c - a)), 2 * half + 5.0
    top = layout.ground_m + 0.25
    b.new_object()
    b.box((a + c) / 2, along, length, width, top - 1.3, top, Material.DECK, (0.5, 0.5, 0.5), int(round(width)))
    for side in (-1.0, 1.0):
        rail = (a + c) / 2 + across * side * (width / 2 - 0.2)
        b.box(rail, along, length, 0.4, top - 0.3, top + 1.0, Material.EQUIPMENT, (0.66, 0.63, 0.58))
