"""What is refused before any job: each in one line that says what was found, where, and what would be accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cityweave.errors import CityweaveError, ConfigError, DataError, MissingCapability
from cityweave.grid import Box
from cityweave.ingest.preflight import check_sources
from cityweave.plan import load_config
from tests import pictures

BOX = Box(315392, 4161536, 315520, 4161664)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return pictures.write_city(tmp_path_factory.mktemp("preflight"), BOX)


@pytest.fixture
def values(made: dict) -> dict:
    return json.loads(json.dumps(made))


def check(values: dict) -> None:
    """What the main process does before it plans."""
    check_sources(load_config(values))


def refused(values: dict, kind: type[CityweaveError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        check(values)
    message = str(caught.value)
    assert "\n" not in message, message
    assert "accepted" in message or "at least" in message, message
    for word in words:
        assert word in message, message


def test_a_good_city_passes(values: dict) -> None:
    check(values)


def test_unknown_key(values: dict) -> None:
    values["ingest"] = {"halo": 5}
    refused(values, ConfigError, "unknown key ingest.halo", "halo_m")


def test_geographic_crs(values: dict) -> None:
    values["city"]["crs"] = "EPSG:4326"
    refused(values, ConfigError, "city.crs", "EPSG:4326", "not projected")


def test_missing_vertical_reference(values: dict) -> None:
    del values["city"]["vertical"]
    refused(values, ConfigError, "city.vertical", "ellipsoid")


def test_vertical_grid_that_is_not_there(values: dict, tmp_path: Path) -> None:
    values["city"]["vertical"] = {"epsg": 3855, "grid": str(tmp_path / "egm2008.gtx")}
    refused(values, MissingCapability, "egm2008.gtx", "not there")


def test_vertical_grid_that_does_not_cover_the_city(values: dict, tmp_path: Path) -> None:
    header = np.array([50.0, 3.0, 1.0, 1.0], ">f8").tobytes() + np.array([4, 5], ">i4").tobytes()
    (tmp_path / "nl.gtx").write_bytes(header + np.full(20, 43.0, ">f4").tobytes())
    values["city"]["vertical"] = {"epsg": 5709, "grid": str(tmp_path / "nl.gtx")}
    refused(values, MissingCapability, "city.vertical", "nl.gtx", "covers the city")


def test_halo_too_small(values: dict) -> None:
    values["ingest"] = {"halo_m": 1.0}
    refused(values, ConfigError, "ingest.halo_m", "at least")


def test_zero_tiles(values: dict, tmp_path: Path) -> None:
    line = [[315400, 4161540], [315500, 4161540], [315400, 4161540], [315400, 4161540]]
    (tmp_path / "line.json").write_text(json.dumps({"type": "Polygon", "coordinates": [line]}))
    del values["city"]["bounds_m"]
    values["city"]["polygon"] = str(tmp_path / "line.json")
    with pytest.raises(ConfigError):
        check(values)


@pytest.mark.parametrize("layer", ["views", "ortho", "terrain", "reference"])
def test_source_outside_the_city(values: dict, layer: str) -> None:
    away = np.array([20000, 20000, 20000, 20000])
    values["city"]["bounds_m"] = (np.array(values["city"]["bounds_m"]) + away).tolist()
    source: Any = values["sources"].pop(layer)
    values["sources"] = {layer: source} if layer == "views" else {"views": [], layer: source}
    if layer != "views":  # views that do overlap, so that the layer itself is what is wrong
        moved = Box(*values["city"]["bounds_m"])
        folder = Path((source[0] if layer == "ortho" else source)["path"]).parent / f"moved_{layer}"
        folder.mkdir(exist_ok=True)
        values["sources"]["views"] = pictures.write_city(folder, moved)["sources"]["views"]
    refused(values, DataError, f"sources.{layer}", "outside the city", "x 335392 to 335520")


def test_view_without_rpc(values: dict, tmp_path: Path) -> None:
    path = pictures.write_view(tmp_path / "plain.tif", np.ones((9, 9), np.uint16), None)
    values["sources"]["views"][1]["path"] = str(path)
    refused(values, DataError, "sources.views[1] (b)", "plain.tif has no RPC", "RPC00B")


@pytest.mark.parametrize("layer", ["views", "ortho", "terrain", "reference"])
@pytest.mark.parametrize("kind", ["absent", "text", "cut"])
def test_unreadable_raster(values: dict, tmp_path: Path, layer: str, kind: str) -> None:
    source = values["sources"][layer]
    source = source[0] if isinstance(source, list) else source
    bad = tmp_path / "bad.tif"
    if kind == "text":
        bad.write_text("no picture")
    if kind == "cut":
        whole = Path(source["path"]).read_bytes()
        bad.write_bytes(whole[: max(len(whole) * 2 // 3, 400)])
    source["path"] = str(bad)
    refused(values, DataError, f"sources.{layer}", "bad.tif")


def test_lidar_is_checked_like_a_raster(values: dict, tmp_path: Path) -> None:
    (tmp_path / "bad.laz").write_text("no points")
    values["sources"]["reference"] = {"path": str(tmp_path / "bad.laz")}
    refused(values, DataError, "sources.reference", "bad.laz", "LiDAR")


def test_lidar_elsewhere_is_outside(values: dict, shared_data: Path) -> None:
    values["sources"]["reference"] = {"path": str(shared_data / "ign_town" / "lidar.laz")}
    refused(values, DataError, "sources.reference", "outside the city")


def test_heights_with_three_bands(values: dict) -> None:
    values["sources"]["terrain"] = {"path": values["sources"]["ortho"][0]["path"]}
    refused(values, DataError, "sources.terrain", "3 bands", "1 is accepted")


def test_heights_without_a_crs(values: dict, tmp_path: Path) -> None:
    path = pictures.write_raster(
        tmp_path / "bare.tif", np.zeros((40, 40), np.float32), (315400, 4161600), 1.0, crs=None
    )
    values["sources"]["terrain"] = {"path": str(path)}
    refused(values, DataError, "sources.terrain", "names no CRS", "`crs`")
    values["sources"]["terrain"]["crs"] = pictures.CRS
    check(values)


def test_heights_that_state_another_vertical_reference(values: dict, tmp_path: Path) -> None:
    path = pictures.write_ramp(tmp_path / "geoid.tif", BOX, 1.0, crs="EPSG:32637+3855")
    values["sources"]["reference"] = {"path": str(path)}
    refused(values, DataError, "sources.reference", "EPSG:3855", "above the ellipsoid", "vertical")
    values["sources"]["reference"]["vertical"] = "ellipsoid"  # the user knows better
    check(values)


def test_a_city_model_that_is_not_there(values: dict) -> None:
    del values["sources"]
    values["synth"] = {"model": "nowhere.city.json"}
    refused(values, DataError, "synth.model", "nowhere.city.json", "CityJSON")


def test_mask_of_another_size(values: dict, tmp_path: Path) -> None:
    path = pictures.write_view(tmp_path / "small.tif", np.ones((9, 9), np.uint8), None)
    values["sources"]["views"][0]["mask"] = str(path)
    refused(values, DataError, "sources.views[0] (a)", "9x9 pixels")


def test_a_missing_grid_of_one_layer(values: dict, tmp_path: Path) -> None:
    values["sources"]["terrain"]["vertical"] = {"epsg": 3855, "grid": str(tmp_path / "egm.gtx")}
    refused(values, MissingCapability, "sources.terrain.vertical", "egm.gtx")


def test_real_sources_pass(shared_data: Path) -> None:
    folder = shared_data / "kahramanmaras_pre"
    check(
        {
            "city": {
                "name": "kahramanmaras",
                "crs": "EPSG:32637",
                "vertical": "ellipsoid",
                "bounds_m": [315392, 4161536, 315648, 4161792],
                "heights_m": [500, 700],
            },
            "tiles": {"size_m": 256},
            "sources": {
                "views": [{"name": f"v{n}", "path": str(folder / f"pre_event_img{n}.tif")} for n in (1, 2)],
                "reference": {"path": str(folder / "cars_dsm.tif")},
            },
        }
    )


def test_two_images_with_one_rpc(values: dict, tmp_path: Path) -> None:
    views = values["sources"]["views"]
    import shutil

    views[1]["path"] = str(shutil.copy(views[0]["path"], tmp_path / "copy.tif"))
    refused(values, DataError, "sources.views[1] (b)", "copy.tif", "the very RPC", "a.tif")


def test_a_broken_rpc(values: dict, tmp_path: Path) -> None:
    from cityweave.io.raster import open_raster

    source = values["sources"]["views"][0]
    with open_raster(Path(source["path"])) as dataset:
        image, tags = dataset.read(), dataset.tags(ns="RPC")
    broken = pictures.RPC.from_tags(tags | {"LINE_OFF": "90000"})
    source["path"] = str(pictures.write_view(tmp_path / "broken.tif", image, broken))
    refused(values, DataError, "sources.views[0] (a)", "broken.tif", "beside the image")


def test_an_ortho_without_a_crs(values: dict, tmp_path: Path) -> None:
    path = pictures.write_raster(
        tmp_path / "bare.tif", np.ones((3, 99, 99), np.uint8), (315400, 4161650), 1.0, crs=None
    )
    values["sources"]["ortho"][0]["path"] = str(path)
    refused(values, DataError, "sources.ortho[0]", "names no CRS", "`crs`")
    values["sources"]["ortho"][0]["crs"] = pictures.CRS
    check(values)
