"""Public training sets: a tiny one of each layout is found, read and made into training data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from cityweave.errors import DataError
from cityweave.train.layouts import LAYOUTS, city_of_place, places
from cityweave.train.packs import make_data, open_data
from cityweave.train.recipe import DataSettings

SIDE_M = 64
HOUSE = (slice(20, 40), slice(10, 30))  # rows and columns, in metres from the north-west
HEIGHT_M, GROUND_M = 12.0, 300.0


def on_metres(gsd_m: float, inside: float, outside: float) -> np.ndarray:
    """A square of 64 m with a house."""
    n, k = round(SIDE_M / gsd_m), 1 / gsd_m
    out = np.full((n, n), outside, np.float32)
    out[tuple(slice(round(s.start * k), round(s.stop * k)) for s in HOUSE)] = inside
    return out


def write(path: Path, values: np.ndarray, west: float, north: float, gsd_m: float, crs: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    facts: dict[str, Any] = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands)}
    if crs is not None:
        facts |= {"transform": Affine(gsd_m, 0, west, 0, -gsd_m, north), "crs": crs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", dtype=bands.dtype, **facts) as file:
            file.write(bands)


def rgb(gsd_m: float) -> np.ndarray:
    return np.stack([on_metres(gsd_m, level, 90) for level in (200, 80, 60)]).astype(np.uint8)


def geonrw(folder: Path) -> None:
    place = (folder / "aachen", 290_000, 5_630_064, 1.0, "EPSG:25832")
    write(place[0] / "290_5630_rgb.tif", rgb(1.0), *place[1:])
    write(place[0] / "290_5630_dem.tif", on_metres(1.0, GROUND_M + HEIGHT_M, GROUND_M), *place[1:])
    write(place[0] / "290_5630_seg.tif", on_metres(1.0, 3, 1).astype(np.uint8), *place[1:])


def swisstopo(folder: Path) -> None:
    at, tail = (2_683_000, 1_248_064), "2683-1248_{}_2056"
    write(folder / f"swissimage-dop10_2019_{tail.format(0.1)}.tif", rgb(0.5) // 2, *at, 0.5, "EPSG:2056")
    write(folder / f"swissimage-dop10_2022_{tail.format(0.1)}.tif", rgb(0.5), *at, 0.5, "EPSG:2056")
    surface = on_metres(0.5, GROUND_M + HEIGHT_M, GROUND_M)
    write(folder / f"swisssurface3d-raster_2021_{tail.format(0.5)}_5728.tif", surface, *at, 0.5, "EPSG:2056")
    ground = np.full((32, 32), GROUND_M, np.float32)
    write(folder / f"swissalti3d_2021_{tail.format(2)}_5728.tif", ground, *at, 2.0, "EPSG:2056")


def ign_lidar_hd(folder: Path) -> None:
    west, north = 650_000.0, 6_863_000.0
    surface = on_metres(0.5, GROUND_M + HEIGHT_M, GROUND_M)
    name = "LHD_FXX_0650_6863_{}_O_0M50_LAMB93_IGN69.tif"
    write(folder / "mns" / name.format("MNS"), surface, west, north, 0.5, "EPSG:2154")
    write(folder / "mnt" / name.format("MNT"), np.full_like(surface, GROUND_M), west, north, 0.5, "EPSG:2154")
    away = "75-2021-0600-6865-LA93-0M20-E080.tif"
    write(folder / "ortho" / away, rgb(1.0) // 2, west - 50_000, north, 1.0, "EPSG:2154")
    wide = np.pad(rgb(0.5), ((0, 0), (40, 40), (60, 60)))
    here = folder / "ortho" / "75-2021-0650-6865-LA93-0M20-E080.tif"
    write(here, wide, west - 30, north + 20, 0.5, "EPSG:2154")


def dfc2019(folder: Path) -> None:
    write(folder / "Track1-RGB" / "JAX_004_006_RGB.tif", rgb(0.25), 0, 0, 1, None)
    above = on_metres(0.25, HEIGHT_M, 0)
    above[:20, :20] = np.nan
    write(folder / "Track1-Truth" / "JAX_004_006_AGL.tif", above, 0, 0, 1, None)


MADE = {"geonrw": geonrw, "swisstopo": swisstopo, "ign_lidar_hd": ign_lidar_hd, "dfc2019": dfc2019}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_picture_and_height_of_a_place_lie_on_one_another(layout: str, tmp_path: Path) -> None:
    MADE[layout](tmp_path)
    (place,) = places(layout, tmp_path)
    city = city_of_place(place, 0.5, 0.25)
    assert city.rgb.shape == (3, 128, 128) and city.rgb.dtype == np.uint8 and city.white == 255
    house = np.zeros((128, 128), bool)
    house[tuple(slice(2 * s.start, 2 * s.stop) for s in HOUSE)] = True
    inside, outside = np.zeros_like(house), ~house
    inside[44:76, 24:56] = True  # 2 m off its walls
    outside[36:84, 16:64] = False
    known = city.valid
    assert known[inside].all() and known.mean() > 0.98
    assert np.abs(city.height_m[inside] - HEIGHT_M).max() < 0.01
    assert np.abs(city.height_m[outside & known]).max() < 0.01
    assert np.abs(city.rgb[0][inside].astype(int) - 200).max() <= 1
    assert np.abs(city.rgb[0][outside & known].astype(int) - 90).max() <= 1
    if layout == "dfc2019":
        assert not known[:10, :10].any() and known[10:].all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_says_what_would_be_accepted(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"holds no place of the layout {layout}; accepted: "):
        places(layout, tmp_path)
    with pytest.raises(DataError, match=rf"is not there; accepted for {layout}: a folder with"):
        places(layout, tmp_path / "nowhere")


def test_a_place_without_heights_is_no_place(tmp_path: Path) -> None:
    for layout, gone in (("swisstopo", "swissalti3d*"), ("geonrw", "*_dem.tif"), ("ign_lidar_hd", "*E080.tif")):
        folder = tmp_path / layout
        MADE[layout](folder)
        for path in folder.rglob(gone):
            path.unlink()
        with pytest.raises(DataError, match="holds no place"):
            places(layout, folder)


def test_pictures_and_heights_of_two_sizes_are_refused(tmp_path: Path) -> None:
    dfc2019(tmp_path)
    write(tmp_path / "Track1-Truth" / "JAX_004_006_AGL.tif", on_metres(0.5, 1, 0), 0, 0, 1, None)
    (place,) = places("dfc2019", tmp_path)
    with pytest.raises(DataError, match=r"AGL.tif has \(128, 128\) cells, its picture \(256, 256\)"):
        city_of_place(place, 0.5, 0.25)


def test_they_are_made_into_data_beside_synthetic_cities(tmp_path: Path) -> None:
    swisstopo(tmp_path / "swiss")
    geonrw(tmp_path / "nrw")
    values = {
        "folder": tmp_path / "data",
        "train": {
            "synthetic": [{"first_seed": 1000, "count": 1, "side_m": 64}],
            "public": [{"layout": "swisstopo", "folder": tmp_path / "swiss", "weight": 3.0}],
        },
        "validation": {"public": [{"layout": "geonrw", "folder": tmp_path / "nrw"}]},
    }
    settings = DataSettings.model_validate(values)
    make_data(settings)
    data = open_data(settings, thorough=True)
    assert [(pack.name, pack.weight) for pack in data.train] == [
        ("synthetic-1000", 1.0),
        ("swisstopo-2683-1248", 3.0),
    ]
    assert [pack.name for pack in data.validation] == ["geonrw-aachen-290_5630"]
    values["validation"] = {"public": values["train"]["public"]}
    with pytest.raises(ValueError, match="swiss is in train and in validation"):
        DataSettings.model_validate(values)
