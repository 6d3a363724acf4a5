"""City models as triangles: CityJSON (any LoD), OBJ and GLB, with what each triangle is as far as the file says.

Coordinates are those of the file with z up. An OBJ is taken to be z-up, as city models are; glTF is y-up by its
definition and is turned: x stays, its -z becomes north, its y becomes up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.errors import DataError
from cityweave.io.gltf import read_glb

ACCEPTED = "CityJSON (.json), OBJ (.obj) and binary glTF (.glb) are accepted"


class Surface(IntEnum):
    ROOF = 0
    WALL = 1
    GROUND = 2


class Kind(IntEnum):
    """Of an object."""

    BUILDING = 0
    BRIDGE = 1
    ROAD = 2
    WATER = 3
    GREEN = 4
    LAND = 5
    TREE = 6
    OTHER = 7


_KINDS = {
    "Building": Kind.BUILDING,
    "Bridge": Kind.BRIDGE,
    "Tunnel": Kind.BRIDGE,
    "Road": Kind.ROAD,
    "Railway": Kind.ROAD,
    "TransportSquare": Kind.ROAD,
    "WaterBody": Kind.WATER,
    "Waterway": Kind.WATER,
    "PlantCover": Kind.GREEN,
    "LandUse": Kind.LAND,
    "TINRelief": Kind.LAND,
    "SolitaryVegetationObject": Kind.TREE,
}


@dataclass(frozen=True)
class CityModel:
    """Triangles; corners are not shared between objects."""

    vertices: NDArray[np.float64]  # [n, 3]
    faces: NDArray[np.int32]  # [m, 3], turned to look out
    surface: NDArray[np.uint8]  # [m], Surface
    owner: NDArray[np.int32]  # [m], object number
    kind: NDArray[np.uint8]  # [objects], Kind
    names: tuple[str, ...]  # [objects]
    crs: str | None  # such as EPSG:7415, when the file names one


def load_city_model(path: Path) -> CityModel:
    """By suffix. Raises DataError with what would be accepted."""
    loaders = {".json": _load_cityjson, ".obj": _load_obj, ".glb": _load_glb}
    loader = loaders.get(path.suffix.lower())
    if loader is None:
        raise DataError(f"{path}: {path.suffix or 'a file without suffix'} is no city model; {ACCEPTED}")
    if not path.is_file():
        raise DataError(f"{path} is not there; {ACCEPTED}")
    try:
        model = loader(path)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} can't be read as {path.suffix} ({type(error).__name__}: {error}); {ACCEPTED}"
        ) from error
    if not len(model.faces):
        raise DataError(f"{path} holds no surface; a model with at least one polygon is accepted")
    return model


_UNKNOWN = 255


@dataclass
class _Collector:
    vertices: list[NDArray[np.float64]] = field(default_factory=list)
    faces: list[NDArray[np.int64]] = field(default_factory=list)
    surface: list[NDArray[np.uint8]] = field(default_factory=list)
    owner: list[NDArray[np.int32]] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    count: int = 0

    def open(self, name: str, kind: Kind) -> None:
        self.names.append(name)
        self.kind.append(int(kind))

    def add(self, points: NDArray[np.float64], triangles: NDArray[np.int64], surface: Surface | None) -> None:
        """Triangles of the object opened last; without a known surface each will be judged by its slope."""
        if not len(triangles):
            return
        self.vertices.append(points)
        self.faces.append(triangles + self.count)
        self.surface.append(np.full(len(triangles), _UNKNOWN if surface is None else surface, dtype=np.uint8))
        self.owner.append(np.full(len(triangles), len(self.names) - 1, dtype=np.int32))
        self.count += len(points)

    def model(self, crs: str | None) -> CityModel:
        def joined(parts: list[Any], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            return np.concatenate(parts).astype(dtype) if parts else np.zeros(shape, dtype)

        vertices, faces = joined(self.vertices, (0, 3), np.float64), joined(self.faces, (0, 3), np.int32)
        surface, owner = joined(self.surface, (0,), np.uint8), joined(self.owner, (0,), np.int32)
        if len(faces):
            judged = surface == _UNKNOWN
            surface[judged] = surface_by_slope(vertices, faces[judged])
            faces, surface = outwards(vertices, faces, surface, owner, judged)
        return CityModel(
            vertices,
            faces,
            surface,
            owner,
            np.array(self.kind, dtype=np.uint8),
            tuple(self.names),
            crs,
        )


def surface_by_slope(points: NDArray[np.float64], triangles: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Steeper than about 80° is a wall; what looks up is roof, what looks down is ground."""
    p = points[triangles]
    n = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    up = n[:, 2] / np.maximum(np.linalg.norm(n, axis=1), 1e-12)
    return np.select([np.abs(up) < 0.17, up > 0], [Surface.WALL, Surface.ROOF], Surface.GROUND).astype(np.uint8)


