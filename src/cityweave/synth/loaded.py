"""A loaded city model as the scene: its own bodies, with procedural walls and roofs on a ground that fits them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cityweave.config import SynthConfig
from cityweave.errors import DataError, MissingCapability
from cityweave.grid import Box
from cityweave.io.citymodel import CityModel, Kind, Surface, load_city_model
from cityweave.synth.assemble import Part, TerrainOf, assemble
from cityweave.synth.buildings import CONCRETE, FLATS, PLASTER, TILES, pick
from cityweave.synth.noise import CODE_MODEL, generator
from cityweave.synth.planting import plant
from cityweave.synth.scene import PATCH_COLUMNS, Builder, Label, Material, Scene, Style

STAND_IN_M = 1.5  # how far bodies are prolonged into the ground
PLANE_STEPS = (64.0, 2.0)  # directions per unit and metres by which faces share a patch
FLAT_ROOF = 0.97  # cosine of the slope from which a roof is flat
TREE_AREA_M2 = 110.0

LABELS = {
    Kind.ROAD: Label.ASPHALT,
    Kind.WATER: Label.WATER,
    Kind.GREEN: Label.GRASS,
    Kind.LAND: Label.PAVING,
    Kind.OTHER: Label.SIDEWALK,
}


def build_loaded(synth: SynthConfig, box: Box, origin_m: tuple[float, float, float], seed: int, crs: str) -> Scene:
    assert synth.model is not None
    model = load_city_model(synth.model)
    vertices = _in_crs(model, crs) + np.array(synth.model_offset_m)
    p = vertices[model.faces]
    touching = (p[..., 0] > box.xmin) & (p[..., 0] < box.xmax) & (p[..., 1] > box.ymin) & (p[..., 1] < box.ymax)
    if not touching.any():
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        raise DataError(
            f"{synth.model} reaches from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}), outside the "
            f"city {box.as_tuple()}; a model inside it is accepted: change city.bounds_m or synth.model_offset_m"
        )
    near = np.unique(model.owner[touching.any(axis=1)])
    terrain_of = _terrain(model, vertices, near, synth.ground_m)
    b = Builder()
    solid = near[np.isin(model.kind[near], [Kind.BUILDING, Kind.BRIDGE, Kind.TREE])]
    b.label(
        np.array([[box.xmin, box.ymin], [box.xmax, box.ymin], [box.xmax, box.ymax], [box.xmin, box.ymax]]),
        Label.GRASS,
    )
    for kind in (Kind.LAND, Kind.OTHER, Kind.GREEN, Kind.ROAD, Kind.WATER):  # later ones cover earlier ones
        for owner in near[model.kind[near] == kind]:
            _paint(b, vertices[model.faces[model.owner == owner]], kind, int(owner), seed, terrain_of)
    return assemble(b, box, origin_m, terrain_of, _bodies(model, vertices, solid, seed))


def _in_crs(model: CityModel, crs: str) -> NDArray[np.float64]:
    """Horizontally in the city's CRS; heights as they are (shift them with synth.model_offset_m)."""
    if model.crs is None:
        return model.vertices
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    own = CRS(model.crs)
    flat = own.sub_crs_list[0] if own.sub_crs_list else own
    if flat.to_2d().equals(CRS(crs).to_2d(), ignore_axis_order=True):
        return model.vertices
    try:
        way = Transformer.from_crs(flat.to_2d(), CRS(crs).to_2d(), always_xy=True, allow_ballpark=False)
    except ProjError as error:
        raise MissingCapability(
            f"PROJ knows no exact way from the model's {model.crs} to {crs} here: {error}"
        ) from error
    x, y = way.transform(model.vertices[:, 0], model.vertices[:, 1], errcheck=True)
    return np.column_stack([x, y, model.vertices[:, 2]])


