from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cityweave.grid import Box
from cityweave.manifest import Manifest, Run
from cityweave.plan import load_config
from cityweave.survey import job
from cityweave.survey.envelope import MARGIN_M, WINDOW_M, height_range
from cityweave.survey.exposure import display_range, normalisations, unchanged
from tests import pictures

BOX = Box(315392, 4161536, 315520, 4161664)


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("survey")
    run = Run(folder / "run", load_config(pictures.write_city(folder, BOX)))
    job.run(run)
    return run


@pytest.fixture(scope="module")
def facts(surveyed: Run) -> dict:
    return json.loads(Manifest.read(surveyed.manifest_path("survey")).product("survey").read_text())


def test_views_are_described_as_they_were_made(facts: dict) -> None:
    a, b = facts["views"]
    assert (a["name"], b["name"], facts["reference_view"]) == ("a", "b", "a")
    assert a["gsd_m"] == pytest.approx(0.5, abs=0.002)
    assert b["off_nadir_deg"] == pytest.approx(np.degrees(np.arctan(np.hypot(0.3, 0.1))), abs=0.1)
    assert b["saturation"] is None and b["bands"] == 1 and b["dtype"] == "uint16"
    assert a["acquired"] == "2025-06-18T08:31:00Z" and a["sun_elevation_deg"] == 62.0
    x = [point[0] for point in a["footprint_m"]]
    assert (min(x), max(x)) == pytest.approx(
        (BOX.xmin - 60 + 3.25, BOX.xmax + 60 + 3.25), abs=0.2
    )  # at the middle of its heights
    assert 190 < a["statistics"][0]["p2"] < 400 and 800 < a["statistics"][0]["p98"] < 1010


def test_exposure_takes_every_view_to_the_reference(facts: dict) -> None:
    """View b was made as 1.25 DN + 40."""
    a, b = facts["views"]
    assert a["exposure"] == {"gain": [1.0], "offset": [0.0]}
    assert b["exposure"]["gain"][0] == pytest.approx(0.8, rel=0.01)
    assert b["exposure"]["offset"][0] + 640 * b["exposure"]["gain"][0] == pytest.approx(480, abs=4)
    assert a["display"] == b["display"] and 200 <= a["display"]["low"][0] < a["display"]["high"][0] <= 1000


def test_exposure_can_be_left_alone() -> None:
    assert unchanged({"a": np.zeros((2, 9))}) == {"a": {"gain": [1.0, 1.0], "offset": [0.0, 0.0]}}


def test_other_sources_are_described(facts: dict) -> None:
    assert facts["ortho"][0]["gsd_m"] == 0.25 and facts["ortho"][0]["bands"] == 3
    assert facts["terrain"]["gsd_m"] == 5.0 and len(facts["reference"]["sha256"]) == 64


def test_windows_hold_the_terrain_and_what_stands_on_it(facts: dict) -> None:
    low = {(x, y): (a, b) for x, y, a, b in facts["windows"]}[(315392, 4161536)]
    wide = BOX.grow(60)
    ground = pictures.ramp(np.array([wide.xmin, BOX.xmax]), np.array([BOX.ymax, wide.ymin]), wide)
    assert low[0] <= ground.min() and low[0] >= ground.min() - MARGIN_M - 2
    assert low[1] >= ground.max() + 60 - 3 and low[1] <= 700
    assert facts["window_m"] == WINDOW_M
    corners = {(x, y) for x, y, *_ in facts["windows"]}
    assert (315136, 4161280) in corners  # terrain sticks out so far
    assert (315392, 4162048) not in corners  # neither terrain nor two views: nothing is to be measured there


def test_the_same_sources_give_the_same_bytes(surveyed: Run, tmp_path: Path) -> None:
    first = surveyed.manifest_path("survey").read_bytes()
    again = Run(tmp_path / "run", surveyed.config)
    job.run(again)
    assert again.manifest_path("survey").read_bytes() == first


def test_height_range_never_leaves_the_city_s(facts: dict, surveyed: Run) -> None:
    city = surveyed.config.city
    assert height_range(city, np.full((2, 2), np.nan)) is None
    assert height_range(city, np.array([[600.0, 610.0]])) == (595.0, 670.0)
    assert height_range(city, np.array([[531.0, 690.0]])) == (530.0, 700.0)
    assert height_range(city, np.array([[5000.0]])) == (530.0, 700.0)


def test_normalisation_uses_common_ground_only() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(100, 900, (2, 1000))
    dark = truth / 2 - 10
    dark[:, :500] = 5000.0
    seen = truth.copy()
    seen[:, :500] = np.nan
    out = normalisations({"bright": seen, "dark": dark}, "bright")
    assert out["dark"]["gain"] == pytest.approx([2.0, 2.0]) and out["dark"]["offset"] == pytest.approx([20.0, 20.0])


