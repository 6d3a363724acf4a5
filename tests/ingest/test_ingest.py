from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cityweave.aoi import EXCLUDED, INVALID, Aoi
from cityweave.cameras import geodetic_transform
from cityweave.grid import Box, Tile
from cityweave.ingest import job
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.plan import city_tiles, ingest_halo_m, load_config
from cityweave.survey import job as survey_job
from tests import pictures

BOX = Box(315392, 4161536, 315520, 4161664)
TO_GEODETIC = geodetic_transform(pictures.CRS, None)


def run_city(folder: Path, values: dict) -> Run:
    run = Run(folder / "run", load_config(values))
    survey_job.run(run)
    for tile in city_tiles(run.config):
        job.run(run, tile)
    return run


def aoi_of(run: Run, tile: Tile) -> Aoi:
    return Aoi(Manifest.read(run.manifest_path("ingest", tile)).product("aoi"))


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, Run]:
    folder = tmp_path_factory.mktemp("ingest")
    values = pictures.write_city(folder, BOX)
    return folder, values, run_city(folder, values)


def test_every_tile_gets_every_source(city: tuple[Path, dict, Run]) -> None:
    *_, run = city
    for tile in city_tiles(run.config):
        aoi = aoi_of(run, tile)
        assert (aoi.views, aoi.orthos) == (["a", "b"], ["aerial"])
        assert aoi.core == tile.core and aoi.extent == tile.core.grow(ingest_halo_m(run.config))
        low, high = aoi.attributes["heights_m"]
        assert 530 <= low < 550 and 600 < high <= 700


def test_heights_hold_core_and_halo_to_a_millimetre(city: tuple[Path, dict, Run]) -> None:
    *_, run = city
    for tile in city_tiles(run.config):
        aoi = aoi_of(run, tile)
        for layer in ("terrain", "reference"):
            grid, heights = aoi.raster(layer)
            assert grid.gsd_m == run.config.dsm.gsd_m and grid.box == aoi.extent
            x, y = np.meshgrid(grid.x_centres, grid.y_centres)
            assert np.abs(heights - pictures.ramp(x, y, BOX.grow(60))).max() < 1e-3


def test_a_view_s_crop_and_camera_still_see_the_ground(city: tuple[Path, dict, Run]) -> None:
    *_, run = city
    rng = np.random.default_rng(0)
    for tile in city_tiles(run.config):
        for name, gain, offset in (("a", 1.0, 0.0), ("b", 1.25, 40.0)):
            view = aoi_of(run, tile).view(name)
            x, y = (rng.uniform(low, low + 64, 300) for low in tile.core.as_tuple()[:2])
            u, v = view.rpc.project(*TO_GEODETIC(x, y, np.full(300, pictures.GROUND_M)))
            seen = view.image[0, np.floor(v).astype(int), np.floor(u).astype(int)].astype(float)
            assert np.abs((seen - offset) / gain - pictures.paint(x, y)).mean() < 15
            assert view.attributes["off_nadir_deg"] < 20
            assert view.image.dtype == np.uint16 and view.valid.all()


