"""3D Tiles, overview, index and catalog of a small run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from cityweave.cameras import geodetic_transform
from cityweave.grid import Tile
from cityweave.io.gltf import read_glb
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.merge import job
from cityweave.merge.earth import LocalFrame, Placement, geodetic_to_ecef
from cityweave.merge.overview import Choice, OverviewPart, TileSize, choose, overview_part, size_of, write_overview
from cityweave.merge.tiles3d import Region, TileNode, write_tileset
from cityweave.mesh import load_levels
from cityweave.plan import city_tiles
from cityweave.texture import job as texture_job
from tests.texture import scene


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = scene.make_run(tmp_path_factory.mktemp("results") / "boxes", quarantined=(1, 1))
    for tile in city_tiles(run.config):
        texture_job.run(run, tile)
    job.city(run)
    return run


@pytest.fixture(scope="module")
def tileset(run) -> dict:
    return json.loads((run.folder / "tiles3d" / "tileset.json").read_text())


def placed(tileset: dict, folder) -> dict[str, dict[str, np.ndarray]]:
    """uri -> part -> vertices in ECEF, through the transforms of the tileset as a viewer applies them."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def visit(node: dict, matrix: np.ndarray) -> None:
        if "transform" in node:
            matrix = matrix @ np.asarray(node["transform"]).reshape(4, 4).T
        if "content" in node:
            parts = {}
            for primitive in read_glb(folder / node["content"]["uri"])[1]:
                y_up = primitive.positions
                z_up = np.stack([y_up[:, 0], -y_up[:, 2], y_up[:, 1]], axis=1)
                parts[primitive.extras["part"]] = z_up @ matrix[:3, :3].T + matrix[:3, 3]
            found[node["content"]["uri"]] = parts
        for child in node.get("children", []):
            visit(child, matrix)

    visit(tileset["root"], np.eye(4))
    return found


def true_ecef(run: Run, tile: Tile, level: int) -> np.ndarray:
    from pyproj import Transformer

    mesh = load_levels(Manifest.read(run.manifest_path("mesh", tile)).product("mesh"))[level]
    geodetic = geodetic_transform(run.config.city.crs)(*mesh.world().T)
    transformer = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.stack(transformer.transform(*geodetic), axis=1)


def test_vertices_are_where_they_belong_to_a_millimetre(run, tileset):
    everything = placed(tileset, run.folder / "tiles3d")
    for tile in city_tiles(run.config)[:3]:
        for level in (0, 1):
            true = true_ecef(run, tile, level)
            parts = everything[f"{tile.name}_{level}.glb"]
            assert set(parts) == {"surface", "rim"}
            for points in parts.values():
                assert cKDTree(true).query(points)[0].max() < 1e-3


def test_neighbours_meet_at_every_level(run, tileset):
    """Vertices that two tiles share by id lie within 1 mm of each other once placed on earth."""
    everything = placed(tileset, run.folder / "tiles3d")
    west, east = city_tiles(run.config)[:2]
    frame = LocalFrame.at(36.9, 37.58, 600.0)
    for level in (0, 1):
        a, b = (frame.local(everything[f"{tile.name}_{level}.glb"]["surface"]) for tile in (west, east))
        true = [frame.local(true_ecef(run, tile, level)) for tile in (west, east)]
        key = [np.round(points * 1000).astype(np.int64) for points in true]
        shared = {tuple(row) for row in key[0].tolist()} & {tuple(row) for row in key[1].tolist()}
        assert len(shared) > 10
        trees = cKDTree(a), cKDTree(b)
        for row in sorted(shared):
            target = np.array(row) / 1000
            nearest = [tree.data[tree.query(target)[1]] for tree in trees]
            assert np.linalg.norm(nearest[0] - nearest[1]) < 1e-3


