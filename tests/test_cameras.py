from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.cameras import (
    MAX_POLY_ERROR_PX,
    RPC,
    Correction,
    Pinhole,
    fit_local,
    fit_perspective,
    geodetic_transform,
    project_poly,
    straight_down,
)
from cityweave.errors import DataError, MissingCapability
from cityweave.grid import Box, CellGrid

CITY = Box(315392, 4161536, 315648, 4161792)
IMAGES = [
    "kahramanmaras_pre/pre_event_img1.tif",
    "kahramanmaras_pre/pre_event_img2.tif",
    "s2p_reunion/img_01.tif",
    "s2p_reunion/img_02.tif",
]


def tags_of(path: Path) -> dict[str, str]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return dataset.tags(ns="RPC")


@pytest.fixture(scope="session")
def pleiades(shared_data: Path) -> RPC:
    return RPC.from_tags(tags_of(shared_data / IMAGES[0]))


@pytest.mark.parametrize("image", IMAGES)
def test_projects_as_gdal_does(shared_data: Path, image: str) -> None:
    """GDAL's image coordinates start at the corner of the first pixel, as ours do."""
    from rasterio import rpc as rasterio_rpc
    from rasterio.transform import RPCTransformer

    tags = tags_of(shared_data / image)
    rpc = RPC.from_tags(tags)
    rng = np.random.default_rng(1)
    u, v = rng.uniform(0, 1000, (2, 500))
    height = rng.uniform(rpc.height_off - 300, rpc.height_off + 300, 500)
    lon, lat = rpc.localise(u, v, height)
    with RPCTransformer(rasterio_rpc.RPC.from_gdal(tags)) as gdal:
        rows, cols = gdal.rowcol(lon, lat, zs=height, op=lambda value: value)
    assert np.abs(np.asarray(cols) - u).max() < 1e-5
    assert np.abs(np.asarray(rows) - v).max() < 1e-5


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(450, 1500))
def test_localise_inverts_project(pleiades: RPC, u: float, v: float, height_m: float) -> None:
    lon, lat = pleiades.localise(np.array([u]), np.array([v]), np.array([height_m]))
    back = pleiades.project(lon, lat, np.array([height_m]))
    assert abs(back[0][0] - u) < 1e-5 and abs(back[1][0] - v) < 1e-5


def test_tags_give_back_the_same_camera_to_the_bit(pleiades: RPC) -> None:
    assert RPC.from_tags(pleiades.to_tags()) == pleiades


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 900), st.integers(0, 900))
def test_a_crop_counts_from_its_own_corner(du: int, dv: int) -> None:
    rpc = simple_rpc()
    lon, lat, height = np.array([36.9]), np.array([37.5]), np.array([600.0])
    (u, v), (u_crop, v_crop) = rpc.project(lon, lat, height), rpc.shifted(du, dv).project(lon, lat, height)
    assert abs(u[0] - du - u_crop[0]) < 1e-9 and abs(v[0] - dv - v_crop[0]) < 1e-9


def simple_rpc() -> RPC:
    one, zero = (1.0, *([0.0] * 19)), [0.0] * 17
    return RPC(
        line_num=(0.0, 0.0, -1.0, *zero), line_den=one, samp_num=(0.0, 1.0, 0.0, *zero), samp_den=one,
        line_off=500.0, line_scale=500.0, samp_off=500.0, samp_scale=500.0,
        lat_off=37.5, lat_scale=0.01, long_off=36.9, long_scale=0.01, height_off=600.0, height_scale=500.0,
    )  # fmt: skip


def test_a_camera_without_a_field_says_which() -> None:
    tags = simple_rpc().to_tags()
    del tags["SAMP_NUM_COEFF"]
    with pytest.raises(DataError, match="without SAMP_NUM_COEFF"):
        RPC.from_tags(tags)
    with pytest.raises(DataError, match="20 coefficients in line_num, found 3"):
        RPC.from_tags(simple_rpc().to_tags() | {"LINE_NUM_COEFF": "1 2 3"})


