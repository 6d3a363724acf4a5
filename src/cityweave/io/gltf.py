"""A small GLB 2.0 writer and reader: triangles, one picture per material, nothing else.

Positions must already be in glTF's axes (Y up) or the node must turn them. Colours are what a camera saw, sun and
shadow included, so materials are unlit (KHR_materials_unlit) with a rough, non-metallic fallback.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.errors import DataError

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_ARRAY, _ELEMENTS = 34962, 34963
_LINEAR, _MIPMAPPED, _CLAMP = 9729, 9987, 33071
Z_UP_TO_Y_UP = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # column-major


@dataclass(frozen=True)
class Material:
    """`picture` holds the bytes of a PNG or JPEG file; without one the colour (linear RGB, 0..1) is plain."""

    name: str
    picture: bytes | None = None
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Primitive:
    """positions (n,3) float32, faces (m,3), uv (n,2) float32 or None, material by number."""

    positions: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None
    material: int
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    name: str
    primitives: tuple[Primitive, ...]
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)


def y_up(xyz_nx3: np.ndarray) -> np.ndarray:
    """East, north, up to glTF's x right, y up, z towards the viewer; float32."""
    return np.stack([xyz_nx3[:, 0], xyz_nx3[:, 2], -xyz_nx3[:, 1]], axis=1).astype(np.float32)


def weld_corners(faces_mx3: np.ndarray, uv_mx3x2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One vertex per (vertex, uv): (vertex of each (n,), its uv (n,2) float32, faces (m,3) uint32)."""
    uv = np.ascontiguousarray(uv_mx3x2, np.float32).reshape(-1, 2) + np.float32(0.0)  # -0 becomes 0
    bits = uv.view(np.uint32).astype(np.uint64)
    key = bits[:, 0] << np.uint64(32) | bits[:, 1]
    vertex = faces_mx3.reshape(-1).astype(np.int64)
    order = np.lexsort((key, vertex))
    v, k = vertex[order], key[order]
    new = np.ones(len(order), bool)
    new[1:] = (v[1:] != v[:-1]) | (k[1:] != k[:-1])
    number = np.empty(len(order), np.uint32)
    number[order] = (np.cumsum(new) - 1).astype(np.uint32)
    first = order[new]
    return vertex[first], uv[first], number.reshape(-1, 3)


def used_vertices(faces_mx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that faces use, ascending, and the faces in those numbers (m,3) uint32."""
    used, number = np.unique(faces_mx3, return_inverse=True)
    return used, number.reshape(-1, 3).astype(np.uint32)


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """Full colour resolution: a halved one would bleed across the gutters of an atlas."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, format="JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


class _Buffer:
    """The binary chunk and its views; every view starts on a multiple of four bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": self.length, "byteLength": len(data)}
        if target is not None:
            entry["target"] = target
        padded = data + b"\0" * (-len(data) % 4)
        self.parts.append(padded)
        self.length += len(padded)
        self.views.append(entry)
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, kind: str, target: int, bounds: bool) -> int:
        component = {"f4": _FLOAT, "u2": _USHORT, "u4": _UINT}[values.dtype.str[1:]]
        entry: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(values).tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        if bounds:
            entry["min"], entry["max"] = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1


def glb_bytes(
    nodes: Iterable[Node],
    materials: Iterable[Material],
    *,
    z_up: bool = False,
    extras: Mapping[str, Any] | None = None,
) -> bytes:
    """The file as bytes, a function of its arguments alone. With `z_up` a root node turns everything to Y up."""
    buffer = _Buffer()
    meshes: list[dict[str, Any]] = []
    children: list[dict[str, Any]] = []
    for node in nodes:
        primitives = [_primitive(buffer, primitive) for primitive in node.primitives if len(primitive.faces)]
        if not primitives:
            continue
        entry: dict[str, Any] = {"name": node.name, "mesh": len(meshes)}
        if any(node.translation):
            entry["translation"] = list(node.translation)
        children.append(entry)
        meshes.append({"name": node.name, "primitives": primitives})
    if not meshes:
        raise DataError("a GLB needs at least one triangle, found none")
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "cityweave"}}
    if extras:
        document["asset"]["extras"] = dict(extras)
    document["scene"] = 0
    if z_up:
        root = {"name": "z up", "matrix": list(Z_UP_TO_Y_UP), "children": list(range(1, len(children) + 1))}
        document["scenes"], document["nodes"] = [{"nodes": [0]}], [root, *children]
    else:
        document["scenes"], document["nodes"] = [{"nodes": list(range(len(children)))}], children
    document["meshes"] = meshes
    document |= _materials(buffer, list(materials))
    document["accessors"], document["bufferViews"] = buffer.accessors, buffer.views
    document["buffers"] = [{"byteLength": buffer.length}]
    return _container(document, b"".join(buffer.parts))


