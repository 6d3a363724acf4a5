"""The mini city through `--profile slurm` on a real cluster, with a job over its memory and a node that dies."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import ClusterRun, products, requests
from .private import NODES, PrivateCluster, Started, Submitted, wait_for

pytestmark = pytest.mark.slurm
GPU_RULES = ("dsm", "fit", "texture")
TWO_TILES_A_JOB = ("--config", "workflow={pack: {divisions: true, tiles: 2}, on_code_change: warn}")


@dataclass(frozen=True)
class Story:
    """What happened while the mini city was made on the cluster."""

    run: ClusterRun
    submitted: list[Submitted]
    started: list[Started]
    hit: set[str]  # jobs that ran on the node when it died
    restored: str  # its state after it came back

    def of_rule(self, rule: str) -> list[Submitted]:
        return [each for each in self.submitted if each.rule.split("_E")[0] == rule]


@pytest.fixture(scope="module")
def here(
    cluster: PrivateCluster, mini_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterRun]:
    """The same city without a cluster, beside it: the cluster's run leaves a machine idle while it waits."""
    run = ClusterRun(cluster, tmp_path_factory.mktemp("local"), mini_values)
    process = run.start("--cores", "1", local=True)
    yield run
    process.kill()
    process.wait()
    shutil.rmtree(run.folder)


@pytest.fixture(scope="module")
def story(
    here: ClusterRun, cluster: PrivateCluster, mini_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Story:
    run = ClusterRun(cluster, tmp_path_factory.mktemp("cluster"), mini_values)
    process = run.start(*TWO_TILES_A_JOB, *requests(survey={"mem_mb": "100*attempt**4"}))

    def victims() -> set[str]:
        running = [job for job in cluster.jobs() if job["state"] == "RUNNING" and job["node"] == "node2"]
        return {job["job_id"] for job in running if job["comment"].startswith("rule_dsm")}

    wait_for(lambda: bool(victims()) or process.poll() is not None, "a dsm job on node2", timeout_s=600)
    assert process.poll() is None, run.text()[-5000:]
    wait_for(lambda: victims() <= {each.job_id for each in cluster.started()}, "it works")
    hit = victims()
    cluster.kill_node("node2")
    wait_for(lambda: cluster.node_state("node2").startswith("down"), "node2 found dead")
    time.sleep(2)
    cluster.restore_node("node2")
    restored = cluster.node_state("node2")
    code, text = run.finish(process)
    assert code == 0, text[-5000:] + cluster.diagnosis()
    return Story(run, cluster.submitted(), cluster.started(), hit, restored)


def test_products_are_those_of_a_laptop(story: Story, here: ClusterRun) -> None:
    wait_for((here.city / "verdict.json").exists, "the local run", timeout_s=600)
    assert products(story.run.city) == products(here.city)


def test_jobs_ran_on_both_nodes(story: Story) -> None:
    assert {each.node for each in story.started} == set(NODES)


def test_every_gpu_rule_holds_one_gpu_and_no_other_any(story: Story) -> None:
    gpus = {each.job_id: len(each.gpus) for each in story.started}
    for each in story.submitted:
        rule = each.rule.split("_E")[0]
        wanted = rule in GPU_RULES
        assert each.value("--gpus") == ("1" if wanted else None), each.rule
        assert each.value("-p") == ("gpu" if wanted else "cpu"), each.rule
        if each.job_id in gpus:
            assert gpus[each.job_id] == wanted, each.rule
    assert all(story.of_rule(rule) for rule in GPU_RULES)


def test_a_job_over_its_memory_asks_for_more(story: Story) -> None:
    survey = story.of_rule("survey")
    assert [each.value("--mem") for each in survey] == ["100", "1600"]
    assert [each.value("-t") for each in survey] == ["60", "120"]


def test_a_dead_node_costs_the_jobs_that_ran_on_it(story: Story) -> None:
    starts = Counter(each.job_id for each in story.started)
    assert story.hit and {job for job, count in starts.items() if count > 1} == story.hit
    assert story.restored in ("idle", "mix", "alloc")


def test_nothing_was_submitted_twice_but_the_retry(story: Story) -> None:
    """5 stages of 4 tiles, two a job; 6 jobs of the city; survey once more."""
    rules = Counter(each.rule.split("_E")[0] for each in story.submitted)
    assert rules.pop("survey") == 2
    assert rules == dict.fromkeys(("ingest", "dsm", "fit", "mesh", "texture"), 2) | dict.fromkeys(
        ("synth", "merge_heights", "merge_city", "evaluate", "report"), 1
    )


def test_one_division_and_its_mesh_are_the_jobs_that_the_docs_promise(story: Story) -> None:
    """docs/cluster.md: 1 job for the division, 1 for the mesh of its tile."""
    cluster, run = story.run.cluster, story.run
    before = products(run.city)
    tile = sorted((run.city / "tiles").iterdir())[0].relative_to(run.folder)
    cluster.forget()
    run.succeed(
        "--workflow-profile", "profiles/unpacked", "--forcerun", f"{tile}/sdf_2.json", "--", f"{tile}/mesh.json"
    )
    assert sorted(each.rule for each in cluster.submitted()) == ["fit_division", "mesh"]
    assert products(run.city) == before
