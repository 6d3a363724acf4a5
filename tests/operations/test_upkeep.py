from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cityweave.cli import main
from cityweave.errors import DataError
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.operations.upkeep import mend, prune
from cityweave.plan import TILE_MANIFESTS, city_tiles, load_config
from cityweave.status import check_verdict, tile_entries

CITY = ("survey", "merge_heights", "merge_city", "evaluate", "report")
STAGE = TILE_MANIFESTS | {"merge_heights": "merge", "merge_city": "merge"}


@pytest.fixture
def run(tmp_path: Path, city_values: dict) -> Run:
    """A complete city whose every job made a folder with two files."""
    (tmp_path / "config.json").write_text(json.dumps(load_config(city_values).model_dump(mode="json")))
    run = Run.open(tmp_path)
    for name in CITY:
        run_job(run, STAGE.get(name, name), make, name=name)
    for tile in city_tiles(run.config):
        for name in TILE_MANIFESTS:
            run_job(run, STAGE[name], make, name=name, tile=tile)
    return run


def make(products: Products) -> None:
    with products.path(f"store_{products.prefix}") as path:
        path.mkdir()
        (path / "a").write_text("a" * 100)
        (path / "b").write_text(products.prefix)


def stores(run: Run, name: str) -> list[Path]:
    return sorted(run.folder.glob(f"tiles/*/store_{name}.*"))


def silent(text: str) -> None:
    """Nobody reads it."""


def test_a_dry_run_lists_bytes_and_touches_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "--run", str(run.folder)]) == 0
    text = capsys.readouterr().out
    assert "ingest        4 products" in text and "sdf          16 products" in text and "nothing was touched" in text
    assert len(stores(run, "ingest")) == 4


def test_a_complete_city_loses_its_intermediates_and_stays_complete(run: Run) -> None:
    assert prune(run, really=True, say=silent) > 24 * 100
    assert not stores(run, "ingest") and not stores(run, "dsm") and not stores(run, "sdf_3")
    assert len(stores(run, "mesh")) == len(stores(run, "texture")) == 4
    check_verdict(run, None)
    assert {entry.status for entry in tile_entries(run)} == {"done"}
    assert prune(run, really=True, say=silent) == 0


def test_a_pruned_product_names_the_target_that_brings_it_back(run: Run) -> None:
    prune(run, really=True, say=silent)
    path = run.manifest_path("dsm", city_tiles(run.config)[0])
    with pytest.raises(DataError, match=r"was pruned; rerun with: snakemake --force .*dsm\.json"):
        Manifest.read(path).product("store_dsm")
    run_job(run, "dsm", make, name="dsm", tile=city_tiles(run.config)[0])
    assert Manifest.read(path).product("store_dsm").is_dir()
    assert not path.with_name("dsm.pruned.json").exists()


def test_what_a_missing_mesh_needs_stays(run: Run) -> None:
    """All four tiles touch: each reads the fits of all. Heights are needed by none; pictures by the texture."""
    tile = city_tiles(run.config)[0]
    for name in ("mesh", "texture"):
        run.manifest_path(name, tile).unlink()
    prune(run, really=True, say=silent)
    assert len(stores(run, "sdf_0")) == 4 and not stores(run, "dsm")
    assert [path.parent.name for path in stores(run, "ingest")] == [tile.name]


def test_city_products_that_are_not_made_yet_hold_heights(run: Run) -> None:
    run.manifest_path("merge_heights").unlink()
    prune(run, really=True, say=silent)
    assert len(stores(run, "dsm")) == 4 and not stores(run, "sdf_0")


def test_a_purge_of_what_nothing_needs_is_marked(run: Run) -> None:
    for store in stores(run, "ingest"):
        shutil.rmtree(store)
    with pytest.raises(DataError, match="missing"):
        check_verdict(run, None)
    assert mend(run, silent) == []
    check_verdict(run, None)


def test_a_purged_mesh_is_made_again_with_all_that_it_reads_and_no_more(run: Run) -> None:
    prune(run, really=True, say=silent)
    tile = city_tiles(run.config)[3]
    purged = next(iter((run.tile_folder(tile)).glob("store_mesh.*")))
    (purged / "a").unlink()  # a purge takes files, not folders
    said: list[str] = []
    again = mend(run, said.append)
    names = sorted((path.parent.name, path.stem) for path in again)
    tiles = [t.name for t in city_tiles(run.config)]
    fits = ("dsm", "ingest", "sdf_0", "sdf_1", "sdf_2", "sdf_3")
    assert names == sorted([(tile.name, "mesh"), *((t, name) for t in tiles for name in fits)])
    assert not any(path.exists() for path in again)
    assert run.manifest_path("texture", tile).exists() and run.manifest_path("merge_city").exists()
    assert "-- $(cat" in said[-1]
    assert len((run.folder / "remake.txt").read_text().splitlines()) == 25


def test_nothing_gone_nothing_done(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--run", str(run.folder), "--fix"]) == 0
    assert "nothing that is needed is gone" in capsys.readouterr().out