def _primitive(buffer: _Buffer, primitive: Primitive) -> dict[str, Any]:
    positions = primitive.positions.astype(np.float32, copy=False)
    attributes = {"POSITION": buffer.accessor(positions, "VEC3", _ARRAY, bounds=True)}
    if primitive.uv is not None:
        attributes["TEXCOORD_0"] = buffer.accessor(
            primitive.uv.astype(np.float32, copy=False), "VEC2", _ARRAY, bounds=False
        )
    # 65535 itself means "restart" to a graphics card.
    index = primitive.faces.reshape(-1).astype(np.uint16 if len(positions) < 65535 else np.uint32)
    entry: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.accessor(index, "SCALAR", _ELEMENTS, bounds=False),
        "material": primitive.material,
    }
    if primitive.extras:
        entry["extras"] = dict(primitive.extras)
    return entry


def _materials(buffer: _Buffer, materials: list[Material]) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for material in materials:
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if material.colour != (1.0, 1.0, 1.0):
            surface["baseColorFactor"] = [*material.colour, 1.0]
        if material.picture is not None:
            kind = "image/png" if material.picture.startswith(b"\x89PNG") else "image/jpeg"
            surface["baseColorTexture"] = {"index": len(images)}
            images.append({"bufferView": buffer.view(material.picture), "mimeType": kind})
        entries.append(
            {
                "name": material.name,
                "pbrMetallicRoughness": surface,
                "extensions": {"KHR_materials_unlit": {}},
            }
        )
    document: dict[str, Any] = {"materials": entries, "extensionsUsed": ["KHR_materials_unlit"]}
    if images:
        document["images"] = images
        document["samplers"] = [{"magFilter": _LINEAR, "minFilter": _MIPMAPPED, "wrapS": _CLAMP, "wrapT": _CLAMP}]
        document["textures"] = [{"sampler": 0, "source": number} for number in range(len(images))]
    return document


def _container(document: Mapping[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        [
            struct.pack("<III", _MAGIC, 2, total),
            struct.pack("<II", len(text), _JSON),
            text,
            struct.pack("<II", len(binary), _BIN),
            binary,
        ]
    )


@dataclass(frozen=True)
class ReadPrimitive:
    """One primitive in the file's world (Y up): node transforms applied, in float64."""

    node: str
    positions: np.ndarray  # (n,3)
    faces: np.ndarray  # (m,3) int64
    uv: np.ndarray | None
    picture: bytes | None
    extras: dict[str, Any]


def read_glb(source: Path | bytes) -> tuple[dict[str, Any], list[ReadPrimitive]]:
    """The JSON document and the triangles of a GLB with embedded data and uncompressed geometry."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    if len(data) < 20 or struct.unpack_from("<I", data)[0] != _MAGIC:
        raise DataError(f"{'data' if isinstance(source, bytes) else source}: no GLB; binary glTF 2.0 is accepted")
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    binary = data[28 + length :]
    primitives: list[ReadPrimitive] = []

    def visit(number: int, matrix: np.ndarray) -> None:
        node = document["nodes"][number]
        matrix = matrix @ _node_matrix(node)
        if "mesh" in node:
            for primitive in document["meshes"][node["mesh"]]["primitives"]:
                primitives.append(_read_primitive(document, binary, primitive, node.get("name", ""), matrix))
        for child in node.get("children", []):
            visit(child, matrix)

    for root in document["scenes"][document.get("scene", 0)]["nodes"]:
        visit(root, np.eye(4))
    return document, primitives


def _node_matrix(node: Mapping[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.asarray(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = node["rotation"]
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    matrix[:3, :3] = matrix[:3, :3] * np.asarray(node.get("scale", [1.0, 1.0, 1.0]))
    matrix[:3, 3] = node.get("translation", [0.0, 0.0, 0.0])
    return matrix


def _read_primitive(
    document: Mapping[str, Any], binary: bytes, primitive: Mapping[str, Any], node: str, matrix: np.ndarray
) -> ReadPrimitive:
    attributes = primitive["attributes"]
    local = _read_accessor(document, binary, attributes["POSITION"]).astype(np.float64)
    if "indices" in primitive:
        index = _read_accessor(document, binary, primitive["indices"]).astype(np.int64)
    else:
        index = np.arange(len(local))
    uv = _read_accessor(document, binary, attributes["TEXCOORD_0"]) if "TEXCOORD_0" in attributes else None
    picture = None
    if "material" in primitive:
        texture = document["materials"][primitive["material"]].get("pbrMetallicRoughness", {}).get("baseColorTexture")
        if texture is not None:
            image = document["images"][document["textures"][texture["index"]]["source"]]
            view = document["bufferViews"][image["bufferView"]]
            start = view.get("byteOffset", 0)
            picture = binary[start : start + view["byteLength"]]
    positions = local @ matrix[:3, :3].T + matrix[:3, 3]
    return ReadPrimitive(node, positions, index.reshape(-1, 3), uv, picture, dict(primitive.get("extras", {})))


def _read_accessor(document: Mapping[str, Any], binary: bytes, number: int) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    kinds = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
    dtype = np.dtype(kinds[accessor["componentType"]])
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride", dtype.itemsize * width)
    values = np.ndarray((accessor["count"], width), dtype, binary, start, (stride, dtype.itemsize))
    return values[:, 0] if width == 1 else values