def test_tileset_follows_the_rules(run, tileset):
    folder = run.folder / "tiles3d"
    assert tileset["asset"]["version"] == "1.1"
    assert tileset["asset"]["extras"]["crs"] == "EPSG:32637"
    seen = []

    def visit(node: dict) -> None:
        assert set(node["boundingVolume"]) <= {"region", "box"}
        assert node["refine"] == "REPLACE"
        if "content" in node:
            assert (folder / node["content"]["uri"]).is_file()
            seen.append(node["content"]["uri"])
        for child in node.get("children", []):
            assert child["geometricError"] < node["geometricError"]
            visit(child)
        if not node.get("children"):
            assert node["geometricError"] == 0.0

    visit(tileset["root"])
    assert sorted(seen) == sorted(path.name for path in folder.glob("*.glb"))
    assert len(seen) == 6


def test_bounding_volumes_hold_their_content(run, tileset):
    everything = placed(tileset, run.folder / "tiles3d")
    from pyproj import Transformer

    to_geodetic = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)

    def visit(node: dict, matrix: np.ndarray) -> list[np.ndarray]:
        if "transform" in node:
            matrix = matrix @ np.asarray(node["transform"]).reshape(4, 4).T
        points = [p for child in node.get("children", []) for p in visit(child, matrix)]
        if "content" in node:
            points += list(everything[node["content"]["uri"]].values())
        inside = np.concatenate(points)
        if "box" in node["boundingVolume"]:
            box = np.asarray(node["boundingVolume"]["box"])
            local = (inside - matrix[:3, 3]) @ matrix[:3, :3]
            half = np.abs(box[3:].reshape(3, 3)).sum(axis=0)
            assert (np.abs(local - box[:3]) <= half + 1e-3).all()
        else:
            west, south, east, north, low, high = node["boundingVolume"]["region"]
            lon, lat, height = to_geodetic.transform(*inside.T)
            lon, lat = np.radians(lon), np.radians(lat)
            assert west <= lon.min() <= lon.max() <= east
            assert south <= lat.min() <= lat.max() <= north
            assert low <= height.min() <= height.max() <= high
        return points

    visit(tileset["root"], np.eye(4))


def test_overview_holds_the_city_in_metres(run):
    document, primitives = read_glb(run.folder / "city.glb")
    assert document["asset"]["extras"]["crs"] == "EPSG:32637"
    surface = [p for p in primitives if p.extras["part"] == "surface"]
    assert len(surface) == 3
    points = np.concatenate([p.positions for p in surface])
    east, north = points[:, 0], -points[:, 2]
    assert (east.min(), east.max(), north.min(), north.max()) == (-64.0, 64.0, -64.0, 64.0)
    assert points[:, 1].min() == 5.0


def test_overview_keeps_to_its_budget(run, tmp_path):
    loaded = {tile: source.load() for tile, source in job._Gather(run, None).sources.items()}
    sizes = [size_of(tile, *pair) for tile, pair in loaded.items()]

    def parts(choice: Choice) -> list[OverviewPart]:
        numbered = enumerate(loaded.items(), start=1)
        return [overview_part(t.name, *pair, choice, number, (0.0, 0.0, 0.0), 85) for number, (t, pair) in numbered]

    path = tmp_path / "city.glb"
    large = write_overview(path, sizes, parts, 20.0, {})
    small = write_overview(path, sizes, parts, 0.15, {})
    assert path.stat().st_size <= 0.15e6
    assert (large.level, large.halvings) == (0, 0)
    assert small.level == 1


@given(st.integers(1, 400), st.floats(0.1, 100))
def test_choice_is_never_finer_with_less_room(tiles, budget_mb):
    size = TileSize(Tile(0, 0, 64), (40_000, 10_000, 3_000), (2_000_000, 500_000, 130_000))
    sizes = [size] * tiles
    a, b = choose(sizes, budget_mb * 1e6), choose(sizes, budget_mb * 2e6)
    assert b.level <= a.level
    if a.level == b.level:
        assert b.halvings <= a.halvings


