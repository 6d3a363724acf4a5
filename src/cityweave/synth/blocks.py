"""What fills a block: courtyards behind a closed ring, slabs, rows, houses, towers, halls, parks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cityweave.synth.buildings import (
    FLATS,
    FLOOR_M,
    GREEN_ROOF,
    TILES,
    Ground,
    Look,
    chimneys,
    flat,
    look,
    mansard,
    pitched,
    roof_clutter,
)
from cityweave.synth.layout import SIDEWALK_M, Layout, at, inset, part
from cityweave.synth.noise import CODE_BLOCK, generator, value_noise
from cityweave.synth.scene import Builder, Label, Material, Style

Quad = NDArray[np.float64]


def fill_block(b: Builder, layout: Layout, i: int, j: int, max_height_m: float) -> None:
    """Everything on block (i, j); all draws come from the block's own stream."""
    rng = generator(layout.seed, CODE_BLOCK, i, j)
    kerb = layout.block(i, j)
    b.label(kerb, Label.SIDEWALK)
    lot = inset(kerb, SIDEWALK_M)
    kind = block_kind(layout, i, j, rng)
    FILLERS[kind](b, layout, lot, rng, max_height_m)


def block_kind(layout: Layout, i: int, j: int, rng: np.random.Generator) -> str:
    """Dense where the slow noise is high; towers only there."""
    dense = value_noise(i / 3.0 + 0.37, j / 3.6 + 0.11, layout.seed + 31)
    draw = rng.random()
    if draw < 0.09:
        return "park"
    if draw < 0.15:
        return "hall"
    if dense > 0.62:
        return "tower" if draw < 0.36 else ("ring" if draw < 0.82 else "offices")
    if dense > 0.40:
        return "ring" if draw < 0.55 else ("slabs" if draw < 0.78 else "offices")
    return "slabs" if draw < 0.30 else ("rows" if draw < 0.58 else "houses")


def edge_length(q: Quad, k: int) -> float:
    return float(np.hypot(*(q[(k + 1) % 4] - q[k])))


def plant(b: Builder, layout: Layout, rng: np.random.Generator, p: Quad, small: bool = False) -> None:
    kind = 1 if rng.random() < 0.12 else 0
    radius = rng.uniform(1.2, 2.1) if small else rng.uniform(1.9, 3.9)
    height = radius * (rng.uniform(3.2, 4.2) if kind else rng.uniform(1.9, 2.6))
    z = float(layout.terrain(np.array([p[0]]), np.array([p[1]]))[0])
    b.tree(float(p[0]), float(p[1]), z, radius * (0.75 if kind else 1.0), height, kind, int(rng.integers(1 << 30)))


def scatter(b: Builder, layout: Layout, rng: np.random.Generator, quad: Quad, count: int, small: bool = False) -> None:
    for _ in range(count):
        plant(b, layout, rng, at(quad, rng.uniform(0.05, 0.95), rng.uniform(0.06, 0.94)), small)