def outwards(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    surface: NDArray[np.uint8],
    owner: NDArray[np.int32],
    judged: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Faces turned to look out: roofs up, ground surfaces down, walls away from their object's middle on the whole.

    Where an object is inside out, what was judged by slope was judged the wrong way round.
    """
    p = vertices[faces]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    wall, count = surface == Surface.WALL, int(owner.max()) + 1
    middle, number = p.mean(axis=1), np.maximum(np.bincount(owner[wall], minlength=count), 1)
    centre = np.stack([np.bincount(owner[wall], middle[wall, k], count) / number for k in range(2)], axis=1)
    away = ((middle[:, :2] - centre[owner]) * normal[:, :2]).sum(axis=1)
    inside_out = (np.bincount(owner[wall], away[wall], count) < 0)[owner]
    swap = inside_out & judged & ~wall
    surface = np.where(swap, np.where(surface == Surface.ROOF, Surface.GROUND, Surface.ROOF), surface).astype(np.uint8)
    wrong = ((surface == Surface.ROOF) & (normal[:, 2] < 0)) | ((surface == Surface.GROUND) & (normal[:, 2] > 0))
    wrong |= wall & inside_out
    return np.where(wrong[:, None], faces[:, [0, 2, 1]], faces), surface


def triangulate(rings: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A polygon in space with holes: its points and triangles that turn as the outer ring does."""
    import mapbox_earcut

    rings = [r for r in rings if len(r) >= 3]
    if not rings:
        return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
    points = np.concatenate(rings)
    if len(rings) == 1 and len(points) == 3:
        return points, np.array([[0, 1, 2]])
    normal = _newell(rings[0])
    size = np.linalg.norm(normal)
    if size < 1e-12:
        return points, np.zeros((0, 3), dtype=np.int64)
    normal = normal / size
    a = np.cross(normal, [0.0, 0.0, 1.0] if abs(normal[2]) < 0.9 else [1.0, 0.0, 0.0])
    a /= np.linalg.norm(a)
    plane = np.stack([(points - points[0]) @ a, (points - points[0]) @ np.cross(normal, a)], axis=1)
    ends = np.cumsum([len(r) for r in rings]).astype(np.uint32)
    index = mapbox_earcut.triangulate_float64(np.ascontiguousarray(plane), ends)
    triangles = np.asarray(index, dtype=np.int64).reshape(-1, 3)
    p = plane[triangles]
    e, f = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    turned = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0] < 0
    triangles[turned] = triangles[turned][:, [0, 2, 1]]
    return points, triangles