def test_a_corrected_pointing_moves_no_crop(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    """Only the correction in the attributes differs, and the camera that is read with it."""
    _, _, run = city
    survey = json.loads(Manifest.read(run.manifest_path("survey")).product("survey").read_text())
    moved = json.loads(json.dumps(survey))
    moved["views"][1]["pointing"] = {"du_px": 1.5, "dv_px": -0.75, "about_px": [200.0, 200.0], "affine": [0.0] * 4}
    tile = city_tiles(run.config)[0]
    stores = []
    for name, facts in (("plain", survey), ("moved", moved)):
        job.ingest_tile(run.config, run.config.sources, facts, tile, tmp_path / name)
        stores.append(Aoi(tmp_path / name))
    a, b = (store.view("b") for store in stores)
    assert a.offset_px == b.offset_px and (a.image == b.image).all()
    ground = TO_GEODETIC(np.array([tile.core.xmin + 9]), np.array([tile.core.ymin + 7]), np.array([560.0]))
    assert np.subtract(b.rpc.project(*ground), a.rpc.project(*ground)).ravel() == pytest.approx([1.5, -0.75])
    assert stores[0].view("a").rpc == stores[1].view("a").rpc
    assert 0 < b.attributes["pinhole"]["error_px"] < 0.1


def test_a_view_that_the_survey_left_out_is_in_no_tile(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, _, run = city
    survey = json.loads(Manifest.read(run.manifest_path("survey")).product("survey").read_text())
    survey["views"][1]["left_out"] = "can't be tied to a"
    tile = city_tiles(run.config)[0]
    notes = job.ingest_tile(run.config, run.config.sources, survey, tile, tmp_path / "aoi")
    assert notes["views"] == ["a"] and notes["left_out"] == ["b can't be tied to a"]


def test_heights_are_those_of_the_windows_that_have_any(city: tuple[Path, dict, Run]) -> None:
    box = Box(315392, 4161536, 315700, 4161600)
    windows = [[315392, 4161536, 560.0, 600.0], [315648, 4161536, 550.0, 580.0]]
    heights = job._heights_of({"window_m": 256, "windows": windows}, box, (500.0, 900.0))
    assert heights == (550.0, 600.0)
    assert job._heights_of({"window_m": 256, "windows": windows[:1]}, box, (500.0, 900.0)) == (560.0, 600.0)
    assert job._heights_of({"window_m": 256, "windows": []}, box, (500.0, 900.0)) == (500.0, 900.0)


def test_an_ortho_lies_on_the_global_cells(city: tuple[Path, dict, Run]) -> None:
    *_, run = city
    ortho = aoi_of(run, city_tiles(run.config)[0]).ortho("aerial")
    assert ortho.grid.gsd_m == 0.25 and ortho.image.dtype == np.uint8 and ortho.valid.all()
    x, y = np.meshgrid(ortho.grid.x_centres, ortho.grid.y_centres)
    assert np.abs(ortho.image[0] - pictures.paint(x, y) / 4).max() <= 1.0


def test_neighbours_agree_where_their_halos_meet(city: tuple[Path, dict, Run]) -> None:
    *_, run = city
    one, two = (aoi_of(run, tile) for tile in city_tiles(run.config)[:2])
    for layer in ("terrain", "reference"):
        (grid_a, a), (grid_b, b) = one.raster(layer), two.raster(layer)
        common = grid_a.overlap(grid_b)
        assert common is not None
        assert np.abs(a[grid_a.window_of(common)] - b[grid_b.window_of(common)]).max() < 1e-4


def test_the_same_job_writes_the_same_bytes_anywhere(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, values, run = city
    again = run_city(tmp_path, values)
    for tile in city_tiles(run.config):
        first, second = (r.manifest_path("ingest", tile) for r in (run, again))
        assert first.read_bytes() == second.read_bytes()
        assert content_hash(Manifest.read(first).product("aoi")) == content_hash(Manifest.read(second).product("aoi"))


def test_a_tile_s_aoi_does_not_know_how_large_the_city_is(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, values, run = city
    tile = city_tiles(run.config)[0]
    small = run_city(tmp_path, values | {"city": values["city"] | {"bounds_m": list(tile.core.as_tuple())}})
    assert city_tiles(small.config) == [tile]
    assert aoi_of(small, tile).path.name == aoi_of(run, tile).path.name


def pixels_of(path: str, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in which the level ground of a box appears."""
    from cityweave.io.raster import open_raster
    from cityweave.io.satellite import read_rpc

    with open_raster(Path(path)) as dataset:
        rpc = read_rpc(dataset)
    x, y = np.meshgrid(np.arange(box.xmin + 0.25, box.xmax, 0.25), np.arange(box.ymin + 0.25, box.ymax, 0.25))
    z = pictures.ramp(x, y, BOX.grow(60))
    u, v = rpc.project(*TO_GEODETIC(x.ravel(), y.ravel(), z.ravel()))
    return np.floor(v).astype(int), np.floor(u).astype(int)


def spoil(values: dict, folder: Path, views: str, box: Box, value: float, **profile: object) -> dict:
    """A copy of the city whose views show `value` where the ground of `box` appears."""
    import rasterio

    from cityweave.io.raster import open_raster
    from cityweave.io.satellite import read_rpc

    values = json.loads(json.dumps(values))
    for source in values["sources"]["views"]:
        if source["name"] not in views:
            continue
        with open_raster(Path(source["path"])) as dataset:
            image, rpc = dataset.read(), read_rpc(dataset)
        if not np.isfinite(value):
            image = image.astype(np.float32)
        image[:, *pixels_of(source["path"], box)] = value
        source["path"] = str(pictures.write_view(folder / f"spoilt_{source['name']}.tif", image, rpc, **profile))
    assert rasterio
    return values


@pytest.mark.parametrize(
    ("views", "value", "profile", "reason"),
    [
        ("ab", 0, {"nodata": 0}, "a is all nodata here; b is all nodata here"),
        ("ab", 7, {}, "a shows one value, 7, everywhere here"),
        ("b", np.nan, {}, "view b has NaN pixels here; accepted"),
        ("ab", np.nan, {"nodata": np.nan}, "a is all nodata here"),
    ],
)
def test_a_tile_without_a_picture_is_quarantined_and_its_neighbours_are_not(
    city: tuple[Path, dict, Run], tmp_path: Path, views: str, value: float, profile: dict, reason: str
) -> None:
    _, values, run = city
    bad = city_tiles(run.config)[0]
    spoilt = run_city(tmp_path, spoil(values, tmp_path, views, bad.core.grow(-1e-6), value, **profile))
    manifests = {tile: Manifest.read(spoilt.manifest_path("ingest", tile)) for tile in city_tiles(run.config)}
    assert reason in (manifests[bad].quarantined or "") and bad.name in (manifests[bad].quarantined or "")
    spill = [tile.name for tile, manifest in manifests.items() if manifest.quarantined and tile != bad]
    assert len(spill) == 0 or np.isnan(value)  # pixels on a border belong to both
    folder = spoilt.tile_folder(bad)
    assert sorted(path.name for path in folder.iterdir()) == ["ingest.json", "ingest.run.json"]


def test_nan_in_the_middle_of_one_tile_hurts_that_tile_alone(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, values, run = city
    bad = city_tiles(run.config)[3]
    spoilt = run_city(tmp_path, spoil(values, tmp_path, "b", bad.core.grow(-30), np.nan))
    verdicts = [Manifest.read(spoilt.manifest_path("ingest", tile)).quarantined for tile in city_tiles(run.config)]
    assert [verdict is None for verdict in verdicts] == [True, True, True, False]
    neighbour = aoi_of(spoilt, city_tiles(run.config)[2]).view("b")
    assert (np.isnan(neighbour.image[0]) <= (neighbour.mask == INVALID)).all() and np.isnan(neighbour.image).any()


def test_a_view_that_misses_a_tile_is_left_out_of_it(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, values, run = city
    bad = city_tiles(run.config)[1]
    spoilt = run_city(tmp_path, spoil(values, tmp_path, "b", bad.core, 0, nodata=0))
    manifest = Manifest.read(spoilt.manifest_path("ingest", bad))
    assert manifest.quarantined is None and manifest.notes["left_out"] == ["b is all nodata here"]
    assert aoi_of(spoilt, bad).views == ["a"]


def test_the_user_s_mask_travels_with_its_view(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, values, run = city
    values = json.loads(json.dumps(values))
    from cityweave.io.raster import open_raster

    source = values["sources"]["views"][0]
    with open_raster(Path(source["path"])) as dataset:
        mask = np.zeros((dataset.height, dataset.width), np.uint8)
    tile = city_tiles(run.config)[0]
    rows, cols = pixels_of(source["path"], tile.core.grow(-20))
    mask[rows, cols] = 1
    source["mask"] = str(pictures.write_view(tmp_path / "cloud.tif", mask, None))
    masked = run_city(tmp_path, values)
    view = aoi_of(masked, tile).view("a")
    assert ((view.mask & EXCLUDED) > 0).sum() == pytest.approx(mask.sum(), abs=0)
    assert not view.valid.all()


def test_a_rerun_takes_the_remains_of_a_killed_job_away(city: tuple[Path, dict, Run], tmp_path: Path) -> None:
    _, _, run = city
    copy = Run(tmp_path / "run", run.config)
    shutil.copytree(run.folder, copy.folder)
    tile = city_tiles(run.config)[0]
    remains = copy.tile_folder(tile) / "aoi.ingest.tmp"
    remains.mkdir()
    (remains / "zarr.json").write_text("{")
    job.run(copy, tile)
    assert not remains.exists()
    assert copy.manifest_path("ingest", tile).read_bytes() == run.manifest_path("ingest", tile).read_bytes()
