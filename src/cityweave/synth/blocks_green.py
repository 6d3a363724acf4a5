"""Open blocks: houses in gardens, terraces, parks, playing fields, a church on its square."""

from __future__ import annotations

import numpy as np

from cityweave.synth.buildings import FLATS, TILES, Look, chimneys, church, flat, look, pitched
from cityweave.synth.layout import Layout, at, inset, part
from cityweave.synth.planting import Quad, car, edge_length, plant
from cityweave.synth.scene import Builder, Label, Material, Style


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
    w, d = min(rng.uniform(9.0, 12.5), width - 4.0), rng.uniform(8.5, 11.5)
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
        z = layout.height_at(c)
        b.box(c, along, edge_length(hedge, 1), 0.9, z - 0.8, z + 1.6, Material.HEDGE, (0.20, 0.30, 0.13))
    if rng.random() < 0.22:
        pool = part(plot, 0.3, 0.3 + 7.0 / width, 0.72, 0.72 + 3.6 / depth)
        b.label(inset(pool, -0.8), Label.PAVING)
        b.label(pool, Label.WATER)
    else:
        behind = min((front + d + 3) / depth, 0.92)  # a plot may end right behind its house
        for _ in range(int(rng.integers(2, 6))):
            plant(b, layout, rng, at(plot, rng.uniform(0.12, 0.88), rng.uniform(behind, 0.92)), True)


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
            if rng.random() < 0.45:
                plant(b, layout, rng, at(side, (n + 0.5) / count, rng.uniform(0.62, 0.92)), True)
            if rng.random() < 0.35:
                shed = part(side, (n + 0.1) / count, (n + 0.6) / count, 0.86, 0.95)
                flat(b, layout, shed, 2.4, look(rng, Style.BLANK, TILES), 0.0)


def lanes(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """Narrow houses wall to wall, none like its neighbour, with lean-tos and sheds in small yards behind."""
    b.label(lot, Label.PAVING)
    for row in range(2):
        side = part(lot, 0.0, 1.0, 0.0, 0.5) if row == 0 else part(lot, 0.0, 1.0, 0.5, 1.0)[[2, 3, 0, 1]]
        width, depth = edge_length(side, 0), edge_length(side, 1)
        front = rng.uniform(0.5, 2.5)
        usual, left = float(rng.choice([3.2, 5.8, 8.4])), 0.3
        while left + 4.2 < width:
            wide = min(rng.uniform(4.2, 8.5), width - 0.3 - left)
            if wide >= 3.6 and rng.random() < 0.95:
                plot = part(side, left / width, (left + wide) / width, front / depth, 0.985)
                _narrow_house(b, layout, plot, usual, rng)
            left += wide + 0.05


def _narrow_house(b: Builder, layout: Layout, plot: Quad, usual_m: float, rng: np.random.Generator) -> None:
    depth = edge_length(plot, 1)
    d = min(rng.uniform(7.0, 13.0), depth - 3.0)
    height = usual_m + float(rng.choice([0.0, 0.0, 2.6])) + rng.uniform(-0.4, 0.4)
    body, style = part(plot, 0.0, 1.0, 0.0, d / depth), Style.BRICK if rng.random() < 0.6 else Style.PLASTER
    if rng.random() < 0.6:
        flat(b, layout, body, height, look(rng, style, FLATS), 0.0)
    else:
        pitched(b, layout, body, height, rng.uniform(0.4, 0.8), look(rng, style, TILES))
    yard = d / depth + 0.002
    if rng.random() < 0.55:
        end = min(yard + rng.uniform(2.0, 6.0) / depth, 0.8)
        across = rng.uniform(0.45, 0.98)
        if end > yard + 1.5 / depth:
            flat(b, layout, part(plot, 0.02, across, yard, end), rng.uniform(2.4, 3.6), look(rng, style, FLATS), 0.0)
            yard = end + 0.002
    if rng.random() < 0.7 and yard < 0.9:
        b.label(part(plot, 0.0, 1.0, yard, 1.0), Label.GRASS if rng.random() < 0.5 else Label.GARDEN)
    if rng.random() < 0.45 and yard < 1 - 4.0 / depth:
        shed = part(plot, 0.05, rng.uniform(0.4, 0.95), 1 - 2.6 / depth, 0.99)
        flat(b, layout, shed, rng.uniform(2.1, 2.8), look(rng, Style.BLANK, FLATS), 0.0)
    if rng.random() < 0.3 and yard < 0.8:
        plant(b, layout, rng, at(plot, rng.uniform(0.3, 0.7), (yard + 0.9) / 2), True)


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
            part(np.array([(-8, -13), (8, -13), (8, 13), (-8, 13)]) + c, 0.05, 0.95, 0.05, 0.95),
            Label.COURT,
        )
    corners = np.array([layout.to_st(*c) for c in lot])
    low, high = corners.min(axis=0), corners.max(axis=0)
    for _ in range(int(rng.integers(4, 7))):
        group = at(lot, rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9))
        for _ in range(int(rng.integers(3, 8))):
            place = group + rng.normal(0.0, 5.5, 2)
            inside = np.array(layout.to_st(*place))
            if (inside > low).all() and (inside < high).all():
                plant(b, layout, rng, place)


