from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cityweave.config import Config
from cityweave.errors import CityweaveError, ConfigError, MissingCapability
from cityweave.plan import city_tiles, halos_m, ingest_halo_m, load_config, stage_params, texture_rings

ROOT = Path(__file__).resolve().parent.parent


def changed(values: dict, path: str, value: Any) -> dict:
    """A deep copy with one value set, or removed when it is `...`."""
    copy = json.loads(json.dumps(values))
    *way, last = path.split(".")
    section = copy
    for part in way:
        section = section.setdefault(part, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return copy


def test_a_valid_city_has_its_tiles_in_order(city_values: dict) -> None:
    names = [tile.name for tile in city_tiles(load_config(city_values))]
    assert names == ["E315392_N4161536", "E315648_N4161536", "E315392_N4161792", "E315648_N4161792"]


def test_a_shifted_grid_covers_the_same_city(city_values: dict) -> None:
    config = load_config(changed(city_values, "tiles.shift_m", 128))
    assert len(city_tiles(config)) == 9
    assert city_tiles(config)[0].name == "E315264_N4161408"
    assert load_config(changed(city_values, "tiles.shift_m", "half")) == config


def test_halos_grow_along_the_chain(city_values: dict) -> None:
    config = load_config(city_values)
    halos = halos_m(config)
    assert halos["geometry"] < halos["dsm"] <= halos["dsm's occluders"] <= ingest_halo_m(config)
    assert texture_rings(config) == 1


def test_a_pair_needs_no_ground_beyond_what_is_matched(city_values: dict) -> None:
    values = {key: part for key, part in city_values.items() if key != "sources"} | {"synth": {}}
    many = load_config(values)
    two = load_config(values | {"synth": {"views": [view.model_dump() for view in many.synth.views[:2]]}})
    assert halos_m(two)["dsm's occluders"] == halos_m(two)["dsm"]
    assert halos_m(many)["dsm's occluders"] == halos_m(many)["dsm"] + many.dsm.occluder_reach_m


@pytest.mark.parametrize("blend_m", [8.0, 9.2, 10.0, 11.0])
def test_a_height_model_holds_all_that_a_division_is_fitted_to(city_values: dict, blend_m: float) -> None:
    config = load_config(changed(city_values, "geometry.blend_m", blend_m))
    nodes = halos_m(config)["geometry"] / config.geometry.pitch_m
    assert nodes == round(nodes) and nodes >= 2 * config.geometry.ramp_nodes + 4


REFUSED = [
    ("dsm.gsdm", 1, ConfigError, ["unknown key dsm.gsdm", "gsd_m"]),
    ("city.crs", "EPSG:4326", ConfigError, ["not projected", "EPSG:32637"]),
    ("city.crs", "EPSG:2263", ConfigError, ["foot", "EPSG:32637"]),
    ("city.crs", "EPSG:1", ConfigError, ["not known", "EPSG:32637"]),
    ("city.crs", "EPSG:32637+5773", ConfigError, ["heights", "city.vertical", "EPSG:32637"]),
    ("city.crs", "EPSG:2048", ConfigError, ["west", "EPSG:32637"]),
    ("city.vertical", ..., ConfigError, ["city.vertical is missing", "ellipsoid"]),
    ("city.vertical", {"epsg": 3855, "grid": "nowhere.gtx"}, MissingCapability, ["nowhere.gtx", "is not there"]),
    ("ingest.halo_m", 1.0, ConfigError, ["at least", "geometry", "dsm"]),
    ("tiles.size_m", 255, ConfigError, ["multiple of twice"]),
    ("geometry.pitch_m", 0.8, ConfigError, ["integer multiple of dsm.gsd_m"]),
    ("sources.views", [], ConfigError, ["sources.views is empty", "2 satellite views"]),
    ("sources.views", [{"name": "a", "path": "a.tif"}], ConfigError, ["holds 1 view", "2 satellite views"]),
    ("sources.ortho", [{"name": "b", "path": "o.tif"}], ConfigError, ["names", "must differ", "b"]),
    ("city.bounds_m", [0, 0, 0, 0], ConfigError, ["xmin < xmax"]),
    ("city.heights_m", [5, 1], ConfigError, ["lowest before highest"]),
    ("seed", -1, ConfigError, ["seed", "-1"]),
]


@pytest.mark.parametrize(("path", "value", "kind", "words"), REFUSED, ids=[f"{r[0]}={r[1]}" for r in REFUSED])
def test_refused_in_one_line(
    city_values: dict, path: str, value: Any, kind: type[CityweaveError], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        load_config(changed(city_values, path, value))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_polygon_without_area_holds_no_tile(city_values: dict, tmp_path: Path) -> None:
    file = tmp_path / "line.geojson"
    corner = [315392, 4161536]
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [[corner, [315904, 4162048], corner]]}))
    values = changed(changed(city_values, "city.bounds_m", ...), "city.polygon", str(file))
    with pytest.raises(ConfigError, match="no tile"):
        load_config(values)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        '{"type": "Feature", "geometry": null}',
        '{"type": "Polygon", "coordinates": [[[1], [2]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}',
    ],
)
def test_a_broken_polygon_file_is_refused(city_values: dict, tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.geojson"
    file.write_text(text)
    values = changed(changed(city_values, "city.bounds_m", ...), "city.polygon", str(file))
    with pytest.raises(ConfigError, match=r"city\.polygon"):
        load_config(values)


def test_a_polygon_that_crosses_itself_still_says_where_the_city_is(city_values: dict, tmp_path: Path) -> None:
    file = tmp_path / "bow.geojson"
    ring = [[315392, 4161536], [315904, 4162048], [315904, 4161536], [315392, 4162048], [315392, 4161536]]
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    values = changed(changed(city_values, "city.bounds_m", ...), "city.polygon", str(file))
    assert len(city_tiles(load_config(values))) == 4


def test_a_polygon_bounds_the_city(city_values: dict, tmp_path: Path) -> None:
    file = tmp_path / "triangle.geojson"
    ring = [[315392, 4161536], [315904, 4161536], [315392, 4161800], [315392, 4161536]]
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    values = changed(changed(city_values, "city.bounds_m", ...), "city.polygon", str(file))
    assert [tile.name for tile in city_tiles(load_config(values))] == [
        "E315392_N4161536",
        "E315648_N4161536",
        "E315392_N4161792",
    ]


def test_params_of_a_stage_hold_its_own_section_only(city_values: dict) -> None:
    config = load_config(city_values)
    other = load_config(changed(city_values, "texture.max_off_nadir_deg", 20.0))
    assert stage_params(config, "dsm") == stage_params(other, "dsm")
    assert stage_params(config, "texture") != stage_params(other, "texture")


def test_a_city_that_grows_leaves_its_tiles_alone(city_values: dict) -> None:
    config = load_config(city_values)
    west, south, east, north = city_values["city"]["bounds_m"]
    grown = load_config(changed(city_values, "city.bounds_m", [west, south, east + 256, north]))
    assert set(city_tiles(config)) < set(city_tiles(grown))
    for stage in ("ingest", "dsm", "geometry", "texture"):
        assert stage_params(config, stage) == stage_params(grown, stage)
    assert stage_params(config, "merge") != stage_params(grown, "merge")


def test_schema_in_the_repository_is_the_models() -> None:
    committed = json.loads((ROOT / "config" / "schema.json").read_text())
    assert committed == Config.model_json_schema(), "refresh with: cityweave schema > config/schema.json"


def test_every_key_of_the_models_is_described() -> None:
    undescribed = [
        f"{model}.{key}"
        for model, schema in Config.model_json_schema()["$defs"].items()
        for key, value in schema["properties"].items()
        if "description" not in value and "$ref" not in value and "allOf" not in value and key not in ("name", "pack")
    ]
    assert not undescribed
