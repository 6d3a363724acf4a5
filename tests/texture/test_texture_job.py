"""The texture job on a small run of painted boxes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cityweave import cores
from cityweave.errors import DataError
from cityweave.io.textures import INFERRED, MAX_COUNT, NO_VIEW, OUTSIDE, halved, level_picture, load_texture
from cityweave.manifest import Manifest, Run, content_hash
from cityweave.mesh import SURFACE, load_levels
from cityweave.plan import city_tiles, load_config, tile_manifests
from cityweave.texture import job, novel_job
from tests.texture import scene


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = scene.make_run(tmp_path_factory.mktemp("results") / "boxes", quarantined=(1, 1))
    for tile in city_tiles(run.config):
        job.run(run, tile)
    return run


def tile_product(run: Run, number: int):
    tile = city_tiles(run.config)[number]
    manifest = Manifest.read(run.manifest_path("texture", tile))
    levels = load_levels(Manifest.read(run.manifest_path("mesh", tile)).product("mesh"))
    return tile, manifest, levels


def test_product_matches_the_mesh(run):
    _, manifest, levels = tile_product(run, 0)
    texture = load_texture(manifest.product("texture"))
    assert texture.colour.dtype == np.uint8
    assert texture.colour.shape == (*texture.provenance.shape, 3)
    assert [uv.shape for uv in texture.uv] == [(len(mesh.faces), 3, 2) for mesh in levels]
    assert all(uv.min() >= 0 and uv.max() <= 1 for uv in texture.uv)
    assert manifest.notes["observed_share"] > 0.9
    seen = (texture.provenance > 0) & (texture.provenance <= MAX_COUNT)
    assert set(np.unique(texture.lead[seen])) == set(range(5)) and (texture.lead[~seen] == NO_VIEW).all()
    assert manifest.notes["acquired"] == [f"2023-02-0{k + 1}T08:00:00Z" for k in range(5)]
    shares = manifest.notes["dates"]
    assert list(shares) == [f"2023-02-0{k + 1}" for k in range(5)]
    assert shares["2023-02-01"] == pytest.approx(np.mean(texture.lead[seen] == 0), abs=1e-4)


def test_quarantine_is_passed_on_and_neighbours_do_without(run):
    _, manifest, _ = tile_product(run, 0)
    assert manifest.quarantined is None
    last = Manifest.read(run.manifest_path("texture", city_tiles(run.config)[3]))
    assert last.quarantined == "no picture shows it"
    assert last.values["products"] == []


def looked_up(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Texels under uv, nearest."""
    rows, cols = picture.shape[:2]
    col = np.clip((uv[:, 0] * cols).astype(int), 0, cols - 1)
    row = np.clip((uv[:, 1] * rows).astype(int), 0, rows - 1)
    return picture[row, col].astype(float)


@pytest.mark.parametrize("level", [0, 1])
def test_every_level_wears_the_right_colours(run, level):
    """Face centres through a level's own picture show what is painted there."""
    tile, manifest, levels = tile_product(run, 0)
    texture = load_texture(manifest.product("texture"))
    picture, uv = level_picture(texture, level)
    mesh = levels[level]
    surface = mesh.part == SURFACE
    centre_uv = uv[surface].mean(axis=1)
    corner = mesh.xyz()[mesh.faces[surface]]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    true = scene.paint(corner.mean(axis=1), normal)  # tile 0 starts at the scene's origin
    whole = texture.uv[level][surface].mean(axis=1)
    seen = looked_up(texture.provenance[..., None], whole)[:, 0] < INFERRED
    top = normal[:, 2] > 0.5
    if level == 1:  # boxes of 4 m stand elsewhere than the true ones: only level ground can be compared
        seen &= np.abs(corner[:, :, 2] - 5.0).max(axis=1) == 0
        seen &= top
    error = np.abs(looked_up(picture, centre_uv) - true).max(axis=1)
    assert np.median(error[seen]) < 5.0
    assert np.percentile(error[seen], 90) < 20.0
    assert tile.name


def test_neighbours_agree_along_their_border(run):
    """The two texels on either side of a border are baked from the same views and the same surfaces."""
    (_, left, _), (_, right, _) = tile_product(run, 0), tile_product(run, 1)
    west, east = load_texture(left.product("texture")), load_texture(right.product("texture"))
    rows = west.layout.band_rows[0]
    texel = west.layout.top_texel_m
    border = round((64.0 - west.layout.top_origin_m[0]) / texel)
    inside = round((0.0 - east.layout.top_origin_m[0]) / texel)
    rows = min(rows, east.layout.band_rows[0])
    # the column east of the border, as seen by both: own ground in one, gutter in the other
    a = west.colour[:rows, border].astype(int)
    b = east.colour[:rows, inside].astype(int)
    both = (west.provenance[:rows, border] < INFERRED) & (east.provenance[:rows, inside] < INFERRED)
    assert both.mean() > 0.9
    assert (np.abs(a - b).max(axis=1)[both] <= 6).mean() > 0.9