def test_a_polynomial_replaces_the_rpc_inside_a_tile(pleiades: RPC) -> None:
    to_geodetic = geodetic_transform("EPSG:32637", None)
    origin = (CITY.xmin, CITY.ymin, 500.0)
    camera = fit_local(pleiades, to_geodetic, CITY, (500.0, 800.0), origin)
    assert camera.error_px < MAX_POLY_ERROR_PX / 10
    rng = np.random.default_rng(2)
    x, y, z = rng.uniform(0, 256, 300), rng.uniform(0, 256, 300), rng.uniform(0, 300, 300)
    exact = pleiades.project(*to_geodetic(x + origin[0], y + origin[1], z + origin[2]))
    fitted = camera.project(x, y, z)
    assert np.abs(np.subtract(exact, fitted)).max() < MAX_POLY_ERROR_PX / 10
    assert np.allclose(project_poly(*camera.arrays(), x[0], y[0], z[0]), (fitted[0][0], fitted[1][0]), atol=1e-9)


def test_lean_is_how_the_ray_moves_on_the_ground(pleiades: RPC) -> None:
    camera = fit_local(
        pleiades, geodetic_transform("EPSG:32637", None), CITY, (500.0, 800.0), (*CITY.as_tuple()[:2], 500.0)
    )
    dx, dy = camera.lean()
    middle, top = camera.project(128.0, 128.0, 150.0), camera.project(128.0 + 10 * dx, 128.0 + 10 * dy, 160.0)
    assert np.abs(np.subtract(middle, top)).max() < 1e-3


def write_gtx(path: Path, offset_m: float) -> None:
    """A world-wide grid of one constant."""
    header = np.array([-90.0, -180.0, 1.0, 1.0], ">f8").tobytes() + np.array([181, 361], ">i4").tobytes()
    path.write_bytes(header + np.full(181 * 361, offset_m, ">f4").tobytes())


def test_a_geoid_grid_lifts_heights_by_its_value(tmp_path: Path) -> None:
    write_gtx(tmp_path / "geoid.gtx", 42.5)
    x, y, z = np.array([315500.0]), np.array([4161700.0]), np.array([600.0])
    lon, lat, height = geodetic_transform("EPSG:32637", tmp_path / "geoid.gtx")(x, y, z)
    assert height[0] == pytest.approx(642.5, abs=1e-6)
    assert geodetic_transform("EPSG:32637", None)(x, y, z)[2][0] == pytest.approx(600.0, abs=1e-6)
    assert 36.8 < lon[0] < 37.0 and 37.5 < lat[0] < 37.6


def test_a_missing_grid_is_never_a_silent_zero(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match="is not there"):
        geodetic_transform("EPSG:32637", tmp_path / "nowhere.gtx")


def test_known_points_of_rd_new() -> None:
    """The origin of RD New, a church tower in Amersfoort, as RDNAPTRANS gives it in ETRS89."""
    to_geodetic = geodetic_transform("EPSG:28992", None)
    lon, lat, _ = to_geodetic(np.array([155000.0]), np.array([463000.0]), np.array([0.0]))
    assert lon[0] == pytest.approx(5.387206, abs=2e-5)
    assert lat[0] == pytest.approx(52.155174, abs=2e-5)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 359), st.floats(10, 90), st.floats(100, 800), st.floats(20, 90))
def test_a_pinhole_sees_its_aim_in_the_middle(azimuth: float, pitch: float, distance: float, fov: float) -> None:
    a, p = np.radians(azimuth), np.radians(pitch)
    target = np.array([10.0, 20.0, 5.0])
    position = target + distance * np.array([np.cos(p) * np.sin(a), np.cos(p) * np.cos(a), np.sin(p)])
    camera = Pinhole.look_at(position, target, fov, 640, 480)
    u, v, depth = camera.project(*target)
    assert (u, v, depth) == (pytest.approx(320, abs=1e-6), pytest.approx(240, abs=1e-6), pytest.approx(distance))
    assert np.linalg.det(camera.rotation) == pytest.approx(1.0)
    above = camera.project(*(target + np.array([0, 0, 1.0])))
    if pitch < 85:
        assert above[1] < v  # up in the world is up in the image


