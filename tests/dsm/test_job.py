"""The stage on an AOI store: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cityweave.aoi import INVALID, AoiWriter, compound_crs_wkt
from cityweave.cameras import RPC, PolyCamera, geodetic_transform
from cityweave.codes import PREDICTED
from cityweave.dsm import job
from cityweave.grid import Tile
from cityweave.io.predictions import Prediction, write_predictions
from cityweave.lattice import windows_over
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import dsm_box
from tests.dsm.conftest import Town

CRS = "EPSG:32637"
TILE = Tile(315392 // 64, 4161536 // 64, 64)
Z0_M = 540.0


def rpc_of(camera: PolyCamera, rows: int, cols: int) -> RPC:
    """An RPC that does what an affine camera in tile-local metres does; over 150 m the Earth is flat enough."""
    axes = np.meshgrid(np.linspace(-40, 104, 6), np.linspace(-40, 104, 6), np.linspace(-20, 160, 4))
    x, y, z = (axis.ravel() for axis in axes)
    lon, lat, height = geodetic_transform(CRS)(x + TILE.core.xmin, y + TILE.core.ymin, z + Z0_M)
    offsets, scales = (lon.mean(), lat.mean(), 600.0), (0.01, 0.01, 200.0)
    terms = [np.ones_like(lon)] + [(a - o) / s for a, o, s in zip((lon, lat, height), offsets, scales, strict=True)]
    u, v = camera.project(x, y, z)
    samp = np.linalg.lstsq(np.stack(terms, 1), (u - 0.5 - cols / 2) / (cols / 2), rcond=None)[0]
    line = np.linalg.lstsq(np.stack(terms, 1), (v - 0.5 - rows / 2) / (rows / 2), rcond=None)[0]
    rest, one = (0.0,) * 16, (1.0,) + (0.0,) * 19
    return RPC(
        tuple(line) + rest, one, tuple(samp) + rest, one, rows / 2, rows / 2, cols / 2, cols / 2,
        offsets[1], scales[1], offsets[0], scales[0], offsets[2], scales[2],
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, city_values: dict) -> Run:
    core = TILE.core
    city_values["city"] |= {"bounds_m": list(core.as_tuple()), "heights_m": [Z0_M, 700.0]}
    city_values["tiles"]["size_m"] = 64
    folder = tmp_path / "results" / "test"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(city_values))
    return Run.open(folder)


def ingest(run: Run, town: Town, numbers: range, spoil: bool = False, flat: bool = False) -> None:
    """An AOI as the ingest stage leaves it."""

    def work(products: Products) -> None:
        with products.path("aoi", ".zarr") as path:
            wkt = compound_crs_wkt(CRS, None)
            attributes = {"heights_m": [Z0_M - 12, Z0_M + 130]}
            writer = AoiWriter(
                path, TILE, crs_wkt=wkt, vertical="ellipsoid", halo_m=28.0, z0_m=Z0_M, attributes=attributes
            )
            with writer as aoi:
                for number in numbers:
                    view = town.views[number]
                    image = (
                        np.full((1, *view.image.shape), 300, np.uint16) if flat else view.image.astype(np.uint16)[None]
                    )
                    mask = np.full(view.image.shape, INVALID if spoil else 0, np.uint8)
                    aoi.add_view(view.name, image, rpc_of(view.camera, *view.image.shape), (0, 0), mask=mask)

    run_job(run, "ingest", work, tile=TILE, inputs={})


def test_writes_what_merge_and_plain_xarray_read(run: Run, small_town: Town) -> None:
    xarray = pytest.importorskip("xarray")
    ingest(run, small_town, range(6))
    job.run(run, TILE)
    manifest = Manifest.read(run.manifest_path("dsm", TILE))
    assert manifest.values["status"] == "done"
    assert manifest.notes["views"] == [f"v{number}" for number in range(6)]
    with xarray.open_zarr(manifest.product("dsm"), decode_coords="all") as data:
        assert data.dsm.shape == (176, 176)  # core and geometry halo
        assert float(data.x[0]) == TILE.core.xmin - 12 + 0.25 and float(data.y[0]) == TILE.core.ymax + 12 - 0.25
        assert data.dsm.dtype == np.float32 and data.source.dtype == np.uint8
        assert "spatial_ref" in data.coords
        core = (slice(24, -24), slice(24, -24))
        truth = small_town.truth[16:-16, 16:-16] + Z0_M
        error = data.dsm.values[core] - truth
        assert np.abs(error).mean() < 0.7 and abs(np.median(error)) < 0.1
        assert (data.dtm.values <= data.dsm.values).all()
        assert np.median(data.dtm.values) < np.median(data.dsm.values) - 0.1


def test_again_changes_no_byte(run: Run, small_town: Town) -> None:
    ingest(run, small_town, range(3))
    job.run(run, TILE)
    first = run.manifest_path("dsm", TILE).read_bytes()
    job.run(run, TILE)
    assert run.manifest_path("dsm", TILE).read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"numbers": range(1)}, "1 usable view"),
        ({"numbers": range(3), "spoil": True}, "no valid pixel"),
        ({"numbers": range(3), "flat": True}, "could be measured"),
    ],
)
def test_an_unusable_tile_is_quarantined_with_the_reason(
    run: Run, small_town: Town, arguments: dict, reason: str
) -> None:
    ingest(run, small_town, **arguments)
    job.run(run, TILE)
    manifest = Manifest.read(run.manifest_path("dsm", TILE))
    assert reason in (manifest.quarantined or "")
    assert TILE.name in (manifest.quarantined or "")
    assert manifest.values["products"] == []


def test_ground_that_is_told_is_what_measured_heights_stand_on(run: Run, small_town: Town) -> None:
    """And a prediction beside them: both would differ by what the ground does else."""
    values = json.loads((run.folder / "config.json").read_text())
    values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    values["dsm"] = {"method": "fused", "terrain": "flat", "flat_m": Z0_M + 12.0}
    (run.folder / "config.json").write_text(json.dumps(values))
    run = Run.open(run.folder)
    ingest(run, small_town, range(3))
    job.stereo(run, TILE)
    manifest = Manifest.read(run.manifest_path("stereo", TILE))
    found = job.read_layers(manifest.product("stereo"))
    assert manifest.notes["terrain"] == "flat"
    assert np.array_equal(found["dtm"], np.fmin(np.float32(Z0_M + 12), found["dsm"]))
    assert 0.05 < (found["dtm"] == Z0_M + 12).mean() < 0.95


@pytest.mark.parametrize("ground", [{}, {"terrain": "flat", "flat_m": Z0_M}])
def test_a_picture_on_known_ground_stands_in_for_what_cannot_be_measured(
    run: Run, small_town: Town, ground: dict
) -> None:
    values = json.loads((run.folder / "config.json").read_text())
    values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    values["dsm"] = {"method": "fused", **ground}
    (run.folder / "config.json").write_text(json.dumps(values))
    run = Run.open(run.folder)
    ingest(run, small_town, range(1))

    def windows(products: Products) -> None:
        with products.path("windows", ".zarr") as path:
            windows = list(windows_over(dsm_box(run.config, TILE), 512, 0.5))
            write_predictions(path, [Prediction(w, *np.full((2, *w.grid.shape), 7, np.float32)) for w in windows])

    run_job(run, "cityscale", windows, tile=TILE, inputs={})
    job.stereo(run, TILE)
    job.run(run, TILE)
    manifest = Manifest.read(run.manifest_path("dsm", TILE))
    if not ground:
        assert "1 usable view" in (manifest.quarantined or "") and "dsm.terrain: given" in (manifest.quarantined or "")
        return
    found = job.read_layers(manifest.product("dsm"))
    assert (found["source"] == PREDICTED).all()
    assert np.allclose(found["dsm"], Z0_M + 7) and np.allclose(found["dtm"], Z0_M)
    assert "1 usable view" in manifest.notes["not_measured"] and manifest.notes["predicted_share"] == 1.0


def test_heights_at_the_end_of_the_search_are_a_warning() -> None:
    from types import SimpleNamespace

    aoi = SimpleNamespace(attributes={"heights_m": [550.0, 600.0]})
    heights = np.full((50, 50), 575.0, np.float32)
    layers = {"dsm": heights, "source": np.ones((50, 50), np.uint8)}
    assert job._at_the_limits(layers, aoi) == {}  # type: ignore[arg-type]
    heights[:3, :10] = 599.4
    (warning,) = job._at_the_limits(layers, aoi)["warnings"]  # type: ignore[arg-type]
    assert warning.startswith("1.2% of the measured cells lie at the highest height") and "max_building_m" in warning
    layers["source"][:3] = 2  # filled cells were not searched
    assert job._at_the_limits(layers, aoi) == {}  # type: ignore[arg-type]
