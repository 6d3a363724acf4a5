"""Panchromatic views and an orthophoto in colour make a texture in colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cityweave.aoi import INVALID, Aoi, AoiWriter, OrthoLayer
from cityweave.grid import CellGrid
from cityweave.io.textures import OUTSIDE, TileTexture, load_texture
from cityweave.manifest import Manifest, Run, run_job
from cityweave.plan import city_tiles, load_config
from cityweave.texture import job
from tests.texture import scene


def colours(grid: CellGrid) -> np.ndarray:
    """(3, rows, cols): red in the west, green in the east, and as bright everywhere."""
    east = (grid.x_centres - grid.x_centres.min()) / np.ptp(grid.x_centres)
    red = np.broadcast_to(1.5 - east, grid.shape)
    return np.stack([200 * red, 200 * (2 - red), np.full(grid.shape, 200.0)]).astype(np.uint16)


def grey_city(folder: Path, ortho: bool, **texture: object) -> Run:
    """One tile whose views have one band; the west of the orthophoto's last rows is missing."""
    made = scene.make_run(folder)
    run = Run(made.folder, load_config(made.config.model_dump() | {"texture": texture}))
    tile = city_tiles(run.config)[0]
    before = Aoi(Manifest.read(run.manifest_path("ingest", tile)).product("aoi"))
    views = [before.view(name) for name in before.views]
    grid = CellGrid.covering(tile.core.grow(4), 0.5)

    def ingest(products) -> None:  # type: ignore[no-untyped-def]
        with products.path("aoi", ".zarr") as path:
            facts = {"vertical": "ellipsoid", "halo_m": 16, "z0_m": before.z0_m}
            with AoiWriter(path, tile, crs_wkt=before.crs_wkt, **facts) as aoi:
                for view in views:
                    grey = view.image.astype(np.float64).mean(axis=0, keepdims=True).astype(np.uint16)
                    aoi.add_view(view.name, grey, view.rpc, view.offset_px, mask=view.mask)
                if ortho:
                    mask = np.zeros(grid.shape, np.uint8)
                    mask[-40:, :20] = INVALID
                    aoi.add_ortho("summer", colours(grid), grid, mask=mask)

    run.manifest_path("ingest", tile).unlink()
    run_job(run, "ingest", ingest, tile=tile)
    job.run(run, tile)
    return run


def textured(run: Run) -> tuple[TileTexture, Manifest]:
    manifest = Manifest.read(run.manifest_path("texture", city_tiles(run.config)[0]))
    return load_texture(manifest.product("texture")), manifest


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> TileTexture:
    return textured(grey_city(tmp_path_factory.mktemp("grey") / "boxes", ortho=False))[0]


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> tuple[TileTexture, Manifest]:
    return textured(grey_city(tmp_path_factory.mktemp("coloured") / "boxes", ortho=True))


def test_detail_is_the_views_and_colour_the_orthophoto(
    grey: TileTexture, coloured: tuple[TileTexture, Manifest]
) -> None:
    texture, manifest = coloured
    assert manifest.notes["tinted_by"] == ["summer"]
    rows = texture.layout.band_rows[0]
    inside = texture.provenance[:rows] != OUTSIDE
    before, after = (each.colour[:rows][inside].astype(float) for each in (grey, texture))
    assert np.ptp(before, axis=1).max() == 0
    assert np.abs(after.mean(axis=1) - before.mean(axis=1)).max() < 1.5  # no brightness is added
    east = np.nonzero(inside)[1] / texture.colour.shape[1]
    share = (after[:, 0] - after[:, 1]) / after.sum(axis=1)
    assert share[east < 0.2].mean() > 0.1 > -0.1 > share[east > 0.8].mean()
    assert (np.ptp(after, axis=1)[np.abs(east - 0.5) > 0.3] > 10).mean() > 0.99  # also where a part is missing


def test_walls_stay_grey_and_nothing_else_moves(grey: TileTexture, coloured: tuple[TileTexture, Manifest]) -> None:
    texture, _ = coloured
    rows = texture.layout.band_rows[0]
    assert (texture.colour[rows:] == grey.colour[rows:]).all()
    assert (texture.provenance == grey.provenance).all() and (texture.lead == grey.lead).all()


def test_it_can_be_left_out(tmp_path: Path, grey: TileTexture) -> None:
    texture, manifest = textured(grey_city(tmp_path / "boxes", ortho=True, tint=False))
    assert (texture.colour == grey.colour).all() and manifest.notes["tinted_by"] == []


def test_a_black_orthophoto_has_no_tint(grey: TileTexture, tmp_path: Path) -> None:
    from cityweave.texture.tint import tinted

    run = grey_city(tmp_path / "boxes", ortho=False)
    tile = city_tiles(run.config)[0]
    made = job.scene_of(run, tile)
    grid = CellGrid.covering(tile.core, 1.0)
    black = OrthoLayer("night", np.zeros((3, *grid.shape), np.uint8), np.zeros(grid.shape, np.uint8), grid, None, {})
    assert (tinted(grey, made.atlas, [black], made.origin_m).colour == grey.colour).all()
