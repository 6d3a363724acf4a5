from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest

from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid
from cityweave.io.pointcloud import describe_cloud, ground_heights, surface_heights
from cityweave.io.raster import open_raster

TOWN = CellGrid.covering(Box(770550, 6277550, 770600, 6277600), 0.4)


def test_a_town_s_surface_is_its_highest_returns(shared_data: Path) -> None:
    surface = surface_heights(shared_data / "ign_town" / "lidar.laz", TOWN, "EPSG:2154")
    with open_raster(shared_data / "ign_town" / "dsm_0p4m.tif") as dataset:
        theirs = dataset.read(1)
    assert np.isfinite(surface).mean() > 0.99
    assert np.nanpercentile(np.abs(surface - theirs), 99) < 1e-3


def test_a_town_s_buildings_stand_as_high_as_published(shared_data: Path) -> None:
    path = shared_data / "ign_town" / "lidar.laz"
    ground = ground_heights(path, TOWN, "EPSG:2154")
    assert np.isfinite(ground).all()
    above = surface_heights(path, TOWN, "EPSG:2154") - ground
    assert np.nanpercentile(above, [50, 90, 99]) == pytest.approx([2.8, 8.8, 17.0], abs=0.25)


def test_delft_needs_its_crs_declared(shared_data: Path) -> None:
    path = shared_data / "delft" / "ahn3.laz"
    grid = CellGrid.covering(Box(84850, 447450, 84950, 447550), 0.5)
    with pytest.raises(DataError, match="names no CRS"):
        surface_heights(path, grid, "EPSG:28992")
    surface = surface_heights(path, grid, "EPSG:28992", declared_crs="EPSG:7415")
    ground = ground_heights(path, grid, "EPSG:28992", declared_crs="EPSG:7415")
    assert np.isfinite(surface).mean() > 0.85 and np.isfinite(ground).mean() > 0.97
    assert np.nanmin(ground) > -1.5 and np.nanmax(ground) < 4.0  # Delft is flat
    assert 8 < np.nanpercentile(surface - ground, 90) < 16
    cloud = describe_cloud(path, "EPSG:28992", "EPSG:7415")
    assert cloud.points == 640510 and cloud.outline[0] == pytest.approx((84808.3, 447412.8), abs=0.1)


def write_cloud(path: Path, points: list[tuple[float, float, float, int]], crs: str | None = "EPSG:32637") -> Path:
    from pyproj import CRS

    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = np.full(3, 0.001), np.array([315000.0, 4161000.0, 0.0])
    if crs:
        header.add_crs(CRS(crs))
    cloud = laspy.LasData(header)
    x, y, z, kind = (np.array(column) for column in zip(*points, strict=True))
    cloud.x, cloud.y, cloud.z, cloud.classification = x, y, z, kind.astype(np.uint8)
    cloud.write(path)
    return path


def test_noise_is_no_surface_and_gaps_are_bridged(tmp_path: Path) -> None:
    """Ground on a slope with a building over its middle, and a bird."""
    points = []
    for i in range(20):
        for j in range(20):
            x, y = 315000.5 + i, 4161000.5 + j
            roof = 6 <= i < 14 and 6 <= j < 14
            points.append((x, y, 560.0, 6) if roof else (x, y, 550 + 0.1 * i - 0.2 * j, 2))
    points += [(315002.5, 4161002.5, 700.0, 18), (315003.5, 4161003.5, 100.0, 7)]
    path = write_cloud(tmp_path / "slope.laz", points)
    grid = CellGrid.covering(Box(315000, 4161000, 315020, 4161020), 1.0)
    surface = surface_heights(path, grid, "EPSG:32637")
    assert surface.max() == 560 and np.isfinite(surface).all()
    ground = ground_heights(path, grid, "EPSG:32637")
    i, j = np.meshgrid(np.arange(20), np.arange(19, -1, -1))
    assert np.abs(ground - (550 + 0.1 * i - 0.2 * j)).max() < 2e-3


def test_points_of_another_crs_fall_in_the_right_cells(tmp_path: Path) -> None:
    from pyproj import Transformer

    way = Transformer.from_crs("EPSG:32637", "EPSG:32636", always_xy=True)
    x, y = np.meshgrid(315000.5 + np.arange(20), 4161000.5 + np.arange(20))
    ex, ey = way.transform(x.ravel(), y.ravel())
    points = [(a, b, 500 + k, 1) for k, (a, b) in enumerate(zip(ex, ey, strict=True))]
    header_path = write_cloud(tmp_path / "zone36.laz", points, "EPSG:32636")
    surface = surface_heights(header_path, CellGrid.covering(Box(315000, 4161000, 315020, 4161020), 1.0), "EPSG:32637")
    assert np.abs(surface[::-1].ravel() - (500 + np.arange(400))).max() < 1e-3


@pytest.mark.parametrize("kind", ["absent", "text", "cut"])
def test_a_broken_cloud_is_one_clear_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.laz"
    if kind == "text":
        path.write_text("no points")
    if kind == "cut":
        write_cloud(path, [(315000.0 + i, 4161000.0, 5.0 + i % 7, 2) for i in range(3000)])
        path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(DataError, match="accepted") as caught:
        describe_cloud(path, "EPSG:32637")
    assert str(path) in str(caught.value)
