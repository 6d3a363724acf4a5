from __future__ import annotations

import json
from pathlib import Path

import pytest

from cityweave.cli import main
from cityweave.errors import ConfigError, DataError
from cityweave.manifest import Products, Run, run_job
from cityweave.plan import TILE_MANIFESTS, city_tiles, load_config
from cityweave.status import (
    check_verdict,
    deliver_without,
    quarantined_tiles,
    retry_tile,
    status_table,
    tile_entries,
)


@pytest.fixture
def run(tmp_path: Path, city_values: dict) -> Run:
    config = load_config(city_values)
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    return Run.open(tmp_path)


def nothing(products: Products) -> None:
    """A job without products."""


def finish(run: Run, skip: str = "") -> None:
    for tile in city_tiles(run.config):
        for name, stage in TILE_MANIFESTS.items():
            if tile.name != skip:
                run_job(run, stage, nothing, name=name, tile=tile)


def test_table_and_verdict_of_a_complete_city(run: Run) -> None:
    finish(run)
    assert "4 of 4 tiles done" in status_table(run)
    check_verdict(run, run.folder / "verdict.json")
    assert json.loads((run.folder / "verdict.json").read_text())["tiles"] == 4


def test_a_lost_tile_fails_the_verdict_by_name(run: Run) -> None:
    lost = city_tiles(run.config)[2].name
    finish(run, skip=lost)
    with pytest.raises(DataError, match=f"{lost} is missing"):
        check_verdict(run, None)


def test_deliver_without_and_retry(run: Run) -> None:
    tile = city_tiles(run.config)[1]
    finish(run, skip=tile.name)
    run_job(run, "ingest", nothing, tile=tile)
    deliver_without(run, tile, "clouds")
    assert quarantined_tiles(run) == {tile.name: "on purpose: clouds"}
    assert f"quarantined {tile.name}: on purpose: clouds" in status_table(run)
    retry_tile(run, tile)
    assert quarantined_tiles(run) == {}
    with pytest.raises(ConfigError, match="not quarantined"):
        retry_tile(run, tile)


def test_a_tile_that_lost_its_mesh_is_taken_out_where_neighbours_look(run: Run) -> None:
    tile = city_tiles(run.config)[1]
    finish(run)
    run.manifest_path("mesh", tile).unlink()
    deliver_without(run, tile, "it crashes")
    states = {entry.name: entry.status for entry in tile_entries(run) if entry.tile == tile}
    assert states["sdf_0"] == states["sdf_3"] == "quarantined" and states["dsm"] == "done"


def test_a_job_that_failed_is_told_from_one_at_work(run: Run) -> None:
    tile = city_tiles(run.config)[0]
    seen: list[str] = []

    def fails(products: Products) -> None:
        seen.extend(entry.status for entry in tile_entries(run) if entry.tile == tile and entry.name == "dsm")
        raise DataError("no good")

    with pytest.raises(DataError):
        run_job(run, "dsm", fails, tile=tile)
    attempt = run.manifest_path("dsm", tile).with_name("dsm.attempt")
    attempt.write_text(json.dumps(json.loads(attempt.read_text()) | {"pid": 2**22 + 1}))  # a process that is gone
    states = {entry.name: entry.status for entry in tile_entries(run) if entry.tile == tile}
    assert seen == ["running"] and states["dsm"] == "failed" and states["mesh"] == "missing"


def test_a_complete_tile_is_not_left_out(run: Run) -> None:
    finish(run)
    with pytest.raises(ConfigError, match="nothing to leave out"):
        deliver_without(run, city_tiles(run.config)[0], "why not")


def test_the_command_line_says_one_line_and_the_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["status", "--run", str(tmp_path)]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_tile_outside_the_city_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dsm", "--run", str(run.folder), "--tile", "E0_N0"]) == 2
    assert "E0_N0 is not in the city" in capsys.readouterr().err
