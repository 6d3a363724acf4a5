"""Satellites stand where the configuration says, and their RPCs say the same as they do."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.cameras import geodetic_transform
from cityweave.errors import DataError
from cityweave.grid import Box
from cityweave.synth.cameras import MAX_RPC_ERROR_PX, angles_from, ecef_of, fit_rpc, satellite_over
from cityweave.synth.views import Placed, place

MIDDLE = (36.9, 37.58, 565.0)


@pytest.mark.parametrize(("off_nadir", "azimuth"), [(0.5, 10.0), (12.0, 200.0), (30.0, 75.0)])
def test_angles_and_height_are_those_asked_for(off_nadir: float, azimuth: float) -> None:
    camera = satellite_over(MIDDLE, off_nadir, azimuth, 620e3, 0.45)
    angles = angles_from(camera.position, MIDDLE)
    assert angles["off_nadir_deg"] == pytest.approx(off_nadir, abs=1e-6)
    assert angles["view_azimuth_deg"] == pytest.approx(azimuth, abs=1e-6)
    assert angles["incidence_deg"] > off_nadir  # the Earth is round
    assert angles["range_km"] >= 619.0
    u, v = camera.project(ecef_of(*(np.array([c]) for c in MIDDLE)))
    assert abs(u[0]) < 1e-6 and abs(v[0]) < 1e-6


def test_pixel_size_and_orientation() -> None:
    camera = satellite_over(MIDDLE, 0.0, 0.0, 620e3, 0.5)
    lon, lat, height = (np.full(3, c) for c in MIDDLE)
    lon[1] += 50.0 / (111320.0 * np.cos(np.radians(MIDDLE[1])))  # 50 m east
    lat[2] += 50.0 / 110990.0  # 50 m north
    u, v = camera.project(ecef_of(lon, lat, height))
    assert np.hypot(u[1], v[1]) == pytest.approx(100.0, rel=0.01)
    assert np.hypot(u[2], v[2]) == pytest.approx(100.0, rel=0.01)
    assert u[1] > 95 and v[2] < -95


def placed(off_nadir: float = 25.0, azimuth: float = 130.0) -> Placed:
    camera = satellite_over(MIDDLE, off_nadir, azimuth, 620e3, 0.5)
    return place(camera, Box(314000, 4161000, 316000, 4163000), (540.0, 760.0), geodetic_transform("EPSG:32637"))


def test_rpc_follows_the_camera_and_gdal_reads_it_alike() -> None:
    from rasterio.rpc import RPC as GdalRPC  # noqa: N811
    from rasterio.transform import RPCTransformer

    view = placed()
    assert view.rpc_error_px < MAX_RPC_ERROR_PX
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(314000, 316000, 50), rng.uniform(4161000, 4163000, 50), rng.uniform(540, 760, 50)
    geodetic = geodetic_transform("EPSG:32637")(x, y, z)
    exact = np.stack(view.camera.project(ecef_of(*geodetic)))
    ours = np.stack(view.rpc.project(*geodetic))
    assert np.abs(exact - ours).max() < MAX_RPC_ERROR_PX
    tags = view.rpc.to_tags()
    names = {k.lower(): v for k, v in tags.items()}
    gdal = GdalRPC(**{k: [float(n) for n in v.split()] if k.endswith("_coeff") else float(v) for k, v in names.items()})
    with RPCTransformer(gdal) as oracle:
        rows, cols = oracle.rowcol(geodetic[0], geodetic[1], zs=geodetic[2], op=lambda value: value)
    # GDAL's transformer counts from the corner of the first pixel, as we do
    np.testing.assert_allclose(np.stack([cols, rows]), ours, atol=1e-3)


def test_a_camera_that_no_rpc_can_follow_is_refused() -> None:
    def shaking(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.sin(points[:, 0] / 3.0) * 500.0, points[:, 1] * 2.0

    with pytest.raises(DataError, match="accepted"):
        fit_rpc(shaking, np.array([36.89, 37.57, 500.0]), np.array([36.91, 37.59, 700.0]))


def test_the_image_covers_the_box() -> None:
    view = placed(10.0, 300.0)
    to_geodetic = geodetic_transform("EPSG:32637")
    x, y = np.array([314000, 316000, 316000, 314000.0]), np.array([4161000, 4161000, 4163000, 4163000.0])
    u, v = view.camera.project(ecef_of(*to_geodetic(x, y, np.full(4, 540.0))))
    assert 0 <= u.min() < 1 and 0 <= v.min() < 1
    assert view.width - 1 <= u.max() <= view.width and view.height - 1 <= v.max() <= view.height
