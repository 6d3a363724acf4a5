"""Training data: made once, checked, never shared between training and validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cityweave.aoi import INVALID, Aoi, AoiWriter, compound_crs_wkt
from cityweave.errors import ConfigError, DataError, Quarantine
from cityweave.grid import Box, CellGrid, Tile
from cityweave.io.resample import area_mean, picture_of
from cityweave.manifest import Products, Run, run_job
from cityweave.plan import city_tiles, load_config
from cityweave.train.cities import city_of_aoi, sources
from cityweave.train.data import Change, Sampler, lattice
from cityweave.train.packs import make_data, open_data
from cityweave.train.recipe import DataSettings
from cityweave.train.settings import validated

SMALL = {
    "train": {"synthetic": [{"first_seed": 1000, "count": 1, "side_m": 64}]},
    "validation": {"synthetic": [{"first_seed": 9000, "count": 1, "side_m": 64}]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataSettings:
    settings = DataSettings.model_validate({"folder": tmp_path_factory.mktemp("data"), **SMALL})
    make_data(settings)
    return settings


def test_synthetic_city(made: DataSettings) -> None:
    data = open_data(made, thorough=True)
    (pack,) = data.train
    assert pack.rgb.shape == (3, 128, 128) and pack.rgb.dtype == np.uint8
    assert pack.valid.all()
    assert pack.height_m.min() > -0.1 and pack.height_m.max() > 3
    assert data.mean_height_m == pytest.approx(float(pack.height_m.mean()), abs=1e-5)
    assert pack.rgb.std() > 10


def test_made_once(made: DataSettings) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.npy")}
    digest = open_data(made).digest
    make_data(made)
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.npy")} == before
    assert open_data(made).digest == digest


def test_made_anew_where_damaged(made: DataSettings) -> None:
    path = made.folder / "train/synthetic-1000/height_m.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert open_data(made).train, "the size is right: only a thorough look tells"
    with pytest.raises(DataError, match=r"height_m\.npy has another checksum; make it again"):
        open_data(made, thorough=True)
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match="bytes, not"):
        open_data(made)
    make_data(made)
    assert path.read_bytes() == good


def test_other_recipe_is_refused(made: DataSettings) -> None:
    other = made.model_copy(update={"gsd_m": 1.0})
    for call in (make_data, open_data):
        with pytest.raises(ConfigError, match=r"data\.gsd_m: 0\.5 -> 1\.0"):
            call(other)


def test_weight_may_change(made: DataSettings) -> None:
    values = json.loads(made.model_dump_json())
    values["train"]["synthetic"][0]["weight"] = 3.0
    again = open_data(DataSettings.model_validate(values))
    assert again.train[0].weight == 3.0
    assert again.digest == open_data(made).digest


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cityweave train data"):
        open_data(DataSettings.model_validate({"folder": tmp_path, **SMALL}))


def test_seeds_stay_apart(tmp_path: Path) -> None:
    values: dict[str, Any] = {"folder": tmp_path, **SMALL}
    values["validation"] = {"synthetic": [{"first_seed": 999, "count": 2}]}
    with pytest.raises(ConfigError, match=r"\[1000\] are in train and in validation"):
        validated(DataSettings, values, "test")


def test_cities_differ(made: DataSettings) -> None:
    settings = made.model_copy(update={"train": made.train.model_copy(update={"synthetic": ()})})
    assert not list(sources(settings, "train"))
    (validation,) = sources(made, "validation")
    (train,) = sources(made, "train")
    assert train.recipe["sun_azimuth_deg"] != validation.recipe["sun_azimuth_deg"]


# From the AOI of a run.


def aoi_with(path: Path, rgb: np.ndarray, gsd_m: float, mask: np.ndarray | None = None, **heights: np.ndarray) -> Aoi:
    tile = Tile(10, 20, 32)
    extent = tile.core.grow(4.0)
    wkt = compound_crs_wkt("EPSG:32637", None)
    with AoiWriter(path, tile, crs_wkt=wkt, vertical="ellipsoid", halo_m=4.0, z0_m=0.0) as writer:
        writer.add_ortho("photo", rgb, CellGrid.covering(extent, gsd_m), mask=mask)
        for layer, values in heights.items():
            writer.add_raster(layer, values, CellGrid.covering(extent, 0.5))
    return Aoi(path)


def test_city_of_an_aoi(tmp_path: Path) -> None:
    """A 0.25 m photo on 0.5 m cells; height is reference minus terrain; what is unknown on either side is no sample."""
    rgb = np.zeros((3, 160, 160), np.uint8)
    rgb[:, :, 80:] = 200
    mask = np.zeros((160, 160), np.uint8)
    mask[:2, :2] = INVALID
    terrain = np.full((80, 80), 100.0, np.float32)
    reference = terrain.copy()
    reference[:, 40:] += 12.0
    reference[-1, -1] = np.nan
    aoi = aoi_with(tmp_path / "aoi.zarr", rgb, 0.25, mask, terrain=terrain, reference=reference)
    city = city_of_aoi(aoi, "photo", 0.5)
    assert city.rgb.shape == (3, 80, 80) and city.white == 255.0
    assert (city.rgb[:, 1:, :40] == 0).all() and (city.rgb[:, :, 40:] == 200).all()
    assert (city.rgb[:, 0, 0] == 100).all()  # not known: as bright as the rest
    assert (city.height_m[1:-1, :40] == 0).all() and (city.height_m[1:-1, 40:] == 12).all()
    assert not city.valid[0, 0] and not city.valid[-1, -1]
    assert city.valid.sum() == 80 * 80 - 2


def test_tiles_of_a_run(tmp_path: Path, city_values: dict[str, Any]) -> None:
    """Through manifests and checksums, as a run leaves them; a quarantined tile is no city."""
    run = Run(tmp_path / "results/test", load_config(city_values))
    write_json_at(run.folder / "config.json", run.config.model_dump(mode="json"))
    tiles = city_tiles(run.config)[:3]
    rng = np.random.default_rng(0)

    def work(products: Products) -> None:
        with products.path("aoi", ".zarr") as path:
            flat = np.zeros((80, 80), np.float32)
            rgb = rng.integers(0, 255, (3, 160, 160)).astype(np.uint8)
            aoi_with(path, rgb, 0.25, terrain=flat, reference=flat + 5)

    def nothing(products: Products) -> None:
        raise Quarantine("no view")

    for tile, each in zip(tiles, (work, work, nothing), strict=True):
        run_job(run, "ingest", each, tile=tile)
    values = {"folder": tmp_path / "data", **SMALL, "train": {"runs": [{"run": run.folder, "weight": 2.0}]}}
    settings = DataSettings.model_validate(values)
    make_data(settings)
    data = open_data(settings, thorough=True)
    assert [pack.name for pack in data.train] == [f"test-{tile.name}" for tile in sorted(tiles[:2], key=name_of)]
    assert data.mean_height_m == 5.0 and data.train[0].weight == 2.0
    with pytest.raises(ConfigError, match="no tile has other, reference and terrain"):
        values["train"] = {"runs": [{"run": run.folder, "ortho": "other"}]}
        list(sources(DataSettings.model_validate(values), "train"))


def test_a_city_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    group = {"first_seed": 1000, "count": 2, "side_m": 64}
    values = {"folder": tmp_path, **SMALL, "train": {"synthetic": [group, group | {"first_seed": 1001}]}}
    with pytest.raises(ConfigError, match=r"data\.train holds synthetic-1001 twice"):
        make_data(DataSettings.model_validate(values))


def test_pictures_and_models_are_in_one_split_alone(tmp_path: Path) -> None:
    model = {"model": "a.city.json", "crs": "EPSG:28992", "bounds_m": [0, 0, 100, 100], "seed": 1}
    picture = {"name": "a", "picture": "a.tif", "above": "b.tif"}
    for split in ({"models": [model]}, {"pictures": [picture]}):
        other = {
            kind: [entries[0] | ({"seed": 2} if kind == "models" else {"name": "b"})] for kind, entries in split.items()
        }
        with pytest.raises(ValueError, match=r"a\.(city\.json|tif).* is in train and in validation"):
            DataSettings.model_validate({"folder": tmp_path, "train": split, "validation": other})


def name_of(tile: Tile) -> str:
    return tile.name


def write_json_at(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(values))


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(200, 1800, (1, 80, 80)).astype(np.uint16)
    flat = np.zeros((80, 80), np.float32)
    city = city_of_aoi(aoi_with(tmp_path / "aoi.zarr", grey, 0.5, terrain=flat, reference=flat), "photo", 0.5)
    assert city.rgb.shape == (3, 80, 80) and (city.rgb[0] == city.rgb[2]).all()
    assert 1700 < city.white <= 1800
    np.testing.assert_allclose(city.rgb[0], grey[0], rtol=1e-6)


def test_bands() -> None:
    assert picture_of(np.zeros((4, 2, 2)), "x").shape == (3, 2, 2)
    with pytest.raises(DataError, match="x has 2 bands; accepted: 1"):
        picture_of(np.zeros((2, 2, 2)), "x")


def test_area_mean_keeps_sums() -> None:
    rng = np.random.default_rng(1)
    own = CellGrid.covering(Box(0, 0, 30, 15), 0.3)
    grid = CellGrid.covering(Box(3, 3, 27, 12), 0.5)
    values = rng.random((2, *own.shape))
    mean = area_mean(values, own, grid)
    assert mean.shape == (2, *grid.shape)
    # 3 m to 27 m are cells 10 to 90 of 0.3 m; rows from the north.
    inner = values[:, 10:40, 10:90]
    np.testing.assert_allclose(mean.sum(axis=(1, 2)) * 0.25, inner.sum(axis=(1, 2)) * 0.09)
    np.testing.assert_allclose(mean[:, 0, 0], (values[:, 10:12, 10:12] * _corner()).sum(axis=(1, 2)) / 0.25, rtol=1e-9)


def _corner() -> np.ndarray:
    """Shares of 2 x 2 cells of 0.3 m in a cell of 0.5 m at their corner, in square metres."""
    side = np.array([0.3, 0.2])
    return np.outer(side, side)


# Windows.


def test_draws_depend_on_their_generator_alone(values: dict[str, Any]) -> None:
    from cityweave.train.data import WindowData

    packs = open_data(WindowData.model_validate(values["data"])).train
    sampler = Sampler(packs, 32, Change())
    first = sampler.draw(np.random.default_rng([1, 2]), 3)
    sampler.draw(np.random.default_rng([5]), 2)
    again = sampler.draw(np.random.default_rng([1, 2]), 3)
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    other = sampler.draw(np.random.default_rng([1, 3]), 3)
    assert not np.array_equal(first.rgb, other.rgb)


def test_picture_and_height_turn_together(values: dict[str, Any]) -> None:
    from cityweave.train.data import WindowData

    packs = open_data(WindowData.model_validate(values["data"])).train
    windows = Sampler(packs, 32, Change(0, 0, 0)).draw(np.random.default_rng(4), 16)
    grey = (windows.rgb.mean(axis=1) + 1) * 127.5
    expected = np.clip(40 + 6 * windows.height_m, 0, 255)
    assert np.abs(grey - expected).mean() < 4


def test_what_is_not_turned_has_north_where_it_was(values: dict[str, Any]) -> None:
    """Mirrored left and right at most, so the sun stays in the south."""
    from cityweave.train.data import WindowData

    packs = open_data(WindowData.model_validate(values["data"])).train
    windows = Sampler(packs, 32, Change(turn=False)).draw(np.random.default_rng(4), 16)
    places = [np.lib.stride_tricks.sliding_window_view(pack.height_m, (32, 32)).reshape(-1, 32, 32) for pack in packs]
    every = np.concatenate(places)
    as_cut, mirrored = (
        [bool((every == height[:, ::way]).all(axis=(1, 2)).any()) for height in windows.height_m] for way in (1, -1)
    )
    assert all(a or b for a, b in zip(as_cut, mirrored, strict=True))
    assert 2 <= sum(mirrored) <= 14


def test_lattice_covers_each_window_once(values: dict[str, Any]) -> None:
    from cityweave.train.data import WindowData

    packs = open_data(WindowData.model_validate(values["data"])).validation
    batches = list(lattice(packs, 32, 100, 4))
    assert [len(batch.rgb) for batch in batches] == [4, 4, 1]
    whole = np.concatenate([batch.height_m for batch in batches]).sum()
    assert whole == pytest.approx(float(packs[0].height_m.sum()), rel=1e-5)
    assert sum(len(batch.rgb) for batch in lattice(packs, 32, 5, 4)) == 5
    with pytest.raises(ConfigError, match=r"window of 128 px doesn't fit into boxes-9 \(96 x 96 px\)"):
        list(lattice(packs, 128, 5, 4))
