"""Closed building bodies over convex footprints: flat with parapet, gabled, hipped, mansard, and what stands on roofs.

Coordinates are those of the city's CRS; footprints run counter-clockwise. A body reaches below the lowest ground
under it, so it stands into the terrain and stays closed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cityweave.synth.layout import Layout, at, inset
from cityweave.synth.scene import Builder, Material, Style

RGB = tuple[float, float, float]

PLASTER: tuple[RGB, ...] = (
    (0.80, 0.74, 0.62), (0.76, 0.67, 0.53), (0.70, 0.57, 0.45), (0.84, 0.82, 0.77),
    (0.67, 0.63, 0.58), (0.74, 0.56, 0.43), (0.78, 0.71, 0.66), (0.60, 0.55, 0.47),
)  # fmt: skip
BRICKS: tuple[RGB, ...] = ((0.55, 0.31, 0.24), (0.60, 0.39, 0.29), (0.47, 0.29, 0.24), (0.64, 0.47, 0.36))
CONCRETE: tuple[RGB, ...] = ((0.66, 0.65, 0.62), (0.58, 0.57, 0.55), (0.73, 0.71, 0.66), (0.62, 0.60, 0.62))
CURTAIN: tuple[RGB, ...] = ((0.30, 0.38, 0.46), (0.26, 0.35, 0.37), (0.40, 0.45, 0.50), (0.33, 0.33, 0.38))
TILES: tuple[RGB, ...] = (
    (0.60, 0.35, 0.26), (0.54, 0.32, 0.25), (0.64, 0.42, 0.32), (0.48, 0.34, 0.28),
    (0.34, 0.35, 0.38), (0.42, 0.36, 0.33), (0.58, 0.37, 0.30),
)  # fmt: skip
FLATS: tuple[RGB, ...] = (
    (0.56, 0.54, 0.49), (0.47, 0.46, 0.45), (0.74, 0.73, 0.70), (0.36, 0.36, 0.37), (0.60, 0.56, 0.48),
)  # fmt: skip
GREEN_ROOF: RGB = (0.40, 0.46, 0.27)


@dataclass(frozen=True)
class Look:
    style: Style
    wall: RGB
    roof: RGB
    seed: int


def pick(rng: np.random.Generator, palette: tuple[RGB, ...]) -> RGB:
    r, g, b = palette[int(rng.integers(len(palette)))]
    bright = rng.uniform(0.9, 1.1)
    return (r * bright, g * bright, b * bright)


def look(rng: np.random.Generator, style: Style, roof: tuple[RGB, ...]) -> Look:
    walls = {Style.PLASTER: PLASTER, Style.BRICK: BRICKS, Style.CONCRETE: CONCRETE, Style.CURTAIN: CURTAIN}
    wall = walls.get(style, PLASTER if rng.random() < 0.6 else BRICKS)
    return Look(style, pick(rng, wall), pick(rng, roof), int(rng.integers(1 << 30)))


@dataclass(frozen=True)
class Ground:
    """Under one footprint: where the body starts, and the height that floors are counted from."""

    bottom: float
    level: float

    @staticmethod
    def under(layout: Layout, footprint: NDArray[np.float64]) -> Ground:
        points = np.vstack([footprint, footprint.mean(axis=0)[None]])
        z = layout.terrain(points[:, 0], points[:, 1])
        return Ground(float(z.min()) - 1.5, float(z[:-1].mean()))


def _unit(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return v / np.linalg.norm(v)  # type: ignore[no-any-return]


def lift(polygon: NDArray[np.float64], z: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([polygon, np.broadcast_to(z, len(polygon))])


def walls(
    b: Builder,
    polygon: NDArray[np.float64],
    bottom: float,
    top: float,
    level: float,
    lk: Look,
    blank: tuple[int, ...] = (),
) -> None:
    """One patch a wall; walls numbered in `blank` have no windows (they face a neighbour)."""
    for k in range(len(polygon)):
        p, q = polygon[k], polygon[(k + 1) % len(polygon)]
        wall(b, p, q, (bottom, bottom), (top, top), level, top, lk, k in blank)


def wall(
    b: Builder,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    bottoms: tuple[float, float],
    tops: tuple[float, float],
    level: float,
    eave: float,
    lk: Look,
    blank: bool = False,
    apex: NDArray[np.float64] | None = None,
) -> None:
    length = float(np.hypot(*(q - p)))
    style = Style.BLANK if blank else lk.style
    patch = b.add_patch(p, (q - p) / length, level, eave - level, length, style, lk.wall, lk.seed)
    corners = [(*p, bottoms[0]), (*q, bottoms[1]), (*q, tops[1])]
    if apex is not None:
        corners.append((apex[0], apex[1], apex[2]))
    corners.append((*p, tops[0]))
    b.polygon(np.array(corners), Material.WALL, patch)


def bottom_cap(b: Builder, polygon: NDArray[np.float64], z: float, lk: Look) -> None:
    patch = b.add_patch(polygon[0], np.array([1.0, 0.0]), z, 0.0, 1.0, Style.BLANK, lk.wall, lk.seed)
    b.polygon(lift(polygon[::-1], z), Material.HIDDEN, patch)


def roof_face(b: Builder, points: NDArray[np.float64], material: int, lk: Look, rgb: RGB | None = None) -> None:
    """`points` start with the eave, along which the tile rows or seams run."""
    along = _unit(points[1, :2] - points[0, :2])
    length = float(np.hypot(*(points[1, :2] - points[0, :2])))
    z = float(points[:, 2].min())
    rgb = rgb or lk.roof
    patch = b.add_patch(points[0, :2], along, z, 0.0, length, Style.BLANK, rgb, lk.seed)
    b.polygon(points, material, patch)


def flat(
    b: Builder,
    layout: Layout,
    polygon: NDArray[np.float64],
    height_m: float,
    lk: Look,
    parapet_m: float = 0.7,
    blank: tuple[int, ...] = (),
    base: Ground | None = None,
    material: int = Material.ROOF_FLAT,
) -> tuple[NDArray[np.float64], float]:
    """Returns the clear roof inside the parapet and its height."""
    ground = base or Ground.under(layout, polygon)
    roof = ground.level + height_m
    b.new_object()
    if parapet_m <= 0.0:
        walls(b, polygon, ground.bottom, roof, ground.level, lk, blank)
        roof_face(b, lift(polygon, roof), material, lk)
        bottom_cap(b, polygon, ground.bottom, lk)
        return polygon, roof
    top = roof + parapet_m
    walls(b, polygon, ground.bottom, top, ground.level, lk, blank)
    inner = inset(polygon, 0.35)
    rim = Look(Style.BLANK, lk.wall, lk.roof, lk.seed)
    pale = tuple(min(1.0, 0.45 + 0.5 * c) for c in lk.wall)
    for k in range(len(polygon)):
        n = (k + 1) % len(polygon)
        ring = np.vstack([lift(polygon[[k, n]], top), lift(inner[[n, k]], top)])
        roof_face(b, ring, Material.ROOF_METAL, rim, (pale[0], pale[1], pale[2]))
        wall(b, inner[n], inner[k], (roof, roof), (top, top), roof, top, rim, True)
    roof_face(b, lift(inner, roof), material, lk)
    bottom_cap(b, polygon, ground.bottom, lk)
    return inner, roof


def pitched(
    b: Builder,
    layout: Layout,
    quad: NDArray[np.float64],
    height_m: float,
    slope: float,
    lk: Look,
    hip: bool = False,
    blank: tuple[int, ...] = (),
    base: Ground | None = None,
    ends: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A ridge along edges 0 and 2. Returns the two ends of the ridge, (x, y, z).

    `slope` is rise over run. Hipped ends lean as much as the sides; a gabled end is a wall with a peak.
    """
    ground = base or Ground.under(layout, quad)
    eave = ground.level + height_m
    p0, p1, p2, p3 = quad
    m0, m1 = (p3 + p0) / 2, (p1 + p2) / 2
    half = 0.25 * (np.hypot(*(p3 - p0)) + np.hypot(*(p2 - p1)))
    top = eave + slope * half
    length = np.hypot(*(m1 - m0))
    cut = min(half / length, 0.45) if hip else 0.0
    r0, r1 = np.array([*(m0 + (m1 - m0) * cut), top]), np.array([*(m1 + (m0 - m1) * cut), top])
    b.new_object()
    bottoms, tops = (ground.bottom, ground.bottom), (eave, eave)
    for k, apex in enumerate((None, r1, None, r0)):
        peak = None if hip else apex
        wall(b, quad[k], quad[(k + 1) % 4], bottoms, tops, ground.level, eave, lk, k in blank, peak)
    e0, e1, e2, e3 = lift(quad, eave)
    roof_face(b, np.array([e0, e1, r1, r0]), Material.ROOF_TILE, lk)
    roof_face(b, np.array([e2, e3, r0, r1]), Material.ROOF_TILE, lk)
    if hip:
        roof_face(b, np.array([e1, e2, r1]), Material.ROOF_TILE, lk)
        roof_face(b, np.array([e3, e0, r0]), Material.ROOF_TILE, lk)
    bottom_cap(b, quad, ground.bottom, lk)
    return r0, r1


