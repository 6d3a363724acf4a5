"""Pictures of windows out of several tiles' stores: what is known of them, whatever the picture is like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="make setup EXTRAS=models")

from cityweave.aoi import INVALID, TERRAIN, Aoi, AoiWriter, compound_crs_wkt
from cityweave.cityscale.job import (
    PictureLayer,
    _fit_shadows,
    _predict,
    picture_in,
    picture_layer,
    sun_side,
    terrain_in,
)
from cityweave.cityscale.shadows import Sun
from cityweave.cityscale.weights import require_cityscale
from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid, Tile
from cityweave.io.predictions import Prediction
from cityweave.lattice import Window
from cityweave.manifest import Run
from cityweave.plan import load_config
from tests.cityscale.tiny import small_weights

WEST, EAST = Tile(0, 0, 64), Tile(1, 0, 64)
WINDOW = Window(0, 0, 256, 0.5)  # both tiles, and as much north of them


def store(path: Path, tile: Tile, value: Any, dtype: type = np.uint8, bands: int = 3, gsd_m: float = 0.5, **more):  # type: ignore[no-untyped-def]
    grid = CellGrid.covering(tile.core.grow(8), gsd_m)
    image = np.full((bands, *grid.shape), value, dtype)
    wkt = compound_crs_wkt("EPSG:32637", None)
    with AoiWriter(path, tile, crs_wkt=wkt, vertical="ellipsoid", halo_m=8.0, z0_m=0.0) as writer:
        writer.add_ortho("photo", image, grid, **more)
    return Aoi(path)


def layers(aois: list[Aoi], ortho: str | None = None) -> list[PictureLayer]:
    return [layer for aoi in aois if (layer := picture_layer(aoi, ortho))]


def test_a_window_is_put_together_of_its_tiles(tmp_path: Path) -> None:
    aois = [store(tmp_path / "w", WEST, 0), store(tmp_path / "e", EAST, 255)]
    picture, seen = picture_in(layers(aois), WINDOW.grid)
    assert picture.dtype == np.float32 and picture.shape == (3, 256, 256)
    assert seen[-128:].all() and not seen[:100].any()  # north is up: the tiles are the lower half
    assert (picture[:, -128:, :100] == -1).all() and (picture[:, -128:, -100:] == 1).all()
    first = int(seen[:, 0].argmax())
    assert (picture[:, :first] == picture[:, 2 * first : first : -1]).all()  # the rest is as in a mirror


@pytest.mark.parametrize(("dtype", "bands"), [(np.uint8, 1), (np.uint8, 4), (np.uint16, 3), (np.uint16, 1)])
def test_grey_four_bands_and_sixteen_bit(tmp_path: Path, dtype: type, bands: int) -> None:
    attributes = {"black_white": [200.0, 1200.0]} if dtype == np.uint16 else {}
    value = 700 if dtype == np.uint16 else 51
    aoi = store(tmp_path / "a", WEST, value, dtype, bands, attributes=attributes)
    picture, seen = picture_in(layers([aoi], "photo"), Window(0, 0, 128, 0.5).grid)
    assert seen.all() and picture.shape == (3, 128, 128)
    assert np.allclose(picture, 0.0 if dtype == np.uint16 else -0.6, atol=1e-5)


def test_finer_cells_are_averaged_and_coarser_ones_refused(tmp_path: Path) -> None:
    grid = Window(0, 0, 128, 0.5).grid
    picture, _ = picture_in(layers([store(tmp_path / "fine", WEST, 51, gsd_m=0.2)]), grid)
    assert np.allclose(picture, -0.6, atol=1e-5)
    with pytest.raises(DataError, match=r"has cells of 1 m, the network was trained at 0.5 m; accepted: up to 0.75 m"):
        picture_in(layers([store(tmp_path / "coarse", WEST, 51, gsd_m=1.0)]), grid)


def test_a_tile_that_the_wanted_picture_does_not_show(tmp_path: Path) -> None:
    """Beside it another picture shows it: that isn't the one that was asked for, and no error either."""
    assert picture_layer(store(tmp_path / "a", WEST, 1), "other") is None
    aois = [store(tmp_path / "w", WEST, 0), store(tmp_path / "e", EAST, 255)]
    _, seen = picture_in(layers(aois, "other"), WINDOW.grid)
    assert not seen.any()