def _newell(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the ring's area along its normal; robust where corners are not quite in one plane."""
    p = ring - ring[0]
    return np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------- CityJSON


def _load_cityjson(path: Path) -> CityModel:
    document = json.loads(path.read_text())
    if document.get("type") != "CityJSON":
        raise DataError(f"{path} is JSON of type {document.get('type')!r}, not CityJSON; {ACCEPTED}")
    vertices = np.array(document["vertices"], dtype=np.float64).reshape(-1, 3)
    if transform := document.get("transform"):
        vertices = vertices * np.array(transform["scale"]) + np.array(transform["translate"])
    out = _Collector()
    for name, thing in document["CityObjects"].items():
        base = re.sub(r"(Part|Installation|Room|Storey|Unit)$", "", thing["type"])
        geometry = _finest(thing.get("geometry", []))
        if not geometry:
            continue
        out.open(name, _KINDS.get(base, Kind.OTHER))
        for one in geometry:
            _add_geometry(out, one, vertices, document)
    return out.model(_reference_system(document))


def _reference_system(document: dict[str, Any]) -> str | None:
    text = str(document.get("metadata", {}).get("referenceSystem", ""))
    match = re.search(r"EPSG\D+(?:0/|:)?(\d{4,6})$", text)
    return f"EPSG:{match[1]}" if match else None


def _finest(geometries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the highest level of detail; an object may come in several."""
    if not geometries:
        return []
    best = max(float(g.get("lod", 0)) for g in geometries)
    return [g for g in geometries if float(g.get("lod", 0)) == best]


def _add_geometry(
    out: _Collector, geometry: dict[str, Any], vertices: NDArray[np.float64], document: dict[str, Any]
) -> None:
    if geometry["type"] == "GeometryInstance":
        templates = document["geometry-templates"]
        matrix = np.array(geometry["transformationMatrix"], dtype=np.float64).reshape(4, 4)
        own = np.array(templates["vertices-templates"], dtype=np.float64).reshape(-1, 3)
        placed = own @ matrix[:3, :3].T + matrix[:3, 3] + vertices[geometry["boundaries"][0]]
        _add_geometry(out, templates["templates"][geometry["template"]], placed, document)
        return
    semantics = geometry.get("semantics") or {}
    types = [s["type"] for s in semantics.get("surfaces", [])]
    for rings, value in _polygons(geometry["type"], geometry["boundaries"], semantics.get("values")):
        points, triangles = triangulate([vertices[np.asarray(r, dtype=np.int64)] for r in rings])
        out.add(points, triangles, _meaning(types[value] if value is not None else None))


def _polygons(kind: str, boundaries: list[Any], values: Any) -> Iterator[tuple[list[list[int]], int | None]]:
    """(rings, index of the semantic surface) of a geometry of any depth of nesting."""
    depth = {"MultiSurface": 0, "CompositeSurface": 0, "Solid": 1, "MultiSolid": 2, "CompositeSolid": 2}.get(kind)
    if depth is None:
        return  # points and lines have no surface

    def walk(items: list[Any], marks: Any, level: int) -> Iterator[tuple[list[list[int]], int | None]]:
        for n, item in enumerate(items):
            mark = marks[n] if isinstance(marks, list) else None
            if level == 0:
                yield item, mark
            else:
                yield from walk(item, mark, level - 1)

    yield from walk(boundaries, values, depth)


def _meaning(name: str | None) -> Surface | None:
    if name is None:
        return None
    if name.startswith(("Roof", "OuterCeiling")):
        return Surface.ROOF
    if name.startswith(("Wall", "Window", "Door")):
        return Surface.WALL
    if name.startswith(("Ground", "OuterFloor")):
        return Surface.GROUND
    return None


# --------------------------------------------------------------------------------------------------- OBJ


def _load_obj(path: Path) -> CityModel:
    points: list[list[float]] = []
    polygons: list[tuple[int, list[int]]] = []
    names = ["model"]
    for line in path.read_text(errors="replace").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "v":
            points.append([float(x) for x in rest.split()[:3]])
        elif word == "f":
            corners = [int(c.split("/")[0]) for c in rest.split()]
            polygons.append((len(names) - 1, [c - 1 if c > 0 else len(points) + c for c in corners]))
        elif word in ("o", "g"):
            names.append(rest.strip() or f"object{len(names)}")
    vertices = np.array(points, dtype=np.float64).reshape(-1, 3)
    out = _Collector()
    last = None
    for owner, corners in polygons:
        if owner != last:
            out.open(names[owner], Kind.BUILDING)
            last = owner
        out.add(*triangulate([vertices[corners]]), None)
    return out.model(None)


# --------------------------------------------------------------------------------------------------- GLB


def _load_glb(path: Path) -> CityModel:
    out = _Collector()
    document, primitives = read_glb(path)
    if used := document.get("extensionsRequired"):
        raise DataError(f"{path} needs the glTF extensions {used}; a GLB without compression is accepted")
    for number, primitive in enumerate(primitives):
        x, y, z = primitive.positions.T
        out.open(primitive.node or f"node{number}", Kind.BUILDING)
        out.add(np.stack([x, -z, y], axis=1), primitive.faces, None)
    return out.model(None)