def sport(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """A pitch inside a running track, a stand, courts."""
    b.label(lot, Label.GRASS)
    wide, deep = edge_length(lot, 0), edge_length(lot, 1)
    centre = at(lot, 0.5, 0.5)
    along = (lot[1] - lot[0]) / wide
    across = np.array([-along[1], along[0]])
    half_a, half_b = wide * 0.5 - 4.0, min(deep * 0.5 - 5.0, 30.0)

    def oval(grow: float) -> Quad:
        turn = np.linspace(0.0, 2 * np.pi, 41)[:-1]
        straight = max(half_a - half_b, 1.0)
        shift = np.where(np.cos(turn) >= 0, straight, -straight)
        a, c = shift + (half_b + grow) * np.cos(turn), (half_b + grow) * np.sin(turn)
        return centre + a[:, None] * along + c[:, None] * across  # type: ignore[no-any-return]

    b.label(oval(0.0), Label.COURT)
    for lane in (1.3, 2.6, 3.9):
        b.label(oval(-lane), Label.MARKING)
        b.label(oval(-lane - 0.22), Label.COURT)
    b.label(oval(-5.4), Label.GRASS)

    def rectangle(a0: float, a1: float, c0: float, c1: float) -> Quad:
        return np.array([centre + a * along + c * across for a, c in ((a0, c0), (a1, c0), (a1, c1), (a0, c1))])

    a, c = half_a - 12.0, half_b - 7.5
    frames = ((-a, a, -c, c), (-a, -a + 9, -9, 9), (a - 9, a, -9, 9))
    for a0, a1, c0, c1 in frames:
        b.label(rectangle(a0, a1, c0, c1), Label.MARKING)
        b.label(rectangle(a0 + 0.25, a1 - 0.25, c0 + 0.25, c1 - 0.25), Label.PITCH)
    b.label(rectangle(-0.13, 0.13, -c, c), Label.MARKING)
    if deep * 0.5 - half_b > 3.5:
        stand = rectangle(-22.0, 22.0, -half_b - 3.4, -half_b - 0.6)
        flat(b, layout, stand, 4.5, look(rng, Style.BLANK, FLATS), 0.0)
    for k in range(4):
        plant(b, layout, rng, inset(lot, 2.5)[k])


def square(b: Builder, layout: Layout, lot: Quad, rng: np.random.Generator, max_height_m: float) -> None:
    """A church on a paved square with rows of trees."""
    b.label(lot, Label.PAVING)
    wide, deep = edge_length(lot, 0), edge_length(lot, 1)
    half = 7.5
    nave = part(lot, 0.34, 0.34 + min(36.0 / wide, 0.5), 0.5 - half / deep, 0.5 + half / deep)
    church(b, layout, nave, rng, max_height_m)
    for row in (0.12, 0.88):
        b.label(part(lot, 0.06, 0.94, row - 0.05, row + 0.05), Label.GRASS)
        for u in np.arange(0.1, 0.92, 8.0 / wide):
            plant(b, layout, rng, at(lot, float(u), row))
    for u in (0.28, 0.72):
        plant(b, layout, rng, at(lot, 0.93, u))