def test_a_window_sees_of_a_large_picture_what_it_covers(tmp_path: Path) -> None:
    """Cut before it is averaged: the same as the whole."""
    rng = np.random.default_rng(0)
    side = CellGrid.covering(WEST.core.grow(8), 0.2).rows
    aoi = store(tmp_path / "a", WEST, rng.integers(0, 256, (3, side, side), dtype=np.uint8), gsd_m=0.2)
    large, _ = picture_in(layers([aoi]), Window(0, 0, 128, 0.5).grid)
    small, seen = picture_in(layers([aoi]), Window(0, 0, 64, 0.5).grid)
    assert seen.all() and np.array_equal(small, large[:, -64:, :64])


def test_a_window_that_shows_nothing_is_left_out_and_said(tmp_path: Path, city_values: dict) -> None:
    weights = small_weights(tmp_path / "w.safetensors")
    city_values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    config = load_config(city_values | {"dsm": {"method": "fused"}, "cityscale": {"weights": str(weights)}})
    run = Run(tmp_path / "run", config)
    grid = CellGrid.covering(WEST.core.grow(8), 0.5)
    half = np.zeros(grid.shape, np.uint8)
    half[:, :100] = INVALID
    aoi = store(tmp_path / "half", WEST, 90, mask=half)
    windows = [Window(0, 0, 128, 0.5), Window(8, 0, 128, 0.5)]
    predicted, left_out = _predict(run, windows, layers([aoi]), 0.5)
    assert left_out == ["8,0: the picture shows nothing of it"]
    (only,) = predicted
    assert np.isnan(only.metres[:, :80]).all() and np.isfinite(only.metres[:, 90:]).all()
    assert _predict(run, windows[1:], layers([aoi]), 0.5)[0] == []


@pytest.mark.parametrize("knows", ["south", "anywhere"])
@pytest.mark.parametrize("azimuth", [130.0, 350.0])
def test_pictures_are_turned_over_for_a_network_that_knows_the_sun_in_the_south(
    tmp_path: Path, city_values: dict, monkeypatch: pytest.MonkeyPatch, knows: str, azimuth: float
) -> None:
    seen = []

    class Echo:
        """Says how bright it is."""

        def heights(self, picture: np.ndarray, noise: object, samples: int) -> tuple[np.ndarray, np.ndarray]:
            seen.append(picture)
            return picture[0], picture[1]

    Echo.sun = knows  # type: ignore[attr-defined]
    monkeypatch.setattr("cityweave.cityscale.predict.open_predictor", lambda *_: Echo())
    city_values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    run = Run(
        tmp_path / "run",
        load_config(city_values | {"dsm": {"method": "fused"}, "cityscale": {"sun_azimuth_deg": azimuth}}),
    )
    rows = CellGrid.covering(WEST.core.grow(8), 0.5).rows
    aoi = store(tmp_path / "a", WEST, np.arange(rows, dtype=np.uint8)[:, None])
    window = Window(0, 0, 128, 0.5)
    (predicted,), _ = _predict(run, [window], layers([aoi]), 0.5)
    picture, _ = picture_in(layers([aoi]), window.grid)
    assert np.array_equal(predicted.metres, picture[0]) and np.array_equal(predicted.sigma, picture[1])
    assert np.array_equal(seen[0], picture[:, ::-1] if (knows, azimuth) == ("south", 350.0) else picture)


def test_where_the_sun_stands_by_the_latitude(city_values: dict) -> None:
    config, box = load_config(city_values), WINDOW.grid.box
    assert sun_side(config, box) == "south"
    southern = load_config(city_values | {"city": city_values["city"] | {"crs": "EPSG:32737"}})
    at_capetown = Box(500_000, 6_240_000, 500_100, 6_240_100)
    assert sun_side(southern, at_capetown) == "north"
    told = load_config(city_values | {"cityscale": {"sun_azimuth_deg": 120}})
    assert sun_side(told, at_capetown) == "south"


