from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from cityweave.config import CityConfig, RasterSource
from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid
from cityweave.io.heights import read_heights
from cityweave.io.raster import horizontal_crs, native_gsd_m, open_raster, vertical_shift, warp_heights, warp_to_grid
from tests import pictures
from tests.test_cameras import write_gtx

WIDE = Box(315000.13, 4161000.77, 315180.13, 4161180.77)  # edges on nobody's grid
INNER = Box(315040, 4161040, 315140, 4161140)


def error_m(values: np.ndarray, grid: CellGrid) -> np.ndarray:
    x, y = np.meshgrid(grid.x_centres, grid.y_centres)
    return np.abs(values - pictures.ramp(x, y, WIDE))


@pytest.mark.parametrize("cell_m", [0.5, 1.0, 2.3])
@pytest.mark.parametrize("pixel_m", [0.3, 0.5, 0.9, 1.8, 10.0])
def test_a_ramp_keeps_its_values_at_any_cell_size(tmp_path: Path, pixel_m: float, cell_m: float) -> None:
    path = pictures.write_ramp(tmp_path / "ramp.tif", WIDE, pixel_m)
    grid = CellGrid.covering(INNER, cell_m)
    on_grid = warp_to_grid(path, grid, pictures.CRS)
    assert on_grid.valid.all()
    assert on_grid.resampling == ("area" if pixel_m < cell_m else "bilinear")
    assert error_m(on_grid.values[0], grid).max() < 1e-3


@pytest.mark.parametrize("pixel_m", [0.4, 3.0])
def test_a_ramp_keeps_its_values_out_of_another_crs(tmp_path: Path, pixel_m: float) -> None:
    from pyproj import Transformer

    way = Transformer.from_crs(pictures.CRS, "EPSG:3857", always_xy=True)
    x0, y0 = way.transform(WIDE.xmin - 20, WIDE.ymax + 20)
    n = int(300 / pixel_m)
    x, y = np.meshgrid(x0 + (np.arange(n) + 0.5) * pixel_m, y0 - (np.arange(n) + 0.5) * pixel_m)
    values = pictures.ramp(*way.transform(x, y, direction="INVERSE"), WIDE).astype(np.float32)
    path = pictures.write_raster(tmp_path / "web.tif", values, (x0, y0), pixel_m, crs="EPSG:3857")
    grid = CellGrid.covering(INNER, 1.0)
    assert error_m(warp_heights(path, grid, pictures.CRS), grid).max() < 1e-3
    assert native_gsd_m(path, pictures.CRS) == pytest.approx(pixel_m * np.cos(np.radians(37.55)), rel=5e-3)


def test_coarser_cells_hold_the_mean_of_their_area(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 400, 400)).astype(np.uint8)
    path = pictures.write_raster(tmp_path / "noise.tif", values, (0, 100), 0.25)
    on_grid = warp_to_grid(path, CellGrid(0, 0, 100, 100, 1.0), pictures.CRS, upsampling="cubic")
    means = values.reshape(3, 100, 4, 100, 4).mean(axis=(2, 4))
    assert np.abs(on_grid.values - means).max() < 1e-3
    assert (on_grid.native() == np.rint(on_grid.values)).all() and on_grid.native().dtype == np.uint8


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", -9999.0), ("float32", np.nan), ("float64", None), ("int16", -32768)]
)
@pytest.mark.parametrize("cell_m", [0.5, 2.0])
def test_a_hole_stays_a_hole_and_leaks_nowhere(tmp_path: Path, dtype: str, nodata: float | None, cell_m: float) -> None:
    values = np.full((100, 100), 7, dtype)
    values[40:60, 40:60] = np.nan if nodata is None else nodata
    path = pictures.write_raster(tmp_path / "hole.tif", values, (0, 100), 1.0, nodata=nodata)
    grid = CellGrid.covering(Box(0, 0, 100, 100), cell_m)
    heights = warp_heights(path, grid, pictures.CRS)
    hole = CellGrid.covering(Box(41, 41, 59, 59), cell_m)
    assert np.isnan(heights[grid.window_of(hole)]).all()
    known = heights[np.isfinite(heights)]
    assert (known == 7).all() and known.size >= (100 * 100 - 22 * 22) / cell_m**2


