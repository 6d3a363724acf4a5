"""What reruns after a change, counted on 7 x 7 tiles without doing the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="make setup EXTRAS=models")

from cityweave.plan import city_tiles, load_config, novel_rings, rendered_rings, texture_rings, tile_manifests
from tests.cityscale.tiny import small_weights

from .conftest import Workflow

pytestmark = pytest.mark.workflow
SIDE = 7
CITY_JOBS = {"merge_heights": 1, "merge_city": 1, "evaluate": 1, "report": 1, "verdict": 1}


def seven(values: dict, **workflow: object) -> dict:
    x, y = values["city"]["bounds_m"][:2]
    city = values["city"] | {"bounds_m": [x, y, x + SIDE * 64, y + SIDE * 64]}
    return values | {"city": city, "workflow": workflow}


def pretend_done(workflow: Workflow, values: dict) -> None:
    """Every declared output, all of one age."""
    names = ["synth", "survey", "merge_heights", "merge_city", "evaluate", "report"]
    files = [workflow.city / "city" / f"{name}.json" for name in names]
    files += [workflow.city / "verdict.json"]
    config = load_config(values)
    for tile in city_tiles(config):
        files += [workflow.city / "tiles" / tile.name / f"{name}.json" for name in tile_manifests(config)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        os.utime(file, (1_700_000_000, 1_700_000_000))


def middle(workflow: Workflow, values: dict) -> Path:
    tile = city_tiles(load_config(values))[SIDE * (SIDE // 2) + SIDE // 2]
    return (workflow.city / "tiles" / tile.name).relative_to(workflow.folder)


def test_a_city_of_49_tiles_plans_every_job_once(tmp_path: Path, mini_values: dict) -> None:
    jobs = Workflow(tmp_path, seven(mini_values)).planned()
    tiles = SIDE * SIDE
    per_tile = dict.fromkeys(("ingest", "dsm", "fit", "mesh", "texture"), tiles)
    assert jobs == {"synth": 1, "survey": 1} | per_tile | CITY_JOBS


def test_a_changed_tile_reruns_what_the_architecture_says(tmp_path: Path, mini_values: dict) -> None:
    values = seven(mini_values)
    workflow = Workflow(tmp_path, values)
    pretend_done(workflow, values)
    assert workflow.planned() == {}
    rings = texture_rings(load_config(values))
    textures = (2 * (1 + rings) + 1) ** 2
    jobs = workflow.planned("--forcerun", f"{middle(workflow, values)}/ingest.json")
    assert jobs == {"ingest": 1, "dsm": 1, "fit": 1, "mesh": 9, "texture": textures} | CITY_JOBS
    assert textures == 25


def test_unpacked_divisions_are_four_jobs_and_one_can_be_rerun(tmp_path: Path, mini_values: dict) -> None:
    values = seven(mini_values, pack={"divisions": False})
    workflow = Workflow(tmp_path, values)
    pretend_done(workflow, values)
    tile = middle(workflow, values)
    jobs = workflow.planned("--forcerun", f"{tile}/dsm.json")
    assert jobs == {"dsm": 1, "fit_division": 4, "mesh": 9, "texture": 25} | CITY_JOBS
    jobs = workflow.planned("--forcerun", f"{tile}/sdf_2.json")
    assert jobs["fit_division"] == 1 and jobs["mesh"] == 9


def test_one_tile_without_its_merges(tmp_path: Path, mini_values: dict) -> None:
    values = seven(mini_values)
    workflow = Workflow(tmp_path, values)
    pretend_done(workflow, values)
    tile = middle(workflow, values)
    jobs = workflow.planned("--forcerun", f"{tile}/dsm.json", "--", f"{tile}/mesh.json")
    assert jobs == {"dsm": 1, "fit": 1, "mesh": 1}


def test_packed_tiles_share_jobs(tmp_path: Path, mini_values: dict) -> None:
    jobs = Workflow(tmp_path, seven(mini_values, pack={"tiles": 10})).planned()
    packed = [name for name in jobs if name.startswith("dsm_")]
    assert len(packed) == 5 and all(jobs[name] == 1 for name in packed)


def test_a_pack_asks_for_the_cores_of_all_tiles_at_once(tmp_path: Path, mini_values: dict) -> None:
    values = seven(mini_values, pack={"tiles": 10, "at_once": 4}, cores_per_tile=2)
    said = Workflow(tmp_path, values).succeed("--dry-run", "--printshellcmds", cores=64)
    assert said.count("--cpus 8 --at-once 4") == 5 and said.count("--at-once 4") == 10


def test_a_refined_texture_goes_back_and_forth_and_a_changed_tile_reaches_as_far_as_its_views(
    tmp_path: Path, mini_values: dict
) -> None:
    values = seven(mini_values) | {"texture": {"refine": {"rounds": 2, "restorer": "none", "reach_m": 60}}}
    workflow = Workflow(tmp_path, values)
    jobs, tiles = workflow.planned(), SIDE * SIDE
    rounds = ("texture_0", "novel_1", "texture_1", "novel_2", "texture")
    assert {name: jobs[name] for name in rounds} == dict.fromkeys(rounds, tiles)
    packed = Workflow(tmp_path / "packed", values | {"workflow": {"pack": {"tiles": 10}}}).planned()
    assert sum(name.startswith("novel_2_") for name in packed) == 5

    def reached(file: str) -> dict[str, int]:
        jobs = workflow.planned("--forcerun", f"{middle(workflow, values)}/{file}.json")
        return {name: count for name, count in jobs.items() if name.startswith(("texture", "novel"))}

    config = load_config(values)
    pretend_done(workflow, values)
    # one ring of tiles whose views show the tile, or that its views show
    assert (novel_rings(config), rendered_rings(config)) == (1, 2)
    assert reached("novel_2") == {"novel_2": 1, "texture": 9}
    assert reached("texture_1") == {"texture_1": 1, "novel_2": 25, "texture": 49}


def test_a_manifest_that_is_gone_is_made_again(tmp_path: Path, mini_values: dict) -> None:
    values = seven(mini_values)
    workflow = Workflow(tmp_path, values)
    pretend_done(workflow, values)
    (workflow.folder / middle(workflow, values) / "texture.json").unlink()
    assert workflow.planned() == {"texture": 1, "merge_city": 1, "evaluate": 1, "report": 1, "verdict": 1}


def test_fused_heights_reach_as_far_as_their_windows(tmp_path: Path, mini_values: dict) -> None:
    """Windows of 64 m over tiles of 64 m, that begin every 32 m."""
    weights = small_weights(tmp_path / "tiny.safetensors")
    values = seven(mini_values) | {
        "dsm": {"method": "fused", "align_m": 16, "most_lean": 0},
        "cityscale": {"weights": str(weights), "window_m": 64},
    }
    os.utime(weights, (1_600_000_000, 1_600_000_000))  # older than what is pretended to be done
    workflow = Workflow(tmp_path, values)
    tiles = SIDE * SIDE
    per_tile = dict.fromkeys(("ingest", "stereo", "cityscale", "fuse", "fit", "mesh", "texture"), tiles)
    assert workflow.planned() == {"synth": 1, "survey": 1} | per_tile | CITY_JOBS
    pretend_done(workflow, values)
    jobs = workflow.planned("--forcerun", f"{middle(workflow, values)}/ingest.json")
    # windows that begin in the tile, or in the ones west and south of it, show it; tiles up to a ring and another
    # window away ask for one of those
    assert (jobs["ingest"], jobs["stereo"], jobs["cityscale"], jobs["fuse"]) == (1, 1, 4, 25)
    packed = Workflow(tmp_path / "packed", values | {"workflow": {"pack": {"tiles": 10}}}).planned()
    assert all(sum(name.startswith(f"{rule}_") for name in packed) == 5 for rule in ("stereo", "cityscale", "fuse"))


def test_heights_of_a_picture_alone_are_not_measured(tmp_path: Path, mini_values: dict) -> None:
    weights = small_weights(tmp_path / "tiny.safetensors")
    values = seven(mini_values) | {"dsm": {"method": "cityscale"}, "cityscale": {"weights": str(weights)}}
    jobs = Workflow(tmp_path, values).planned()
    assert "stereo" not in jobs and jobs["cityscale"] == jobs["fuse"] == SIDE * SIDE