def test_shadows_are_read_in_all_windows_of_a_job_together(
    tmp_path: Path, city_values: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def factors(
        metres: np.ndarray, picture: np.ndarray, known: np.ndarray, sun: Sun, gsd_m: float, ground: np.ndarray | None
    ) -> np.ndarray:
        asked.append((metres.shape, picture.shape, bool(known.any()), sun, gsd_m, ground))
        return np.arange(metres.size, dtype=np.float32).reshape(metres.shape)

    monkeypatch.setattr("cityweave.cityscale.shadows.shadow_factors", factors)
    weights = small_weights(tmp_path / "w.safetensors")
    city_values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    values = city_values | {"dsm": {"method": "fused"}}
    windows = [Window(0, 0, 128, 0.5), Window(1, 0, 128, 0.5)]
    aoi = store(tmp_path / "a", WEST, 90)
    found = []
    for sun in ({}, {"sun_azimuth_deg": 130, "sun_elevation_deg": 40}):
        run = Run(tmp_path / "run", load_config(values | {"cityscale": {"weights": str(weights)} | sun}))
        predicted, _ = _predict(run, windows, layers([aoi]), 0.5)
        predicted, notes = _fit_shadows(run, predicted, layers([aoi]), [aoi])
        assert notes == ({"shadows": "heights fitted to them"} if sun else {})
        found.append(predicted)
    assert asked == [((128, 192), (3, 128, 192), True, Sun(130, 40), 0.5, None)]
    whole = np.arange(128 * 192, dtype=np.float32).reshape(128, 192)
    for k in (0, 1):
        cut = whole[:, 64 * k : 64 * k + 128]
        assert np.allclose(found[1][k].metres, found[0][k].metres * cut, equal_nan=True)


def test_a_window_of_which_little_is_known_keeps_its_heights_under_shadows(
    tmp_path: Path, city_values: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("cityweave.cityscale.shadows.shadow_factors", lambda metres, *_: asked.append(metres))
    city_values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    sun = {"sun_azimuth_deg": 130, "sun_elevation_deg": 40}
    run = Run(tmp_path / "run", load_config(city_values | {"dsm": {"method": "fused"}, "cityscale": sun}))
    metres = np.full((128, 128), np.nan, np.float32)
    metres[-14:, :14] = 30.0  # 1.2 % of the window
    aoi = store(tmp_path / "a", WEST, 90)
    _fit_shadows(run, [Prediction(Window(0, 0, 128, 0.5), metres, metres)], layers([aoi]), [aoi])
    assert np.allclose(asked[0][-14:, :14], 30) and (asked[0][:-14] == 0).all()


def test_the_ground_under_shadows_is_the_terrain_of_all_tiles(tmp_path: Path) -> None:
    aois = []
    for name, tile, height in (("w", WEST, 530.0), ("e", EAST, 541.0)):
        grid = CellGrid.covering(tile.core, 1.0)
        with AoiWriter(
            tmp_path / name,
            tile,
            crs_wkt=compound_crs_wkt("EPSG:32637", None),
            vertical="ellipsoid",
            halo_m=8.0,
            z0_m=500.0,
        ) as writer:
            writer.add_raster(TERRAIN, np.full(grid.shape, height, np.float32), grid)
        aois.append(Aoi(tmp_path / name))
    ground = terrain_in(aois, WINDOW.grid)
    assert ground is not None and ground.dtype == np.float32
    assert (ground[:, :128] == 530).all() and (ground[:, 128:] == 541).all()  # north of the tiles, too
    assert terrain_in([store(tmp_path / "none", WEST, 0)], WINDOW.grid) is None


def test_pictures_that_cannot_be_used_are_refused_before_any_job(tmp_path: Path, city_values: dict) -> None:
    import rasterio
    from affine import Affine

    def photo(bands: int, gsd_m: float) -> dict:
        path = tmp_path / f"{bands}_{gsd_m}.tif"
        size = {"width": 40, "height": 40, "count": bands, "dtype": "uint8"}
        place = Affine(gsd_m, 0, 315392, 0, -gsd_m, 4162048)
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32637", transform=place, **size) as dataset:
            dataset.write(np.zeros((bands, 40, 40), np.uint8))
        sources = city_values["sources"] | {"ortho": [{"name": "photo", "path": str(path)}]}
        weights = small_weights(tmp_path / "w.safetensors")
        return city_values | {
            "sources": sources,
            "dsm": {"method": "fused"},
            "cityscale": {"weights": str(weights)},
        }

    require_cityscale(load_config(photo(3, 0.25)))
    require_cityscale(load_config(photo(1, 0.5)))
    with pytest.raises(DataError, match=r"has cells of 2 m"):
        require_cityscale(load_config(photo(3, 2.0)))
    with pytest.raises(DataError, match="has 2 bands; accepted: 1"):
        require_cityscale(load_config(photo(2, 0.5)))