def test_ground_beyond_the_raster_is_nodata(tmp_path: Path) -> None:
    path = pictures.write_ramp(tmp_path / "ramp.tif", WIDE, 0.5)
    far = warp_to_grid(path, CellGrid.covering(Box(400000, 4161000, 400010, 4161010), 0.5), pictures.CRS)
    assert not far.valid.any()
    edge = CellGrid.covering(Box(314990, 4161050, 315010, 4161060), 0.5)
    assert warp_to_grid(path, edge, pictures.CRS).valid.mean() == pytest.approx(0.5, abs=0.03)


def test_a_nodata_that_is_also_a_colour_takes_all_bands(tmp_path: Path) -> None:
    values = np.full((3, 40, 40), 90, np.uint8)
    values[0, 5:10], values[:, 20:30] = 255, 255
    path = pictures.write_raster(tmp_path / "white.tif", values, (0, 40), 1.0, nodata=255)
    on_grid = warp_to_grid(path, CellGrid(0, 0, 40, 40, 1.0), pictures.CRS, upsampling="cubic")
    assert on_grid.valid[5:10].all() and not on_grid.valid[21:29].any()
    assert (on_grid.native()[0, 6] == 255).all() and (on_grid.native()[:, 25] == 255).all()


def test_an_alpha_band_is_a_mask_and_no_colour(tmp_path: Path) -> None:
    values = np.full((4, 20, 20), 90, np.uint8)
    values[3, :10], values[3, 10:] = 0, 255
    path = pictures.write_raster(tmp_path / "rgba.tif", values, (0, 20), 1.0, photometric="RGB", alpha="YES")
    on_grid = warp_to_grid(path, CellGrid(0, 0, 20, 20, 1.0), pictures.CRS)
    assert len(on_grid.values) == 3
    assert not on_grid.valid[:9].any() and on_grid.valid[11:].all()


def test_a_crs_by_name_only_is_resolved(shared_data: Path) -> None:
    path = shared_data / "ign_town" / "rgb.tif"
    with open_raster(path) as dataset:
        assert horizontal_crs(dataset).to_epsg() == 2154
    grid = CellGrid.covering(Box(770550, 6277550, 770600, 6277600), 0.4)
    ours = warp_to_grid(path, grid, "EPSG:2154", upsampling="cubic")
    with open_raster(shared_data / "ign_town" / "rgb_0p4m.tif") as dataset:
        theirs = dataset.read()
    assert ours.valid.all() and np.abs(ours.native().astype(int) - theirs).mean() < 0.01


def test_a_crs_whose_name_contradicts_it_is_refused(tmp_path: Path) -> None:
    from rasterio.crs import CRS

    lie = (
        CRS.from_epsg(2154)
        .to_wkt()
        .replace("RGF93 v1 / Lambert-93", "EPSG:2154")
        .replace('meridian",3]', 'meridian",5]')
    )
    lie = lie.replace(',AUTHORITY["EPSG","2154"]', "")
    path = pictures.write_raster(tmp_path / "lie.tif", np.zeros((4, 4), np.float32), (0, 4), 1.0, crs=CRS.from_wkt(lie))
    with open_raster(path) as dataset, pytest.raises(DataError, match="names its CRS EPSG:2154 but describes another"):
        horizontal_crs(dataset)


def test_a_raster_without_crs_needs_one_declared(tmp_path: Path) -> None:
    path = pictures.write_raster(tmp_path / "bare.tif", np.zeros((40, 40), np.float32), (0, 40), 1.0, crs=None)
    grid = CellGrid(0, 0, 20, 20, 1.0)
    with pytest.raises(DataError, match="names no CRS"):
        warp_heights(path, grid, pictures.CRS)
    assert (warp_heights(path, grid, pictures.CRS, declared_crs=pictures.CRS) == 0).all()


