from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.cameras import geodetic_transform
from cityweave.errors import DataError
from cityweave.grid import Box
from cityweave.io.raster import open_raster
from cityweave.io.satellite import (
    Crop,
    crop_for,
    ground_from_geodetic,
    outline_on_ground,
    read_crop,
    read_excluded,
    read_rpc,
    view_angles,
    view_metadata,
)
from tests import pictures

BOX = Box(315392, 4161536, 315520, 4161664)
RPC, SIZE = pictures.view_rpc(BOX, 0.5, (-0.3, 0.1), 60.0)
TO_GEODETIC = geodetic_transform(pictures.CRS, None)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 64), st.floats(0, 64), st.floats(0, 1), st.floats(0, 1), st.floats(530, 650))
def test_a_crop_holds_all_that_stands_on_its_ground(x: float, y: float, fx: float, fy: float, z: float) -> None:
    box = Box(BOX.xmin + x, BOX.ymin + y, BOX.xmin + x + 64, BOX.ymin + y + 64)
    crop = crop_for(RPC, TO_GEODETIC, box, (530.0, 650.0), SIZE, 0.0)
    assert crop is not None
    point = (np.array([box.xmin + fx * 64]), np.array([box.ymin + fy * 64]), np.array([z]))
    u, v = RPC.project(*TO_GEODETIC(*point))
    if 0 <= u[0] < SIZE[0] and 0 <= v[0] < SIZE[1]:
        assert crop.left <= u[0] <= crop.left + crop.width and crop.top <= v[0] <= crop.top + crop.height
    assert crop.width < 64 / 0.5 + 0.3 * 120 / 0.5 + 8  # and little more


def test_ground_out_of_sight_has_no_crop() -> None:
    assert crop_for(RPC, TO_GEODETIC, Box(316500, 4161536, 316600, 4161600), (530.0, 650.0), SIZE, 8.0) is None


def test_a_crop_shows_the_same_ground_through_its_own_camera(tmp_path: Path) -> None:
    image = pictures.painted(RPC, SIZE, BOX, 0.5, 60.0).astype(np.float32)
    path = pictures.write_view(tmp_path / "view.tif", image, RPC)
    with open_raster(path) as dataset:
        rpc = read_rpc(dataset)
        crop = crop_for(rpc, TO_GEODETIC, BOX, (530.0, 600.0), SIZE, 4.0)
        assert crop is not None
        pixels = read_crop(dataset, crop)
    assert rpc.samp_num == pytest.approx(RPC.samp_num, rel=1e-14)  # GDAL hands out 15 digits
    assert pixels.image.shape == (1, crop.height, crop.width)
    rng = np.random.default_rng(3)
    x, y = rng.uniform(BOX.xmin, BOX.xmax, 200), rng.uniform(BOX.ymin, BOX.ymax, 200)
    u, v = rpc.shifted(crop.left, crop.top).project(*TO_GEODETIC(x, y, np.full(200, pictures.GROUND_M)))
    seen = pixels.image[0, np.floor(v).astype(int), np.floor(u).astype(int)]
    assert np.abs(seen - pictures.paint(x, y)).mean() < 15  # half a pixel of a pattern of 800


def test_angles_are_those_of_the_rays() -> None:
    to_ground = ground_from_geodetic(pictures.CRS)
    lon, lat, height = (
        float(a[0]) for a in TO_GEODETIC(np.array([315450.0]), np.array([4161600.0]), np.array([550.0]))
    )
    angles = view_angles(RPC, to_ground, (lon, lat, height))
    assert angles["off_nadir_deg"] == pytest.approx(np.degrees(np.arctan(np.hypot(0.3, 0.1))), abs=0.05)
    assert angles["view_azimuth_deg"] == pytest.approx(np.degrees(np.arctan2(-0.3, 0.1)) % 360, abs=0.2)


def test_the_outline_goes_round_the_ground() -> None:
    lon, lat = outline_on_ground(RPC, SIZE, pictures.GROUND_M)
    x, y, _ = ground_from_geodetic(pictures.CRS)(lon, lat, np.full(lon.shape, pictures.GROUND_M))
    wide = BOX.grow(60)
    assert (x.min(), y.min(), x.max(), y.max()) == pytest.approx(wide.as_tuple(), abs=0.1)
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == pytest.approx(wide.width * wide.height, rel=1e-2)


def test_a_view_without_a_camera_says_what_is_accepted(tmp_path: Path) -> None:
    path = pictures.write_view(tmp_path / "bare.tif", np.ones((8, 8), np.uint16), None)
    with open_raster(path) as dataset, pytest.raises(DataError, match=r"bare.tif has no RPC; .*RPB"):
        read_rpc(dataset)


def test_nan_counts_as_a_defect_only_when_undeclared(tmp_path: Path) -> None:
    image = np.ones((20, 30), np.float32)
    image[4, 5] = np.nan
    for nodata, defects in ((None, 1), (0.0, 1), (np.nan, 0)):
        path = pictures.write_view(tmp_path / "nan.tif", image, RPC, nodata=nodata)
        with open_raster(path) as dataset:
            pixels = read_crop(dataset, Crop(2, 2, 10, 10))
        assert pixels.invalid.sum() == 1 and pixels.invalid[2, 3]
        assert pixels.undeclared_nan.sum() == defects


def test_the_user_s_mask_is_cut_like_the_view(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[6:8, 9] = 1
    path = pictures.write_view(tmp_path / "mask.tif", mask, None)
    assert np.argwhere(read_excluded(path, Crop(5, 5, 10, 10), (30, 20))).tolist() == [[1, 4], [2, 4]]
    with pytest.raises(DataError, match=r"30x20 pixels; the view's own 31x20"):
        read_excluded(path, Crop(0, 0, 5, 5), (31, 20))


def test_metadata_is_what_the_file_tells(tmp_path: Path) -> None:
    tags = {"ACQUISITION_TIME": "2025-06-18T08:31:00Z", "SUN_AZIMUTH": "138.0", "SUN_ELEVATION": "high"}
    path = pictures.write_view(tmp_path / "v.tif", np.ones((8, 8), np.uint16), RPC, tags)
    with open_raster(path) as dataset:
        assert view_metadata(dataset) == {"acquired": "2025-06-18T08:31:00Z", "sun_azimuth_deg": 138.0}