def test_buildings_that_lean_apart_don_t_count() -> None:
    """A third of the samples shows walls, darker in one view; noise on all."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(200, 1200, (1, 3000))
    a, b = truth + rng.normal(0, 8, truth.shape), 1.1 * truth - 30 + rng.normal(0, 8, truth.shape)
    b[:, :1000] = rng.uniform(100, 500, 1000)
    line = normalisations({"b": b, "a": a}, "a")["b"]
    at = np.array([200.0, 700.0, 1200.0])
    assert np.abs(line["gain"][0] * (1.1 * at - 30) + line["offset"][0] - at).max() < 5


def test_one_band_is_compared_with_the_mean_of_three() -> None:
    rng = np.random.default_rng(0)
    colours = rng.uniform(100, 900, (3, 1000))
    out = normalisations({"rgb": colours, "pan": colours.mean(axis=0, keepdims=True) * 4}, "rgb")
    assert out["pan"]["gain"] == pytest.approx([0.25]) and out["pan"]["offset"] == pytest.approx([0.0], abs=1e-2)


def test_display_of_8_bit_and_of_declared_ranges_is_kept() -> None:
    values = np.random.default_rng(0).uniform(0, 4000, (3, 100))
    assert display_range({"bands": 3, "dtype": "uint8"}, values) == {"low": [0.0] * 3, "high": [255.0] * 3}
    declared = {"bands": 1, "dtype": "uint16", "display_range": [0.0, 1530.0]}
    assert display_range(declared, values) == {"low": [0.0], "high": [1530.0]}
    grey = display_range({"bands": 3, "dtype": "uint16"}, values)
    assert len(set(grey["low"])) == 1 and 0 <= grey["low"][0] < 100 and 3900 < grey["high"][0] <= 4000


def test_real_views_have_their_published_geometry(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "kahramanmaras_pre"
    values = {
        "city": {
            "name": "kahramanmaras",
            "crs": "EPSG:32637",
            "vertical": "ellipsoid",
            "bounds_m": [315300, 4161600, 315600, 4161900],
            "heights_m": [500, 700],
        },
        "tiles": {"size_m": 256},
        "sources": {"views": [{"name": f"v{n}", "path": str(folder / f"pre_event_img{n}.tif")} for n in (1, 2)]},
    }
    facts = job.survey(load_config(values), load_config(values).sources)
    v1, v2 = facts["views"]
    assert v1["saturation"] == v2["saturation"] == 4095
    assert v1["gsd_m"] == pytest.approx(0.52, abs=0.02) and v2["gsd_m"] == pytest.approx(0.52, abs=0.02)
    angles = [np.radians([v["off_nadir_deg"], v["view_azimuth_deg"]]) for v in (v1, v2)]
    rays = [np.array([np.sin(o) * np.sin(a), np.sin(o) * np.cos(a), np.cos(o)]) for o, a in angles]
    assert np.degrees(np.arccos(rays[0] @ rays[1])) == pytest.approx(17, abs=1)  # convergence, from its notes


@pytest.mark.parametrize("size_m", [64, 2048])
def test_windows_reach_as_far_as_tiles_and_halos_stick_out(size_m: int) -> None:
    from cityweave.plan import city_tiles, ingest_halo_m, survey_reach_m
    from cityweave.survey.envelope import windows

    box = [315392, 4161536, 315393, 4161537]  # in the corner of its tile
    config = load_config(
        {
            "city": {"name": "c", "crs": pictures.CRS, "vertical": "ellipsoid", "bounds_m": box, "heights_m": [0, 9]},
            "tiles": {"size_m": size_m},
            "sources": {"views": [{"name": name, "path": f"{name}.tif"} for name in "ab"]},
        }
    )
    (tile,) = city_tiles(config)
    cores = [window.core for window in windows(config.city, survey_reach_m(config))]
    covered = Box(cores[0].xmin, cores[0].ymin, cores[-1].xmax, cores[-1].ymax)
    assert covered.contains(tile.core.grow(ingest_halo_m(config)))


@pytest.mark.parametrize(
    ("nodata", "largest", "found"), [(65535, 4095, 4095.0), (65535, 3000, None), (None, 4095, 4095.0)]
)
def test_saturation_is_told_from_nodata(tmp_path: Path, nodata: int | None, largest: int, found: float | None) -> None:
    from cityweave.io.raster import open_raster
    from cityweave.survey.inventory import saturation_of

    image = np.full((40, 50), 700, np.uint16)
    image[3, 20] = largest
    if nodata is not None:
        image[:, :9] = nodata
    path = pictures.write_view(tmp_path / "v.tif", image, None, nodata=nodata)
    with open_raster(path) as dataset:
        assert saturation_of(dataset) == found
