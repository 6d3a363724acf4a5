from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from cityweave.aoi import EXCLUDED, INVALID, SATURATED, Aoi, AoiWriter, compound_crs_wkt, rpc_from_json, rpc_to_json
from cityweave.cameras import RPC, Correction
from cityweave.errors import DataError
from cityweave.grid import CellGrid, Tile
from cityweave.manifest import content_hash

TILE = Tile(4928, 65024, 64)
GRID = CellGrid.covering(TILE.core.grow(28), 0.5)
FINE = CellGrid.covering(TILE.core.grow(28), 0.2)


def any_rpc(seed: int = 0) -> RPC:
    rng = np.random.default_rng(seed)
    lists = {name: tuple(rng.normal(size=20).tolist()) for name in ("line_num", "line_den", "samp_num", "samp_den")}
    names = ["line", "samp", "lat", "long", "height"]
    single = {f"{name}_{part}": float(rng.normal()) for name in names for part in ("off", "scale")}
    return RPC(**lists, **single)


def write(path: Path) -> None:
    rng = np.random.default_rng(1)
    view = rng.integers(0, 4096, (1, 700, 560)).astype(np.uint16)
    mask = np.zeros(view.shape[1:], np.uint8)
    mask[:, :3], mask[:5], mask[9, 9] = SATURATED, INVALID, EXCLUDED
    heights = rng.normal(550, 9, GRID.shape).astype(np.float32)
    heights[3, 4] = np.nan
    wkt = compound_crs_wkt("EPSG:32637", None)
    with AoiWriter(path, TILE, crs_wkt=wkt, vertical="ellipsoid", halo_m=28, z0_m=540, attributes={"n": 1}) as aoi:
        aoi.add_view("v1", view, any_rpc(), (12, 34), mask=mask, nodata=0, saturation=4095, attributes={"sun": 62.5})
        aoi.add_view("a0", view[:, :100, :90].astype(np.float32), any_rpc(1), (0, 0), nodata=float("nan"))
        aoi.add_ortho("aerial", rng.integers(0, 256, (3, *FINE.shape)).astype(np.uint8), FINE, nodata=255)
        aoi.add_raster("terrain", heights, GRID)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("aoi") / "one.zarr"
    write(path)
    return path


def test_what_was_written_comes_back(stored: Path) -> None:
    aoi = Aoi(stored)
    assert (aoi.views, aoi.orthos, aoi.has("terrain"), aoi.has("reference")) == (["a0", "v1"], ["aerial"], True, False)
    assert (aoi.core, aoi.extent, aoi.z0_m) == (TILE.core, TILE.core.grow(28), 540)
    rng = np.random.default_rng(1)
    view = aoi.view("v1")
    assert (view.image == rng.integers(0, 4096, (1, 700, 560))).all() and view.image.dtype == np.uint16
    assert view.rpc == any_rpc()  # to the last bit
    assert (view.offset_px, view.nodata, view.saturation, view.attributes) == ((12, 34), 0.0, 4095.0, {"sun": 62.5})
    assert view.valid.sum() == 695 * 560 - 1 and view.valid[5:, 0].all()  # saturated pixels are valid
    assert np.isnan(aoi.view("a0").nodata or 0)
    grid, heights = aoi.raster("terrain")
    expected = rng.normal(550, 9, GRID.shape).astype(np.float32)
    assert grid == GRID and np.isnan(heights[3, 4]) and np.isnan(heights).sum() == 1
    assert (heights == expected)[~np.isnan(heights)].all()
    ortho = aoi.ortho("aerial")
    assert ortho.grid == FINE and ortho.image.shape == (3, *FINE.shape) and ortho.valid.all()


def test_the_same_content_is_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere.zarr")
    assert content_hash(tmp_path / "elsewhere.zarr") == content_hash(stored)


def test_an_array_is_one_file(stored: Path) -> None:
    for data in stored.rglob("data"):
        assert sum(file.is_file() and file.name != "zarr.json" for file in data.rglob("*")) == 1