def _terrain(
    model: CityModel, vertices: NDArray[np.float64], near: NDArray[np.int32], ground_m: float | None
) -> TerrainOf:
    """Ground through the surfaces that lie on it and the feet of the buildings, or a plane where a height is given."""
    if ground_m is not None:
        return lambda x, y: np.full(np.broadcast(x, y).shape, ground_m)
    known = []
    for owner in near:
        corners = vertices[np.unique(model.faces[model.owner == owner])]
        if model.kind[owner] in (Kind.BUILDING, Kind.TREE):
            foot = corners[corners[:, 2] < corners[:, 2].min() + 0.5]
            known.append(foot)
        elif model.kind[owner] != Kind.BRIDGE:
            known.append(corners)
    points = np.concatenate(known)
    from scipy.spatial import cKDTree

    cells, first = np.unique(np.round(points[:, :2]), axis=0, return_index=True)
    tree, heights = cKDTree(cells), points[first, 2]
    count = min(12, len(cells))

    def terrain_of(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        distance, index = tree.query(np.stack([x.ravel(), y.ravel()], axis=1), k=count)
        distance, index = distance.reshape(x.size, count), index.reshape(x.size, count)
        weight = 1.0 / (distance + 3.0) ** 2
        return ((weight * heights[index]).sum(axis=1) / weight.sum(axis=1)).reshape(x.shape)  # type: ignore[no-any-return]

    return terrain_of


class _Grounds:
    """What `plant` asks of a layout."""

    def __init__(self, terrain_of: TerrainOf) -> None:
        self.terrain_of = terrain_of

    def height_at(self, p: NDArray[np.float64]) -> float:
        return float(self.terrain_of(p[:1], p[1:2])[0])


def _paint(
    b: Builder, triangles: NDArray[np.float64], kind: Kind, owner: int, seed: int, terrain_of: TerrainOf
) -> None:
    rng = generator(seed, CODE_MODEL, owner)
    label = LABELS[kind]
    if kind == Kind.LAND:
        label = Label(int(rng.choice([Label.PAVING, Label.GRASS, Label.GARDEN, Label.GARDEN])))
    for t in triangles:
        e, f = t[1, :2] - t[0, :2], t[2, :2] - t[0, :2]
        area = 0.5 * abs(e[0] * f[1] - e[1] * f[0])
        if area < 1e-6:
            continue
        b.label(t[:, :2], label)
        if kind != Kind.GREEN:
            continue
        for _ in range(int(rng.poisson(area / TREE_AREA_M2))):
            u, v = np.sort(rng.random(2))
            plant(b, _Grounds(terrain_of), rng, t[0, :2] * u + t[1, :2] * (v - u) + t[2, :2] * (1 - v))


def _bodies(model: CityModel, vertices: NDArray[np.float64], solid: NDArray[np.int32], seed: int) -> Part:
    """One patch per object, plane and sort of surface, so that windows line up over a whole wall."""
    model, vertices = _with_bottoms(model, vertices, solid)
    chosen = np.flatnonzero(np.isin(model.owner, solid))
    points = vertices.copy()
    for owner in solid[model.kind[solid] == Kind.BUILDING]:
        corner = np.unique(model.faces[model.owner == owner])
        z = points[corner, 2]
        points[corner[z < z.min() + 0.05], 2] -= STAND_IN_M
    faces = model.faces[chosen].astype(np.int64)
    p = points[faces]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    middle = points.mean(axis=0)
    offset = ((p[:, 0] - middle) * normal).sum(axis=1)
    key = np.column_stack(
        [
            model.owner[chosen],
            model.surface[chosen],
            np.round(normal * PLANE_STEPS[0]),
            np.round(offset * PLANE_STEPS[1]),
        ]
    ).astype(np.int64)
    groups, patch = np.unique(key, axis=0, return_inverse=True)
    patch = patch.ravel()
    table = np.zeros((len(groups), PATCH_COLUMNS))
    material = np.zeros(len(chosen), dtype=np.uint8)
    order = np.argsort(patch, kind="stable")
    ends = np.searchsorted(patch[order], np.arange(len(groups) + 1))
    foot = {int(o): float(vertices[model.faces[model.owner == o], 2].min()) for o in solid}
    for g in range(len(groups)):
        own = order[ends[g] : ends[g + 1]]
        owner = int(groups[g, 0])
        n = normal[own].mean(axis=0)
        material[own] = _material(Kind(model.kind[owner]), Surface(int(groups[g, 1])), float(n[2]))
        table[g] = _patch(p[own].reshape(-1, 3), n, int(material[own[0]]), owner, foot[owner], seed)
    return Part(points, faces, material, patch, table, groups[:, 0])


def _with_bottoms(
    model: CityModel, vertices: NDArray[np.float64], solid: NDArray[np.int32]
) -> tuple[CityModel, NDArray[np.float64]]:
    """Buildings without a ground surface get one below their roofs, at their foot."""
    bottomless = np.setdiff1d(solid[model.kind[solid] == Kind.BUILDING], model.owner[model.surface == Surface.GROUND])
    roofs = np.flatnonzero(np.isin(model.owner, bottomless) & (model.surface == Surface.ROOF))
    if not len(roofs):
        return model, vertices
    foot = np.full(len(model.names), np.inf)
    np.minimum.at(foot, np.repeat(model.owner, 3), vertices[model.faces.ravel(), 2])
    corners = vertices[model.faces[roofs][:, [0, 2, 1]]].copy()
    corners[..., 2] = foot[model.owner[roofs]][:, None]
    added = np.arange(3 * len(roofs), dtype=np.int32).reshape(-1, 3) + np.int32(len(vertices))
    grown = replace(
        model,
        faces=np.concatenate([model.faces, added]),
        surface=np.concatenate([model.surface, np.full(len(roofs), Surface.GROUND, dtype=np.uint8)]),
        owner=np.concatenate([model.owner, model.owner[roofs]]),
    )
    return grown, np.concatenate([vertices, corners.reshape(-1, 3)])


def _material(kind: Kind, surface: Surface, up: float) -> int:
    if kind == Kind.TREE:
        return Material.HEDGE
    if kind == Kind.BRIDGE:
        return Material.DECK
    if surface == Surface.WALL:
        return Material.WALL
    if surface == Surface.GROUND:
        return Material.HIDDEN
    return Material.ROOF_FLAT if abs(up) > FLAT_ROOF else Material.ROOF_TILE


def _patch(
    corners: NDArray[np.float64], normal: NDArray[np.float64], material: int, owner: int, foot: float, seed: int
) -> NDArray[np.float64]:
    """Style and colours are the object's; the frame is the face's own."""
    rng = generator(seed, CODE_MODEL, owner, 1)
    style = Style(int(rng.choice([Style.PLASTER, Style.BRICK, Style.BRICK, Style.HOUSE, Style.CONCRETE])))
    wall = pick(rng, CONCRETE if style == Style.CONCRETE else PLASTER)
    if style == Style.BRICK:
        wall = (0.55, 0.34, 0.26)
    roof = pick(rng, TILES) if material == Material.ROOF_TILE else pick(rng, FLATS)
    own = int(rng.integers(1 << 30))
    along = np.array([-normal[1], normal[0]])
    size = np.hypot(*along)
    along = along / size if size > 1e-3 else np.array([1.0, 0.0])
    position = corners[:, :2] @ along
    start = corners[np.argmin(position)]
    length = float(np.ptp(position))
    low = foot if material == Material.WALL else float(corners[:, 2].min())
    height = float(corners[:, 2].max()) - low
    if height < 4.5 and style in (Style.PLASTER, Style.CONCRETE):
        style = Style.HOUSE
    rgb = wall if material in (Material.WALL, Material.HIDDEN) else roof
    return np.array([start[0], start[1], along[0], along[1], low, height, length, style, *rgb, own])
