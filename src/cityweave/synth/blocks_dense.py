"""Dense blocks: courtyards behind a closed ring, offices, towers, slabs, halls."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from cityweave.synth.buildings import (
    FLATS,
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
from cityweave.synth.layout import Layout, at, inset, part
from cityweave.synth.planting import Quad, edge_length, parking, plant, scatter
from cityweave.synth.scene import Builder, Label, Material, Style


def ring(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """A closed perimeter of narrow houses round a courtyard, with wings or sheds inside."""
    b.label(lot, Label.PAVING)
    depth = rng.uniform(11.0, 13.5)
    court = inset(lot, depth)
    b.label(court, Label.GRASS if rng.random() < 0.6 else Label.PAVING)
    storeys, limit = int(rng.integers(4, 7)), int(max_height_m / 3.6)
    for k in range(4):
        n, p = (k + 1) % 4, (k + 3) % 4
        length, before = edge_length(lot, k), edge_length(lot, p)
        ahead, behind = lot[k] + (lot[n] - lot[k]) * depth / length, lot[k] + (lot[p] - lot[k]) * depth / before
        corner = np.array([lot[k], ahead, court[k], behind])
        _corner_house(b, layout, corner, rng, min(storeys + int(rng.integers(0, 2)), limit))
        side = np.array([ahead, lot[n] + (lot[k] - lot[n]) * depth / length, court[n], court[k]])
        count = max(1, round((length - 2 * depth) / rng.uniform(13.0, 21.0)))
        jitter = rng.uniform(-0.18, 0.18, count + 1)
        cuts = (np.arange(count + 1) + jitter) / count
        cuts[0], cuts[-1] = 0.0, 1.0
        for u0, u1 in pairwise(cuts):
            own = min(storeys + int(rng.choice([-1, 0, 0, 1])), limit)
            _ring_house(b, layout, part(side, float(u0), float(u1), 0.0, 1.0), rng, own)
    _inside_ring(b, layout, court, rng, storeys)


def _inside_ring(b: Builder, layout: Layout, court: Quad, rng: np.random.Generator, storeys: int) -> None:
    inner = inset(court, 3.0)
    wide, deep = edge_length(inner, 0), edge_length(inner, 1)
    if min(wide, deep) < 9.0:
        return
    draw = rng.random()
    if draw < 0.35 and wide > 30.0:  # a wing across the court
        u = rng.uniform(0.35, 0.65)
        wing = part(court, u - 5.0 / wide, u + 5.0 / wide, 0.0, rng.choice([0.55, 1.0]))[[1, 2, 3, 0]]
        pitched(b, layout, wing, (storeys - 1) * 3.2, 0.6, look(rng, Style.PLASTER, TILES), False, (1, 3))
        b.label(part(inner, u, min(u + 14.0 / wide, 1.0), 0.0, 1.0), Label.PAVING)
    elif draw < 0.7:
        u, v = rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.6)
        shed = part(inner, u, u + 0.35, v, v + 0.32)
        clear, roof = flat(b, layout, shed, rng.uniform(3.5, 5.0), look(rng, Style.BLANK, FLATS), 0.3)
        roof_clutter(b, rng, clear, roof)
    scatter(b, layout, rng, inner, int(rng.integers(5, 12)))


def _corner_house(b: Builder, layout: Layout, quad: Quad, rng: np.random.Generator, storeys: int) -> None:
    style = Style(int(rng.choice([Style.PLASTER, Style.PLASTER, Style.BRICK])))
    height, party = max(2, storeys) * 3.3 + 0.6, (1, 2)
    if rng.random() < 0.6:
        pitched(b, layout, quad, height, rng.uniform(0.5, 0.8), look(rng, style, TILES), True, party)
    else:
        clear, roof = flat(b, layout, quad, height, look(rng, style, FLATS), 0.8, party)
        roof_clutter(b, rng, clear, roof)


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
            b.fixture(
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