@pytest.mark.parametrize("options", [{}, {"decode_coords": "all"}])
@pytest.mark.parametrize("layer", ["terrain", "ortho/aerial"])
def test_plain_xarray_opens_a_layer_and_rioxarray_knows_where_it_is(stored: Path, layer: str, options: dict) -> None:
    import rioxarray  # noqa: F401
    import xarray

    dataset = xarray.open_zarr(stored, group=layer, **options)
    grid = GRID if layer == "terrain" else FINE
    for place in (dataset.rio, dataset["data"].rio):
        assert (
            place.crs.to_wkt().startswith("PROJCRS")
            and len(place.crs.to_dict(projjson=True)["coordinate_system"]["axis"]) == 3
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)  # rioxarray multiplies affines the old way
            assert np.allclose(place.bounds(), grid.box.as_tuple(), atol=1e-6)
            assert tuple(place.transform()) == pytest.approx(tuple(grid.transform))
    assert dataset["data"].dims[-2:] == ("y", "x")
    assert (dataset["y"].values == grid.y_centres).all()


def test_plain_xarray_opens_a_view(stored: Path) -> None:
    import xarray

    view = xarray.open_zarr(stored, group="views/v1")
    assert view["data"].dims == ("band", "row", "col") and view["data"].dtype == np.uint16
    assert view.attrs["offset_px"] == [12, 34]
    mask = xarray.open_zarr(stored, group="mask/v1")
    assert mask["data"].dims == ("row", "col")


def test_reading_loads_no_xarray(stored: Path) -> None:
    code = (
        f"import sys; from pathlib import Path; from cityweave.aoi import Aoi; a = Aoi(Path({str(stored)!r}))\n"
        "assert 'zarr' not in sys.modules; a.view('v1')\n"
        "assert not {'xarray', 'rasterio', 'pyproj', 'dask', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_compound_crs_names_both_references() -> None:
    from pyproj import CRS

    above_geoid = CRS.from_wkt(compound_crs_wkt("EPSG:28992", 5709))
    assert above_geoid.is_compound and above_geoid.sub_crs_list[1].to_epsg() == 5709
    assert len(CRS.from_wkt(compound_crs_wkt("EPSG:32637", None)).axis_info) == 3


def test_rpc_as_json_is_exact() -> None:
    import json

    for seed in range(20):
        assert rpc_from_json(json.loads(json.dumps(rpc_to_json(any_rpc(seed))))) == any_rpc(seed)


def test_wrong_layers_are_refused(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="already there"):
        write(stored)
    with pytest.raises(DataError, match="rerun the tile's ingest"):
        Aoi(tmp_path)
    with pytest.raises(DataError, match=r"has no layer 'reference'; it has terrain"):
        Aoi(stored).raster("reference")
    with pytest.raises(DataError, match=r"has no views/x; it has a0, v1"):
        Aoi(stored).view("x")
    image = np.zeros((1, 4, 4), np.uint8)
    with AoiWriter(tmp_path / "new.zarr", TILE, crs_wkt="", vertical="ellipsoid", halo_m=1, z0_m=0) as aoi:
        aoi.add_view("one", image, any_rpc(), (0, 0))
        with pytest.raises(DataError, match="two layers"):
            aoi.add_ortho("one", image, CellGrid(0, 0, 4, 4, 1))
        with pytest.raises(DataError, match="letters, digits"):
            aoi.add_view("../x", image, any_rpc(), (0, 0))
        with pytest.raises(DataError, match=r"\(band, row, col\)"):
            aoi.add_view("flat", image[0], any_rpc(), (0, 0))
        with pytest.raises(DataError, match="shape"):
            aoi.add_raster("terrain", image[0], GRID)
        with pytest.raises(DataError, match="height layers"):
            aoi.add_raster("dsm", image[0], CellGrid(0, 0, 4, 4, 1))


def test_a_correction_is_stored_beside_the_vendor_s_camera(tmp_path: Path) -> None:
    import json

    corrected = any_rpc().corrected(Correction(1.058, -0.27, (488.0, 466.0), (0.0, 1e-6, 0.0, 2e-6)))
    with AoiWriter(tmp_path / "a", TILE, crs_wkt="", vertical="ellipsoid", halo_m=28, z0_m=540) as aoi:
        aoi.add_view("v1", np.ones((1, 8, 9), np.uint16), corrected, (12, 34))
    attributes = json.loads((tmp_path / "a" / "views" / "v1" / "zarr.json").read_text())["attributes"]
    assert rpc_from_json(attributes["rpc"]) == any_rpc() and attributes["pointing"]["du_px"] == 1.058
    view = Aoi(tmp_path / "a").view("v1")
    assert view.rpc == corrected and "pointing" not in view.attributes
