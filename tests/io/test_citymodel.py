"""City models of every format become the same triangles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cityweave.errors import DataError
from cityweave.io.citymodel import CityModel, Kind, Surface, load_city_model, triangulate

CUBE = [(0, 0, 0), (10, 0, 0), (10, 8, 0), (0, 8, 0), (0, 0, 6), (10, 0, 6), (10, 8, 6), (0, 8, 6)]
SIDES = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]


def areas(model: CityModel) -> np.ndarray:
    p = model.vertices[model.faces]
    return np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1) / 2


def volume(model: CityModel) -> float:
    p = model.vertices[model.faces]
    return float(np.einsum("ij,ij->i", p[:, 0], np.cross(p[:, 1], p[:, 2])).sum() / 6)


def check_cube(model: CityModel) -> None:
    assert areas(model).sum() == pytest.approx(376)
    assert volume(model) == pytest.approx(480)  # positive: every face looks out
    up = areas(model)[model.surface == Surface.ROOF].sum()
    assert up == pytest.approx(80)
    assert areas(model)[model.surface == Surface.WALL].sum() == pytest.approx(216)


def cityjson(path: Path, geometry: dict, **extra: object) -> Path:
    vertices = (np.array(CUBE) * 100).tolist()
    document = {
        "type": "CityJSON",
        "version": "2.0",
        "transform": {"scale": [0.01, 0.01, 0.01], "translate": [0, 0, 0]},
        "metadata": {"referenceSystem": "https://www.opengis.net/def/crs/EPSG/0/7415"},
        "CityObjects": {"house": {"type": "Building", "geometry": [geometry]}},
        "vertices": vertices,
    } | extra
    path.write_text(json.dumps(document))
    return path


def test_cityjson_solid(tmp_path: Path) -> None:
    model = load_city_model(
        cityjson(tmp_path / "a.json", {"type": "Solid", "lod": "1.2", "boundaries": [[[s] for s in SIDES]]})
    )
    check_cube(model)
    assert model.crs == "EPSG:7415"
    assert list(model.kind) == [Kind.BUILDING]


def test_cityjson_inside_out_is_turned(tmp_path: Path) -> None:
    inside_out = [[s[::-1]] for s in SIDES]
    check_cube(
        load_city_model(cityjson(tmp_path / "a.json", {"type": "Solid", "lod": "1", "boundaries": [inside_out]}))
    )


def test_cityjson_semantics_win_and_the_finest_level_is_taken(tmp_path: Path) -> None:
    flat = {"type": "MultiSurface", "lod": "0", "boundaries": [[SIDES[0]]]}
    fine = {
        "type": "MultiSurface",
        "lod": "2",
        "boundaries": [[s] for s in SIDES],
        "semantics": {
            "surfaces": [{"type": "RoofSurface"}, {"type": "WallSurface"}, {"type": "GroundSurface"}],
            "values": [2, 0, 1, 1, 1, None],
        },
    }
    path = cityjson(tmp_path / "a.json", fine)
    document = json.loads(path.read_text())
    document["CityObjects"]["house"]["geometry"].insert(0, flat)
    path.write_text(json.dumps(document))
    check_cube(load_city_model(path))


def test_cityjson_template_instances(tmp_path: Path) -> None:
    templates = {
        "templates": [{"type": "Solid", "lod": "1", "boundaries": [[[s] for s in SIDES]]}],
        "vertices-templates": CUBE,
    }
    matrix = [1, 0, 0, 5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    placed = {"type": "GeometryInstance", "lod": "1", "template": 0, "boundaries": [1], "transformationMatrix": matrix}
    model = load_city_model(cityjson(tmp_path / "a.json", placed, **{"geometry-templates": templates}))
    check_cube(model)
    assert model.vertices[:, 0].min() == pytest.approx(15)


def test_polygon_with_a_hole_keeps_it() -> None:
    outer = np.array([[0, 0, 0], [10, 0, 5], [10, 10, 5], [0, 10, 0]], dtype=float)  # a slope
    hole = np.array([[4, 4, 2], [4, 6, 2], [6, 6, 3], [6, 4, 3]], dtype=float)
    points, triangles = triangulate([outer, hole])
    p = points[triangles]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    assert (normal[:, 2] > 0).all()
    assert normal[:, 2].sum() / 2 == pytest.approx(96)


def test_obj_with_both_kinds_of_numbers(tmp_path: Path) -> None:
    lines = [f"v {x} {y} {z}" for x, y, z in CUBE] + ["o house"]
    lines += ["f " + " ".join(f"{i + 1}/1/1" for i in s) for s in SIDES[:3]]
    lines += ["f " + " ".join(str(i - 8) for i in s) for s in SIDES[3:]]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    model = load_city_model(tmp_path / "a.obj")
    check_cube(model)
    assert model.names == ("house",)


def test_glb_is_turned_upright(tmp_path: Path) -> None:
    positions = np.array([(x, z, -y) for x, y, z in CUBE], dtype="<f4")
    index = np.array([t for s in SIDES for t in ((s[0], s[1], s[2]), (s[0], s[2], s[3]))], dtype="<u2")
    binary = positions.tobytes() + index.tobytes()
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "translation": [100, 0, 0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": [
            {"buffer": 0, "byteLength": positions.nbytes},
            {"buffer": 0, "byteOffset": positions.nbytes, "byteLength": index.nbytes},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": index.size, "type": "SCALAR"},
        ],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = len(text).to_bytes(4, "little") + b"JSON" + text + len(binary).to_bytes(4, "little") + b"BIN\0" + binary
    (tmp_path / "a.glb").write_bytes(
        b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunks)).to_bytes(4, "little") + chunks
    )
    model = load_city_model(tmp_path / "a.glb")
    check_cube(model)
    assert model.vertices[:, 0].min() == pytest.approx(100)
    assert model.vertices[:, 2].max() == pytest.approx(6)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.shp", "x"),
        ("a.json", '{"type": "FeatureCollection"}'),
        ("a.json", "not json"),
        ("a.json", '{"type": "CityJSON", "vertices": [], "CityObjects": {}}'),
        ("a.obj", "f 1 2 3"),
        ("a.glb", "nothing"),
    ],
)
def test_says_what_would_be_accepted(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="accepted"):
        load_city_model(tmp_path / name)


def test_real_cities(shared_data: Path) -> None:
    delft = load_city_model(shared_data / "delft" / "delft.city.json")
    assert (delft.kind == Kind.BUILDING).sum() == 160
    assert {Kind.ROAD, Kind.WATER, Kind.GREEN, Kind.LAND} <= {Kind(k) for k in delft.kind}
    assert delft.crs == "EPSG:7415"
    rotterdam = load_city_model(shared_data / "rotterdam" / "rotterdam_subset.json")
    assert len(rotterdam.kind) == 16
    roof = areas(rotterdam)[rotterdam.surface == Surface.ROOF].sum()
    assert roof > 1000