BENT = Correction(1.25, -0.5, (500.0, 480.0), (1e-3, -2e-3, 5e-4, 3e-3))


@pytest.mark.parametrize("correction", [None, Correction(1.25, -0.5), BENT])
def test_slopes_are_those_of_the_projection(pleiades: RPC, correction: Correction | None) -> None:
    """Against central differences, over the whole range of the camera."""
    rpc = pleiades.corrected(correction)
    rng = np.random.default_rng(4)
    x, y, z = rng.uniform(-0.9, 0.9, (3, 100))
    ground = [rpc.long_off + x * rpc.long_scale, rpc.lat_off + y * rpc.lat_scale, rpc.height_off + z * rpc.height_scale]
    u, v, slopes = rpc.project_with_slopes(*ground)
    assert np.abs(np.subtract([u, v], rpc.project(*ground))).max() < 1e-8
    for axis, step in enumerate((1e-5, 1e-5, 1.0)):
        ahead, back = ([g + sign * step * (k == axis) for k, g in enumerate(ground)] for sign in (1, -1))
        difference = np.subtract(rpc.project(*ahead), rpc.project(*back)) / (2 * step)
        assert slopes[:, axis] == pytest.approx(difference, rel=1e-5, abs=1e-6 / step)


def test_a_corrected_camera_is_the_same_in_every_crop(pleiades: RPC) -> None:
    ground = (np.array([36.9135]), np.array([37.5716]), np.array([700.0]))
    u, v = pleiades.project(*ground)
    expected = (
        u + 1.25 + 1e-3 * (u - 500) - 2e-3 * (v - 480),
        v - 0.5 + 5e-4 * (u - 500) + 3e-3 * (v - 480),
    )
    whole = pleiades.corrected(BENT)
    assert np.subtract(whole.project(*ground), expected) == pytest.approx(0, abs=1e-9)
    assert np.subtract(whole.shifted(120, 45).project(*ground), expected).ravel() == pytest.approx(
        [-120, -45], abs=1e-9
    )
    lon, lat = whole.localise(*expected, ground[2])
    assert (lon[0], lat[0]) == (pytest.approx(ground[0][0], abs=1e-10), pytest.approx(ground[1][0], abs=1e-10))
    assert whole.corrected(None) == pleiades


def test_a_perspective_stands_in_with_a_stated_error(pleiades: RPC) -> None:
    to_geodetic, origin = geodetic_transform("EPSG:32637", None), (CITY.xmin, CITY.ymin, 500.0)
    fit = fit_perspective(pleiades, to_geodetic, CITY, (600.0, 800.0), origin)
    assert 0 < fit.error_px < 0.05
    rng = np.random.default_rng(2)
    x, y, z = rng.uniform(0, 256, 300), rng.uniform(0, 256, 300), rng.uniform(100, 300, 300)
    exact = pleiades.project(*to_geodetic(x + origin[0], y + origin[1], z + origin[2]))
    assert np.abs(np.subtract(exact, fit.project(x, y, z))).max() < 1.2 * fit.error_px


def test_numbers_that_are_none_are_refused() -> None:
    for change, message in (({"LINE_OFF": "nan"}, "line_off"), ({"LINE_NUM_COEFF": "inf" + " 0" * 19}, "line_num")):
        with pytest.raises(DataError, match=message):
            RPC.from_tags(simple_rpc().to_tags() | change)


def test_an_orthophoto_is_taken_from_straight_above() -> None:
    grid = CellGrid(800, 1200, 40, 30, 0.5)
    camera = straight_down(grid, (395.0, 598.0, 70.0))
    x, y = np.meshgrid(grid.x_centres - 395.0, grid.y_centres - 598.0)
    for height in (0.0, 90.0):
        u, v = camera.project(x, y, np.full_like(x, height))
        assert np.allclose(u, np.arange(40)[None] + 0.5) and np.allclose(v, np.arange(30)[:, None] + 0.5)
    assert np.allclose(camera.lean(), 0)
