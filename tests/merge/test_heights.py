"""City height model: structure of the files, references, and cells in the right place."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.merge import job
from cityweave.merge.heights import LAYERS, TileHeights, geotiff_crs_wkt, write_cog
from cityweave.plan import city_tiles
from tests.texture import scene


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = scene.make_run(tmp_path_factory.mktemp("results") / "boxes", quarantined=(0, 1), pictures=False)
    job.heights(run)
    return run


def directories(path: Path) -> list[dict[int, list[int]]]:
    """Every image directory of a TIFF in file order: tag -> values, and under 0 where the directory lies."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    sizes, codes = {1: 1, 2: 1, 3: 2, 4: 4, 12: 8}, {1: "B", 3: "H", 4: "I", 12: "d"}
    out = []
    at = struct.unpack_from("<I", data, 4)[0]
    while at:
        count = struct.unpack_from("<H", data, at)[0]
        tags = {0: [at]}
        for k in range(count):
            tag, kind, number = struct.unpack_from("<HHI", data, at + 2 + 12 * k)
            where = at + 2 + 12 * k + 8
            if sizes.get(kind, 8) * number > 4:
                where = struct.unpack_from("<I", data, where)[0]
            if kind in codes:
                tags[tag] = list(struct.unpack_from(f"<{number}{codes[kind]}", data, where))
        out.append(tags)
        at = struct.unpack_from("<I", data, at + 2 + 12 * count)[0]
    return out


WIDTH, TILE_WIDTH, OFFSETS, LENGTHS = 256, 322, 324, 325


def check_cog(path: Path) -> int:
    """Assert that a GeoTIFF is cloud-optimised; return its number of overviews."""
    found = directories(path)
    assert all(TILE_WIDTH in tags for tags in found)
    widths = [tags[WIDTH][0] for tags in found]
    assert widths == sorted(widths, reverse=True)
    places = [tags[0][0] for tags in found]
    assert places == sorted(places)  # full image first, then ever smaller overviews
    first_data = [min(offset for offset in tags[OFFSETS] if offset) for tags in found]
    assert max(places) < min(first_data)  # all directories before any pixel
    assert first_data == sorted(first_data, reverse=True)  # small overviews first
    ends = [offset + length for tags in found for offset, length in zip(tags[OFFSETS], tags[LENGTHS], strict=True)]
    assert max(ends) <= path.stat().st_size
    assert widths[-1] <= found[-1][TILE_WIDTH][0]  # the smallest overview is one tile wide
    return len(found) - 1


@pytest.mark.parametrize("name", ["city_dsm.tif", "city_dtm.tif"])
def test_cog_structure_and_references(run, name):
    import rasterio

    path = run.folder / name
    assert check_cog(path) >= 1
    assert not path.with_name(name + ".aux.xml").exists()
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert np.isnan(dataset.nodata)
        assert dataset.overviews(1)
        assert dataset.compression.value == "DEFLATE"
        assert dataset.tags()["VERTICAL_REFERENCE"] == "ellipsoid"
        assert dataset.units == ("metre",)
        assert dataset.crs.is_projected
        assert "ellipsoidal height" in dataset.crs.to_wkt()
        assert tuple(dataset.bounds) == run.config.city.box.as_tuple()


def test_cells_are_where_the_tiles_say(run):
    import rasterio

    heights = scene.box_heights(128)
    with rasterio.open(run.folder / "city_dsm.tif") as dataset:
        dsm = dataset.read(1)
    expected = np.repeat(np.repeat(heights[::-1], 2, axis=0), 2, axis=1) + run.config.city.z0_m
    missing = np.zeros_like(dsm, bool)
    missing[:128, :128] = True  # the quarantined tile, north-west
    assert np.isnan(dsm[missing]).all()
    assert (dsm[~missing] == expected[~missing]).all()


def test_store_opens_in_plain_xarray(run):
    import rioxarray  # noqa: F401
    import xarray as xr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning, module="affine")
        with xr.open_zarr(run.folder / "city.zarr") as city:
            assert set(LAYERS) <= set(city.data_vars)
            assert city.rio.crs is not None
            assert city.dsm.rio.crs.is_projected
            assert city.rio.crs.to_wkt().startswith("PROJCRS")
            assert float(city.dsm.isnull().mean()) == 0.25
            assert city.source.dtype == np.uint8
            assert city.y.values[0] > city.y.values[-1]
            one = city.dsm.sel(x=315392.25, y=4161536.25)
            assert float(one) == scene.box_heights(128)[0, 0] + run.config.city.z0_m


def test_shards_are_whole_tiles(run):
    import zarr

    array = zarr.open_array(run.folder / "city.zarr" / "dsm", mode="r")
    assert array.shards == (128, 128)
    files = [path for path in (run.folder / "city.zarr" / "dsm" / "c").rglob("*") if path.is_file()]
    assert len(files) == 3  # one shard a delivered tile


def test_nothing_else_is_left_behind_and_a_redo_changes_nothing(run):
    manifest = run.manifest_path("merge_heights")
    assert not list(run.folder.glob("**/*.tmp*"))
    before = {name: content_hash(run.folder / name) for name in ("city_dsm.tif", "city_dtm.tif", "city.zarr")}
    old = content_hash(manifest)
    job.heights(run)
    assert {name: content_hash(run.folder / name) for name in before} == before
    assert content_hash(manifest) == old
    assert {entry["name"] for entry in Manifest.read(manifest).values["products"]} == set(before)


def test_heights_above_a_geoid_are_named_in_the_file(tmp_path):
    import rasterio

    wkt = geotiff_crs_wkt("EPSG:32637", 3855)
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 300, "width": 200}
        transform = CellGrid(0, 0, 200, 300, 0.5).transform
        with rasterio.open(tmp_path / "raw.tif", "w", **profile, crs=wkt, transform=transform) as dataset:
            dataset.write(np.zeros((1, 300, 200), np.float32))
    write_cog(tmp_path / "raw.tif", tmp_path / "cog.tif", (300, 200))
    assert check_cog(tmp_path / "cog.tif") >= 1
    with rasterio.open(tmp_path / "cog.tif") as dataset:
        assert "EGM2008" in dataset.crs.to_wkt()


def test_a_height_model_that_misses_its_core_is_refused():
    grid = CellGrid(0, 0, 10, 10, 1.0)
    heights = TileHeights(grid, {"dsm": np.zeros(grid.shape)})
    with pytest.raises(DataError, match="doesn't cover its core"):
        heights.core(Box(5, 5, 15, 15))


def test_a_city_of_quarantined_tiles_is_refused(tmp_path):
    run = scene.make_run(tmp_path / "boxes", quarantined="all", pictures=False)
    with pytest.raises(DataError, match="every one is quarantined"):
        job.heights(run)
    assert len(city_tiles(run.config)) == 4