def mansard(
    b: Builder,
    layout: Layout,
    quad: NDArray[np.float64],
    height_m: float,
    lk: Look,
    blank: tuple[int, ...],
    base: Ground | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Steep slate sides over edges 0 and 2, a flat top between; the ends are walls. Returns the top."""
    ground = base or Ground.under(layout, quad)
    eave, top = ground.level + height_m, ground.level + height_m + 3.2
    depth = 0.5 * (np.hypot(*(quad[3] - quad[0])) + np.hypot(*(quad[2] - quad[1])))
    share = min(1.7 / depth, 0.3)
    p0, p1, p2, p3 = quad
    i0, i3 = p0 + (p3 - p0) * share, p3 + (p0 - p3) * share
    i1, i2 = p1 + (p2 - p1) * share, p2 + (p1 - p2) * share
    b.new_object()
    for k in (0, 2):
        bottoms = (ground.bottom, ground.bottom)
        wall(b, quad[k], quad[k + 1 if k == 0 else 3], bottoms, (eave, eave), ground.level, eave, lk, k in blank)
    for p, q, ip, iq in ((p1, p2, i1, i2), (p3, p0, i3, i0)):
        side = np.array([(*p, ground.bottom), (*q, ground.bottom), (*q, eave), (*iq, top), (*ip, top), (*p, eave)])
        length = float(np.hypot(*(q - p)))
        patch = b.add_patch(p, (q - p) / length, ground.level, height_m, length, Style.BLANK, lk.wall, lk.seed)
        b.polygon(side, Material.WALL, patch)
    slate = replace(lk, roof=(0.36, 0.37, 0.40))
    e0, e1, e2, e3 = lift(quad, eave)
    t0, t1, t2, t3 = lift(np.array([i0, i1, i2, i3]), top)
    roof_face(b, np.array([e0, e1, t1, t0]), Material.ROOF_TILE, slate)
    roof_face(b, np.array([e2, e3, t3, t2]), Material.ROOF_TILE, slate)
    roof_face(b, np.array([t0, t1, t2, t3]), Material.ROOF_FLAT, replace(lk, roof=(0.50, 0.50, 0.51)))
    bottom_cap(b, quad, ground.bottom, lk)
    return np.array([i0, i1, i2, i3]), top


def roof_clutter(b: Builder, rng: np.random.Generator, clear: NDArray[np.float64], roof_m: float) -> None:
    """Machines, ducts, skylights and a stair house on a flat roof given by its clear polygon (first four corners)."""
    quad = clear[:4]
    along = _unit(quad[1] - quad[0])
    across = np.array([-along[1], along[0]])
    size_a = float(np.hypot(*(quad[1] - quad[0])))
    size_b = float(np.hypot(*(quad[3] - quad[0])))
    if min(size_a, size_b) < 6.0:
        return
    if rng.random() < 0.75:  # stair or lift house
        c = at(quad, rng.uniform(0.25, 0.75), rng.uniform(0.35, 0.65))
        tone = rng.uniform(0.5, 0.75)
        w, d = rng.uniform(3.0, 5.0), rng.uniform(3.0, 4.5)
        b.fixture(
            c, along, w, d, roof_m - 0.3, roof_m + rng.uniform(2.2, 3.2), Material.EQUIPMENT, (tone, tone, tone * 0.97)
        )
    area = size_a * size_b
    for _ in range(int(rng.integers(1, 3 + int(area / 90.0)))):
        c = at(quad, rng.uniform(0.12, 0.88), rng.uniform(0.15, 0.85))
        w, d = rng.uniform(1.0, 3.2), rng.uniform(0.9, 2.2)
        tone = rng.uniform(0.55, 0.8)
        direction = along if rng.random() < 0.5 else across
        b.fixture(
            c, direction, w, d, roof_m - 0.2, roof_m + rng.uniform(0.6, 1.7), Material.EQUIPMENT, (tone, tone, tone)
        )
    if area > 200.0 and rng.random() < 0.6:
        row = rng.uniform(0.25, 0.75)
        count = int(min(size_a / 4.0, 8))
        for k in range(count):
            c = at(quad, (k + 0.8) / (count + 0.6), row)
            b.fixture(c, along, 1.6, 2.4, roof_m - 0.2, roof_m + 0.45, Material.GLASS, (0.42, 0.52, 0.60))
    elif area > 120.0 and rng.random() < 0.4:  # solar panels, low
        rows = int(min(size_b / 2.6, 6))
        for k in range(rows):
            c = at(quad, 0.5, (k + 0.8) / (rows + 0.6))
            b.fixture(c, along, size_a * 0.6, 1.4, roof_m - 0.2, roof_m + 0.35, Material.GLASS, (0.16, 0.20, 0.32))


def church(
    b: Builder, layout: Layout, quad: NDArray[np.float64], rng: np.random.Generator, max_height_m: float
) -> None:
    """A nave with a steep roof and a tower with a spire at its end."""
    lk = look(rng, Style.BLANK, ((0.36, 0.37, 0.40), (0.40, 0.46, 0.44)))
    pale = Look(Style.BLANK, (0.72, 0.67, 0.58), lk.roof, lk.seed)
    pitched(b, layout, quad, 13.0, 1.15, pale)
    along = _unit(quad[1] - quad[0])
    across = np.array([-along[1], along[0]])
    c = (quad[0] + quad[3]) / 2 - along * 3.2
    half = 3.6
    tower = np.array([c - along * half - across * half, c + along * half - across * half])
    tower = np.vstack([tower, c + along * half + across * half, c - along * half + across * half])
    ground = Ground.under(layout, tower)
    eave = ground.level + min(24.0, 0.6 * max_height_m)
    b.new_object()
    walls(b, tower, ground.bottom, eave, ground.level, pale)
    tip = np.array([*c, min(eave + 15.0, ground.level + max_height_m)])
    corners = lift(tower, eave)
    for k in range(4):
        roof_face(b, np.array([corners[k], corners[(k + 1) % 4], tip]), Material.ROOF_TILE, lk)
    bottom_cap(b, tower, ground.bottom, pale)


def chimneys(
    b: Builder, rng: np.random.Generator, r0: NDArray[np.float64], r1: NDArray[np.float64], count: int
) -> None:
    along = _unit(r1[:2] - r0[:2])
    across = np.array([-along[1], along[0]])
    for _ in range(count):
        c = r0[:2] + (r1[:2] - r0[:2]) * rng.uniform(0.15, 0.85) + across * rng.uniform(-1.2, 1.2)
        b.fixture(
            c,
            along,
            0.9,
            0.7,
            float(r0[2]) - 2.5,
            float(r0[2]) + rng.uniform(0.5, 1.1),
            Material.EQUIPMENT,
            (0.52, 0.36, 0.30),
        )