@pytest.mark.parametrize("kind", ["absent", "text", "cut"])
def test_what_can_t_be_read_is_one_clear_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.tif"
    if kind == "text":
        path.write_text("not a picture")
    if kind == "cut":
        pictures.write_ramp(path, WIDE, 0.5)
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="accepted") as caught:
        warp_heights(path, CellGrid.covering(INNER, 1.0), pictures.CRS)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_compound_crs_counts_by_its_horizontal_part(shared_data: Path) -> None:
    grid = CellGrid.covering(Box(315400, 4161600, 315500, 4161700), 0.5)
    cars, s2p = (
        warp_heights(shared_data / "kahramanmaras_pre" / f"{name}_dsm.tif", grid, pictures.CRS)
        for name in ("cars", "s2p")
    )
    assert np.nanmedian(np.abs(cars - s2p)) < 0.5


def test_heights_change_their_vertical_reference_by_the_geoid(tmp_path: Path) -> None:
    write_gtx(tmp_path / "low.gtx", 20.0)
    write_gtx(tmp_path / "high.gtx", 31.5)
    low = {"epsg": 3855, "grid": tmp_path / "low.gtx"}
    high = {"epsg": 5773, "grid": tmp_path / "high.gtx"}
    path = pictures.write_ramp(tmp_path / "ramp.tif", WIDE, 0.5)
    grid = CellGrid.covering(INNER, 1.0)
    common = {"name": "x", "crs": pictures.CRS, "bounds_m": INNER.as_tuple(), "heights_m": (0, 900)}
    for city, source, shift in (
        ("ellipsoid", low, 20.0),
        (low, high, 11.5),
        (high, None, 0.0),
        (low, "ellipsoid", -20.0),
    ):
        heights = read_heights(
            RasterSource(path=path, vertical=source), grid, CityConfig(vertical=city, **common), ground=True
        )
        assert error_m(heights - shift, grid).max() < 1e-3


def test_neighbours_agree_on_the_geoid(tmp_path: Path) -> None:
    """A bent grid, so that interpolation matters: two overlapping pieces of ground get the same shift."""
    header = np.array([36.0, 36.0, 0.5, 0.5], ">f8").tobytes() + np.array([5, 5], ">i4").tobytes()
    (tmp_path / "bent.gtx").write_bytes(header + (np.arange(25) ** 2).astype(">f4").tobytes())
    one = CellGrid.covering(Box(315392, 4161536, 315648, 4161792), 0.5)
    two = CellGrid.covering(Box(315620, 4161600, 315900, 4161792), 0.5)
    shifts = [vertical_shift(grid, pictures.CRS, tmp_path / "bent.gtx", None) for grid in (one, two)]
    common = one.overlap(two)
    assert common is not None
    a, b = (np.asarray(s)[g.window_of(common)] for s, g in zip(shifts, (one, two), strict=True))
    assert (a == b).all() and np.ptp(a) > 1e-4


def test_a_rotated_raster_is_placed_by_its_transform(tmp_path: Path) -> None:
    turn = Affine.translation(315000, 4161200) @ Affine.rotation(-30) @ Affine.scale(0.8, -0.8)
    x, y = turn @ tuple(np.meshgrid(np.arange(400) + 0.5, np.arange(400) + 0.5))
    values = pictures.ramp(x, y, WIDE).astype(np.float32)
    path = pictures.write_raster(tmp_path / "turned.tif", values, (0, 0), 1.0, transform=turn)
    grid = CellGrid.covering(Box(315140, 4161000, 315180, 4161040), 1.0)
    on_grid = warp_to_grid(path, grid, pictures.CRS)
    assert on_grid.valid.all() and error_m(on_grid.values[0], grid).max() < 1e-3