def ring(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """A closed perimeter of narrow houses, corners mitred, round a courtyard."""
    b.label(lot, Label.PAVING)
    depth = rng.uniform(11.0, 13.5)
    court = inset(lot, depth)
    b.label(court, Label.GRASS if rng.random() < 0.6 else Label.PAVING)
    storeys = int(rng.integers(4, 7))
    for k in range(4):
        o0, o1, i0, i1 = lot[k], lot[(k + 1) % 4], court[k], court[(k + 1) % 4]
        length = float(np.hypot(*(o1 - o0)))
        cuts = _cuts(rng, length, depth + 6.0, 13.0, 21.0)
        for n in range(len(cuts) - 1):
            u0, u1 = cuts[n] / length, cuts[n + 1] / length
            # the ends of a side are mitred at the corner, cuts between are square to it on average
            quad = np.array(
                [
                    o0 + (o1 - o0) * u0,
                    o0 + (o1 - o0) * u1,
                    i0 + (i1 - i0) * _in(u1, n + 2 == len(cuts), length, depth),
                    i0 + (i1 - i0) * _in(u0, n == 0, length, depth),
                ]
            )
            _ring_house(b, layout, quad, rng, min(storeys + int(rng.integers(-1, 2)), int(max_height_m / 3.4)))
    inner = inset(court, 3.0)
    if min(edge_length(inner, 0), edge_length(inner, 1)) > 8.0:
        if rng.random() < 0.45:
            shed = part(inner, 0.3, 0.7, 0.32, 0.68)
            clear, roof = flat(b, layout, shed, rng.uniform(3.5, 5.0), look(rng, Style.BLANK, FLATS), 0.3)
            roof_clutter(b, rng, clear, roof)
        scatter(b, layout, rng, inner, int(rng.integers(3, 8)))


def _in(u: float, at_corner: bool, length: float, depth: float) -> float:
    """Where a cut at share u of the street side meets the court side, which is shorter by a depth at both ends."""
    if at_corner:
        return round(u)
    return float(np.clip((u * length - depth) / (length - 2 * depth), 0.02, 0.98))


def _cuts(rng: np.random.Generator, length: float, end: float, low: float, high: float) -> list[float]:
    """Positions along a side: end pieces of about `end`, between them pieces of low to high metres."""
    inner = length - 2 * end
    if inner < low:
        return [0.0, length / 2, length] if length > 2 * end - low / 2 else [0.0, length]
    count = max(1, round(inner / rng.uniform(low, high)))
    return [0.0] + [end + inner * n / count for n in range(count + 1)] + [length]


def _ring_house(b: Builder, layout: Layout, quad: Quad, rng: np.random.Generator, storeys: int) -> None:
    style = Style(int(rng.choice([Style.PLASTER, Style.PLASTER, Style.BRICK, Style.CONCRETE])))
    height = max(2, storeys) * 3.3 + 0.6
    draw = rng.random()
    party = (1, 3)
    if draw < 0.5:
        lk = look(rng, style, TILES)
        r0, r1 = pitched(b, layout, quad, height, rng.uniform(0.55, 0.85), lk, False, party)
        chimneys(b, rng, r0, r1, int(rng.integers(1, 3)))
    elif draw < 0.7:
        top, roof = mansard(b, layout, quad, height, look(rng, style, TILES), party)
        roof_clutter(b, rng, top, roof)
    else:
        clear, roof = flat(b, layout, quad, height, look(rng, style, FLATS), 0.8, party)
        roof_clutter(b, rng, clear, roof)


def slabs(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """Parallel modern blocks of flats on grass, with parking between."""
    b.label(lot, Label.GRASS)
    width, depth = edge_length(lot, 0), edge_length(lot, 1)
    count = max(2, int(width / 30.0))
    storeys = int(rng.integers(5, 10))
    lk = look(rng, Style.CONCRETE if rng.random() < 0.6 else Style.PLASTER, FLATS)
    for n in range(count):
        a = (n + 0.5) / count
        half = 6.2 / width
        b0, b1 = rng.uniform(0.04, 0.1), rng.uniform(0.9, 0.96)
        quad = part(lot, a - half, a + half, b0, b1)
        quad = quad[[1, 2, 3, 0]]
        height = min(storeys * 2.9 + 1.0, max_height_m)
        clear, roof = flat(b, layout, quad, height, Look(lk.style, lk.wall, lk.roof, lk.seed + n), 0.6)
        roof_clutter(b, rng, clear, roof)
        if n + 1 < count:
            mid = (n + 1.0) / count
            if rng.random() < 0.5:
                strip = part(lot, mid - 5.5 / width, mid + 5.5 / width, 0.08, 0.92)
                parking(b, layout, rng, strip[[1, 2, 3, 0]])
            else:
                b.label(part(lot, mid - 1.0 / width, mid + 1.0 / width, 0.0, 1.0), Label.PATH)
                scatter(b, layout, rng, part(lot, mid - 6.5 / width, mid + 6.5 / width, 0.05, 0.95), int(depth / 9))
    scatter(b, layout, rng, part(lot, 0.0, 1.0, 0.93, 1.0), 3, True)


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


CAR_PAINT = ((0.75, 0.75, 0.76), (0.16, 0.16, 0.18), (0.45, 0.46, 0.48), (0.85, 0.85, 0.84)) + (
    (0.55, 0.12, 0.10),
    (0.14, 0.22, 0.42),
    (0.60, 0.58, 0.52),
)


def car(b: Builder, layout: Layout, rng: np.random.Generator, c: Quad, along: Quad) -> None:
    z = float(layout.terrain(np.array([c[0]]), np.array([c[1]]))[0])
    paint = CAR_PAINT[int(rng.integers(len(CAR_PAINT)))]
    length = rng.uniform(3.9, 4.7)
    b.box(c, along, length, 1.8, z - 0.4, z + 0.85, Material.CAR, paint)
    b.box(c - along * 0.25, along, length * 0.5, 1.6, z + 0.5, z + 1.45, Material.CAR, (0.13, 0.15, 0.18))
    b.box(c - along * 0.25, along, length * 0.4, 1.4, z + 0.9, z + 1.5, Material.CAR, paint)


def offices(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """A U or an L of flat-roofed wings round a paved yard, with a lower link."""
    b.label(lot, Label.PAVING)
    style = Style.CURTAIN if rng.random() < 0.5 else Style.CONCRETE
    lk = look(rng, style, FLATS)
    height = min(rng.uniform(14.0, 30.0), max_height_m)
    wa, wb = 15.0 / edge_length(lot, 0), 15.0 / edge_length(lot, 1)
    wings = [part(lot, 0.02, 0.02 + wa, 0.04, 0.96), part(lot, 0.98 - wa, 0.98, 0.04, 0.96)]
    for n, wing in enumerate(wings):
        h = min(height * rng.uniform(0.75, 1.25), max_height_m)
        clear, roof = flat(b, layout, wing[[1, 2, 3, 0]], h, Look(lk.style, lk.wall, lk.roof, lk.seed + n), 0.9)
        roof_clutter(b, rng, clear, roof)
    link = part(lot, 0.02 + wa, 0.98 - wa, 0.96 - wb, 0.96)
    green = rng.random() < 0.4
    roof_look = Look(lk.style, lk.wall, GREEN_ROOF if green else lk.roof, lk.seed + 7)
    clear, roof = flat(b, layout, link, height * 0.55, roof_look, 0.6, (1, 3))
    roof_clutter(b, rng, clear, roof)
    yard = part(lot, 0.05 + wa, 0.95 - wa, 0.06, 0.9 - wb)
    b.label(part(yard, 0.1, 0.9, 0.1, 0.9), Label.GRASS)
    scatter(b, layout, rng, yard, int(rng.integers(5, 11)))


def houses(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """Two rows of detached houses with gardens, drives and hedges."""
    b.label(lot, Label.GARDEN)
    count = max(2, int(edge_length(lot, 0) / rng.uniform(15.5, 19.0)))
    for row in range(2):
        for n in range(count):
            a0, a1 = n / count, (n + 1) / count
            plot = part(lot, a0, a1, 0.0, 0.5) if row == 0 else part(lot, a0, a1, 0.5, 1.0)[[2, 3, 0, 1]]
            _house(b, layout, plot, rng)


def _house(b: Builder, layout: Layout, plot: Quad, rng: np.random.Generator) -> None:
    """A plot's edge 0 is the street."""
    width, depth = edge_length(plot, 0), edge_length(plot, 1)
    tone = rng.random()
    if tone < 0.5:
        b.label(part(plot, 0.03, 0.97, 0.4, 0.98), Label.GRASS)
    w, d = min(rng.uniform(8.5, 11.0), width - 4.5), rng.uniform(8.0, 10.5)
    front = rng.uniform(4.0, 6.5)
    left = rng.uniform(1.2, width - w - 3.0) if width - w > 4.2 else 1.0
    quad = part(plot, left / width, (left + w) / width, front / depth, (front + d) / depth)
    style = Style.HOUSE
    height = rng.choice([3.4, 5.8, 6.2])
    if rng.random() < 0.4:  # the gable looks to the street
        quad = quad[[1, 2, 3, 0]]
    r0, r1 = pitched(
        b, layout, quad, float(height), rng.uniform(0.55, 0.95), look(rng, style, TILES), rng.random() < 0.4
    )
    chimneys(b, rng, r0, r1, 1)
    drive = (left + w + 0.4) / width
    if drive + 2.6 / width < 0.99:
        strip = part(plot, drive, drive + 2.6 / width, 0.0, (front + 5.0) / depth)
        b.label(strip, Label.PAVING)
        if rng.random() < 0.6:
            car(b, layout, rng, at(plot, drive + 1.3 / width, 3.4 / depth), (plot[3] - plot[0]) / depth)
        if rng.random() < 0.5:
            garage = part(plot, drive, drive + 3.0 / width, (front + 2.5) / depth, (front + 8.5) / depth)
            flat(b, layout, garage, 2.7, look(rng, Style.BLANK, FLATS), 0.0)
    if rng.random() < 0.6:
        hedge = part(plot, 0.02, 0.02 + 0.8 / width, (front + d) / depth, 0.98)
        along = (plot[3] - plot[0]) / depth
        c = hedge.mean(axis=0)
        z = float(layout.terrain(np.array([c[0]]), np.array([c[1]]))[0])
        b.box(c, along, edge_length(hedge, 1), 0.9, z - 0.8, z + 1.6, Material.HEDGE, (0.20, 0.30, 0.13))
    if rng.random() < 0.22:
        pool = part(plot, 0.3, 0.3 + 7.0 / width, 0.72, 0.72 + 3.6 / depth)
        b.label(inset(pool, -0.8), Label.PAVING)
        b.label(pool, Label.WATER)
    else:
        for _ in range(int(rng.integers(1, 4))):
            plant(b, layout, rng, at(plot, rng.uniform(0.12, 0.88), rng.uniform((front + d + 3) / depth, 0.92)), True)


def rows(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """Terraces along both long streets, gardens between."""
    b.label(lot, Label.GARDEN)
    for row in range(2):
        side = part(lot, 0.0, 1.0, 0.0, 0.5) if row == 0 else part(lot, 0.0, 1.0, 0.5, 1.0)[[2, 3, 0, 1]]
        width, depth = edge_length(side, 0), edge_length(side, 1)
        count = max(3, int(width / 6.6))
        lk = look(rng, Style.BRICK if rng.random() < 0.6 else Style.PLASTER, TILES)
        slope, height = rng.uniform(0.6, 0.85), rng.choice([5.9, 8.8])
        b0, b1 = 2.5 / depth, 12.0 / depth
        per = int(rng.integers(3, 6))
        for n in range(0, count, per):
            end = min(n + per, count)
            quad = part(side, n / count + 0.002, end / count - 0.002, b0, b1)
            own = Look(lk.style, lk.wall, lk.roof, lk.seed + n)
            r0, r1 = pitched(b, layout, quad, float(height) + rng.uniform(-0.3, 0.3), slope, own)
            chimneys(b, rng, r0, r1, end - n)
        for n in range(count):
            if rng.random() < 0.5:
                b.label(part(side, n / count, (n + 1) / count, 13.5 / depth, 0.97), Label.GRASS)
            if rng.random() < 0.45:
                b.label(part(side, n / count, (n + 1) / count, b1, 15.0 / depth), Label.PAVING)
            if rng.random() < 0.3:
                plant(b, layout, rng, at(side, (n + 0.5) / count, rng.uniform(0.68, 0.92)), True)


def tower(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """One or two towers on a podium in a plaza."""
    b.label(lot, Label.PAVING)
    podium = part(lot, 0.1, 0.9, 0.1, 0.9)
    lk = look(rng, Style.CURTAIN if rng.random() < 0.65 else Style.CONCRETE, FLATS)
    low = rng.uniform(7.0, 14.0)
    ground = Ground.under(layout, podium)
    clear, roof = flat(
        b, layout, podium, low, Look(Style.CONCRETE, lk.wall, pick_podium(rng), lk.seed), 0.9, (), ground
    )
    roof_clutter(b, rng, part(clear, 0.0, 0.22, 0.0, 1.0), roof)
    width, depth = edge_length(podium, 0), edge_length(podium, 1)
    count = 2 if width > 62.0 and rng.random() < 0.6 else 1
    for n in range(count):
        w, d = rng.uniform(20.0, 27.0), min(rng.uniform(20.0, 30.0), depth - 10.0)
        a = (n + 0.5) / count + (0.06 if count == 1 else 0.0)
        quad = part(podium, a - w / 2 / width, a + w / 2 / width, 0.5 - d / 2 / depth, 0.5 + d / 2 / depth)
        share = rng.beta(1.3, 2.2)
        height = min(34.0 + share * 170.0, max_height_m)
        own = Look(lk.style, lk.wall, lk.roof, lk.seed + n)
        base = Ground(roof - 1.0, ground.level)
        top, z = flat(b, layout, quad, height * 0.8, own, 1.0, (), base)
        crown = inset(top, rng.uniform(1.5, 3.5))
        top, z = flat(b, layout, crown, height * 0.2, own, 1.0, (), Ground(z - 0.5, z))
        roof_clutter(b, rng, top, z)
    for k in range(4):
        for u in np.arange(0.1, 0.95, 9.0 / edge_length(lot, k)):
            if rng.random() < 0.6:
                plant(b, layout, rng, inset(lot, 2.5)[k] * (1 - u) + inset(lot, 2.5)[(k + 1) % 4] * u, True)


def pick_podium(rng: np.random.Generator) -> tuple[float, float, float]:
    return GREEN_ROOF if rng.random() < 0.4 else FLATS[int(rng.integers(len(FLATS)))]


def hall(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """A big low hall with rooflights, a car park beside it."""
    b.label(lot, Label.PARKING)
    body = part(lot, 0.03, 0.6, 0.05, 0.95)
    lk = Look(Style.BLANK, (0.66, 0.68, 0.70), (0.70, 0.71, 0.72), int(rng.integers(1 << 30)))
    metal = rng.random() < 0.5
    material = Material.ROOF_METAL if metal else Material.ROOF_FLAT
    clear, roof = flat(b, layout, body, min(rng.uniform(8.0, 12.0), max_height_m), lk, 0.5, material=material)
    length = edge_length(clear, 0)
    for n in range(int(length / 8)):
        for m in range(3):
            c = at(clear, (n + 0.8) / (int(length / 8) + 0.6), (m + 0.6) / 3.2)
            along = (clear[1] - clear[0]) / length
            b.box(
                c, along, 1.6, edge_length(clear, 1) * 0.18, roof - 0.2, roof + 0.6, Material.GLASS, (0.55, 0.62, 0.66)
            )
    roof_clutter(b, rng, clear, roof)
    lots = part(lot, 0.63, 0.98, 0.04, 0.96)
    width = edge_length(lots, 0)
    for n in range(max(1, int(width / 16.0))):
        count = max(1, int(width / 16.0))
        strip = part(lots, n / count, (n + 0.97) / count, 0.0, 1.0)
        parking(b, layout, rng, strip[[1, 2, 3, 0]])
        for u in (0.2, 0.5, 0.8):
            plant(b, layout, rng, at(lots, (n + 0.985) / count, u), True)


def park(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """Grass, crossing paths, a pond, groups of trees, a playing court."""
    b.label(lot, Label.GRASS)
    w = 1.6
    for p, q in ((0, 2), (1, 3)):
        along = (lot[q] - lot[p]) / np.linalg.norm(lot[q] - lot[p])
        across = np.array([-along[1], along[0]]) * w
        b.label(np.array([lot[p] - across, lot[q] - across, lot[q] + across, lot[p] + across]), Label.PATH)
    centre = lot.mean(axis=0)
    turn = np.linspace(0.0, 2 * np.pi, 25)[:-1]
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    b.label(centre + circle * 9.5, Label.PATH)
    b.label(centre + circle * 7.5, Label.PAVING if rng.random() < 0.4 else Label.GRASS)
    if rng.random() < 0.6:
        c = at(lot, rng.uniform(0.2, 0.3), rng.uniform(0.45, 0.55))
        b.label(
            part(np.array([c + [-9, -15], c + [9, -15], c + [9, 15], c + [-9, 15]]) * 1.0, 0.05, 0.95, 0.05, 0.95),
            Label.COURT,
        )
    for _ in range(int(rng.integers(4, 7))):
        group = at(lot, rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9))
        for _ in range(int(rng.integers(3, 8))):
            p = group + rng.normal(0.0, 5.5, 2)
            inside = layout.to_st(*p)
            corners = [layout.to_st(*c) for c in lot]
            if min(c[0] for c in corners) < inside[0] < max(c[0] for c in corners) and min(
                c[1] for c in corners
            ) < inside[1] < max(c[1] for c in corners):
                plant(b, layout, rng, p)


FILLERS: dict[str, Callable[[Builder, Layout, Quad, np.random.Generator, float], None]] = {
    "ring": ring,
    "slabs": slabs,
    "offices": offices,
    "houses": houses,
    "rows": rows,
    "tower": tower,
    "hall": hall,
    "park": park,
}