def test_index_lists_every_tile(run):
    index = json.loads((run.folder / "tiles.geojson").read_text())
    assert index["type"] == "FeatureCollection"
    by_name = {feature["properties"]["name"]: feature for feature in index["features"]}
    assert list(by_name) == [tile.name for tile in city_tiles(run.config)]
    states = [feature["properties"]["status"] for feature in index["features"]]
    assert states == ["done", "done", "done", "quarantined"]
    assert index["features"][3]["properties"]["reason"] == "no picture shows it"
    for feature in index["features"]:
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        lon, lat = np.array(ring).T
        assert 36.8 < lon.min() < lon.max() < 37.0
        assert 37.5 < lat.min() < lat.max() < 37.7
        area = ((lon[:-1] * lat[1:]) - (lon[1:] * lat[:-1])).sum()
        assert area > 0  # counter-clockwise, as RFC 7946 asks for
        for file in feature["properties"]["files"].get("glb", []):
            assert (run.folder / file).is_file()


def test_catalog_leads_to_the_products_and_holds_no_time_of_the_run(run):
    item = json.loads((run.folder / "stac" / "boxes.json").read_text())
    assert item["properties"]["start_datetime"] == "2023-02-01T08:00:00Z"
    assert item["properties"]["end_datetime"] == "2023-02-05T08:00:00Z"
    west, south, east, north = item["bbox"]
    assert west < east
    assert south < north
    catalog = json.loads((run.folder / "stac" / "catalog.json").read_text())
    linked = [link["href"] for link in catalog["links"] if link["rel"] == "item"]
    assert [(run.folder / "stac" / href).is_file() for href in linked] == [True]
    for name in ("city_glb", "tileset_json", "tiles_geojson"):
        assert (run.folder / "stac" / item["assets"][name]["href"]).resolve().is_file()


def test_a_redo_changes_nothing(run):
    names = ("tiles3d", "city.glb", "tiles.geojson", "stac")
    manifest = run.manifest_path("merge_city")
    before = [content_hash(run.folder / name) for name in names] + [content_hash(manifest)]
    job.city(run)
    assert [content_hash(run.folder / name) for name in names] + [content_hash(manifest)] == before


def test_ecef_matches_proj():
    from pyproj import Transformer

    rng = np.random.default_rng(0)
    lon, lat, height = rng.uniform(-180, 180, 50), rng.uniform(-89, 89, 50), rng.uniform(-100, 3000, 50)
    expected = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True).transform(lon, lat, height)
    assert np.abs(geodetic_to_ecef(lon, lat, height) - np.stack(expected, axis=1)).max() < 1e-6


def test_local_frame_goes_there_and_back():
    placement = Placement.of_tile((315424.0, 4161568.0, 600.0), geodetic_transform("EPSG:32637"))
    local, _ = placement.place(np.array([[315424.0, 4161568.0, 600.0], [315424.0, 4161568.0, 610.0]]))
    assert np.abs(local - [[0, 0, 0], [0, 0, 10]]).max() < 1e-6
    matrix = np.asarray(placement.frame.matrix()).reshape(4, 4).T
    assert np.abs(local @ matrix[:3, :3].T + matrix[:3, 3] - placement.frame.ecef(local)).max() < 1e-8


def test_quadtree_of_a_ragged_city(tmp_path):
    tiles = [Tile(i, j, 100) for i, j in ((3, 5), (4, 5), (9, 5), (3, 6), (5, 9))]
    nodes = []
    for tile in tiles:
        entry = {
            "boundingVolume": {"box": [0.0] * 12},
            "geometricError": 1.0,
            "refine": "REPLACE",
            "content": {"uri": f"{tile.name}.glb"},
        }
        region = Region((tile.i, tile.j, 0.0), (tile.i + 1, tile.j + 1, 10.0))
        nodes.append(TileNode(tile, region, 1.0, entry, (f"{tile.name}.glb",)))
    write_tileset(tmp_path / "tileset.json", nodes, {})
    root = json.loads((tmp_path / "tileset.json").read_text())["root"]
    leaves = []

    def visit(node: dict) -> None:
        if "content" in node:
            leaves.append(node["content"]["uri"])
        else:
            assert len(node["children"]) <= 4
        for child in node.get("children", []):
            visit(child)

    visit(root)
    assert sorted(leaves) == sorted(f"{tile.name}.glb" for tile in tiles)
    assert root["boundingVolume"]["region"] == [3, 5, 10, 10, 0.0, 10.0]
