"""GLB files: what is written can be read, is well formed, and depends on its content only."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cityweave.errors import DataError
from cityweave.io.gltf import (
    Material,
    Node,
    Primitive,
    encode_jpeg,
    glb_bytes,
    read_glb,
    used_vertices,
    weld_corners,
    y_up,
)

SQUARE = np.array([[0, 0, 5], [2, 0, 5], [2, 3, 5], [0, 3, 5]], float)
FACES = np.array([[0, 1, 2], [0, 2, 3]])
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
PICTURE = encode_jpeg(np.full((8, 16, 3), 90, np.uint8), 85)


def two_parts(**options) -> bytes:
    surface = Primitive(y_up(SQUARE), FACES, UV, 0, {"part": "surface"})
    rim = Primitive(y_up(SQUARE - [0, 0, 5]), FACES, None, 1, {"part": "rim"})
    materials = [Material("picture", PICTURE), Material("plain", None, (0.2, 0.2, 0.2))]
    return glb_bytes([Node("tile", (surface, rim), (1.0, 2.0, 3.0))], materials, **options)


def test_what_is_written_is_read():
    document, (surface, rim) = read_glb(two_parts(extras={"crs": "EPSG:32637"}))
    assert document["asset"]["extras"] == {"crs": "EPSG:32637"}
    assert (surface.extras, rim.extras) == ({"part": "surface"}, {"part": "rim"})
    assert (surface.faces == FACES).all()
    assert (surface.uv == UV).all()
    assert rim.uv is None
    assert rim.picture is None
    expected = np.stack([SQUARE[:, 0], SQUARE[:, 2], -SQUARE[:, 1]], axis=1) + np.array([1, 2, 3])
    assert np.abs(surface.positions - expected).max() == 0
    assert Image.open(io.BytesIO(surface.picture)).size == (16, 8)


def test_z_up_content_is_turned_by_a_node():
    primitive = Primitive(SQUARE.astype(np.float32), FACES, UV, 0)
    turned = read_glb(glb_bytes([Node("t", (primitive,))], [Material("m", PICTURE)], z_up=True))[1][0]
    assert np.abs(turned.positions - y_up(SQUARE)).max() == 0


def test_container_and_views_are_aligned():
    data = two_parts()
    magic, version, length = struct.unpack_from("<III", data)
    assert (magic, version, length) == (0x46546C67, 2, len(data))
    size = struct.unpack_from("<I", data, 12)[0]
    assert size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    binary = len(data) - 28 - size
    assert binary % 4 == 0
    assert document["buffers"][0]["byteLength"] == binary
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= binary


def test_bounds_are_those_of_the_stored_numbers():
    document, primitives = read_glb(two_parts())
    for accessor in document["accessors"]:
        assert (accessor["type"] == "VEC3") == ("min" in accessor)
    first = document["accessors"][0]
    assert first["min"] == (primitives[0].positions - [1, 2, 3]).min(axis=0).tolist()


def test_index_width_follows_the_vertex_count():
    def component(vertices: int) -> int:
        points = np.random.default_rng(0).random((vertices, 3)).astype(np.float32)
        faces = np.arange(vertices - vertices % 3).reshape(-1, 3)
        document, (back,) = read_glb(glb_bytes([Node("n", (Primitive(points, faces, None, 0),))], [Material("m")]))
        assert (back.faces == faces).all()
        return document["accessors"][1]["componentType"]

    assert component(65534) == 5123
    assert component(65535) == 5125


def test_empty_primitives_are_left_out_and_nothing_at_all_is_refused():
    empty = Primitive(np.zeros((0, 3), np.float32), np.zeros((0, 3), int), None, 0)
    full = Primitive(y_up(SQUARE), FACES, None, 0)
    assert len(read_glb(glb_bytes([Node("n", (empty, full))], [Material("m")]))[1]) == 1
    with pytest.raises(DataError, match="at least one triangle"):
        glb_bytes([Node("n", (empty,))], [Material("m")])


def test_other_files_are_refused():
    with pytest.raises(DataError, match="no GLB"):
        read_glb(b"solid cube, an STL file for once")


def test_same_bytes_again():
    assert two_parts() == two_parts()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_welding_keeps_every_corner(count, seed):
    rng = np.random.default_rng(seed)
    faces = rng.integers(0, 12, (count, 3)).astype(np.int32)
    uv = rng.integers(0, 3, (count, 3, 2)).astype(np.float32) / 2
    vertex, vertex_uv, welded = weld_corners(faces, uv)
    assert (vertex[welded] == faces).all()
    assert (vertex_uv[welded] == uv).all()
    pairs = np.concatenate([vertex[:, None], vertex_uv * 2], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_used_vertices_drop_the_others():
    used, faces = used_vertices(np.array([[7, 2, 5], [5, 2, 9]]))
    assert used.tolist() == [2, 5, 7, 9]
    assert used[faces].tolist() == [[7, 2, 5], [5, 2, 9]]