@pytest.fixture(scope="module")
def refined(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same city with two rounds of refinement, by a restorer that does nothing."""
    refine = {"rounds": 2, "restorer": "none", "height_m": 120, "headings_deg": [45, 225]}
    return with_rounds(run, tmp_path_factory.mktemp("refined"), refine)


def with_rounds(run: Run, folder: Path, refine: dict[str, object]) -> Run:
    """A copy whose textures are refined."""
    refine = {"spacing_m": 60, "reach_m": 50, "size_px": 208} | refine
    copy = Run(folder / "boxes", load_config(run.config.model_dump() | {"texture": {"refine": refine}}))
    shutil.copytree(run.folder, copy.folder)
    for tile in city_tiles(copy.config):
        copy.manifest_path("texture", tile).unlink()
        job.run(copy, tile, 0)
    for number in range(1, copy.config.texture.refine.rounds + 1):
        for tile in city_tiles(copy.config):
            novel_job.run(copy, tile, number)
        for tile in city_tiles(copy.config):
            job.run(copy, tile, number)
    return copy


def test_a_refined_texture_has_its_rounds_beside_it(run: Run, refined: Run) -> None:
    tiles = city_tiles(refined.config)
    rounds = list(tile_manifests(refined.config))[-5:]
    assert rounds == ["texture_0", "novel_1", "texture_1", "novel_2", "texture"]
    places = refined.manifest_path("texture_0", tiles[0]), run.manifest_path("texture", tiles[0])
    first, plain = (Manifest.read(place).values["products"][0] for place in places)
    assert first["sha256"] == plain["sha256"]
    for name in rounds:
        assert Manifest.read(refined.manifest_path(name, tiles[3])).quarantined == "no picture shows it"


def test_novel_views_are_the_owners_and_serve_its_neighbours(refined: Run) -> None:
    """Points of the 60 m grid: each in one tile, each shown from two sides, and read by all four."""
    tiles = city_tiles(refined.config)
    notes = [Manifest.read(refined.manifest_path("novel_1", tile)).notes for tile in tiles[:3]]
    owned = [set(note["views"]) | set(note["left_out"]) for note in notes]
    assert all(len(names) % 2 == 0 for names in owned) and not set.intersection(*owned)
    used = [Manifest.read(refined.manifest_path("texture", tile)).notes["novel_views"] for tile in tiles[:3]]
    assert min(used) > 0 and sum(used) > sum(len(note["views"]) for note in notes)
    inputs = Manifest.read(refined.manifest_path("texture", tiles[0])).values["inputs"]
    assert {f"novel/{tile.name}" for tile in tiles} <= inputs.keys()


def test_a_restorer_that_does_nothing_hardly_changes_what_was_seen(run: Run, refined: Run) -> None:
    for tile in city_tiles(run.config)[:3]:
        plain, after = (Manifest.read(each.manifest_path("texture", tile)) for each in (run, refined))
        before, now = (load_texture(each.product("texture")) for each in (plain, after))
        seen = (before.provenance > 0) & (before.provenance <= MAX_COUNT)
        assert (now.provenance[seen] == before.provenance[seen]).all()
        apart = np.abs(now.colour.astype(int) - before.colour)[seen].max(axis=1)
        assert np.median(apart) <= 3
        assert after.notes["source_error"] < 1.5 * plain.notes["source_error"] + 1


@pytest.mark.parametrize("restorer", ["none", "small"])
def test_same_bytes_on_any_number_of_cores(run: Run, restorer: str, tmp_path: Path) -> None:
    if restorer == "small":
        pytest.importorskip("torch", reason="make setup EXTRAS=models")
    found = []
    for number in (1, 2):
        cores.use(number)
        try:
            copy = with_rounds(run, tmp_path / str(number), {"rounds": 1, "restorer": restorer})
        finally:
            cores.use(1)
        manifests = [Manifest.read(copy.manifest_path("texture", tile)) for tile in city_tiles(copy.config)]
        found.append([product["sha256"] for manifest in manifests for product in manifest.values["products"]])
    assert found[0] == found[1]


def test_same_bytes_in_another_folder(run, tmp_path: Path):
    tile = city_tiles(run.config)[1]
    copy = Run(tmp_path / "elsewhere", run.config)
    shutil.copytree(run.folder, copy.folder)
    manifest = copy.manifest_path("texture", tile)
    before = content_hash(manifest)
    job.run(copy, tile)
    assert content_hash(manifest) == before
    assert Manifest.read(manifest).product("texture").is_dir()


def test_no_view_steep_enough_is_an_error_and_no_grey_tile(run, tmp_path: Path):
    tile = city_tiles(run.config)[0]
    strict = run.config.texture.model_copy(update={"max_off_nadir_deg": 0.01})
    copy = Run(tmp_path / "strict", run.config.model_copy(update={"texture": strict}))
    shutil.copytree(run.folder, copy.folder)
    with pytest.raises(DataError, match=r"max_off_nadir_deg is 0\.01, its views have v0 "):
        job.run(copy, tile)
    assert not copy.manifest_path("texture", tile).exists()


def test_plain_parts_point_at_plain_texels(run):
    _, manifest, levels = tile_product(run, 0)
    texture = load_texture(manifest.product("texture"))
    rim = texture.uv[0][levels[0].part != SURFACE].reshape(-1, 2)
    assert len(rim)
    assert (looked_up(texture.provenance[..., None], rim) == OUTSIDE).all()
    assert len(np.unique(looked_up(texture.colour, rim), axis=0)) == 1


def test_halving_is_a_mean():
    picture = np.arange(32, dtype=np.uint8).reshape(4, 8)
    assert halved(picture, 1)[0, 0] == 5  # 4.5, half up
    assert halved(picture, 0) is picture
    assert halved(np.zeros((5, 7, 3), np.uint8), 1).shape == (2, 3, 3)


def test_digital_numbers_become_the_shared_scale():
    view = {
        "exposure": {"gain": [2.0], "offset": [10.0]},
        "display": {"low": [100.0], "high": [610.0]},
    }
    gain, offset = job.to_display(view)
    assert gain.shape == (3,)
    assert gain[0] * 45 + offset[0] == pytest.approx(0.0)  # 2 * 45 + 10 = 100, the low end
    assert gain[2] * 300 + offset[2] == pytest.approx(255.0)
