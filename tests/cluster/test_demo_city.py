"""The demo city on the second tier, with accounting: through the profile as a site with sacct would have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, ClusterRun, need_slurm, products
from .private import NODES, PrivateCluster, Submitted, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
GPU_RULES = ("cityscale", "stereo", "fit", "texture")
WITH_ACCOUNTING = (
    *("--slurm-status-command", "sacct", "--slurm-efficiency-report"),
    *("--config", "workflow={pack: {divisions: true, tiles: 2}, on_code_change: warn}"),
)


@pytest.fixture(scope="module")
def accounted() -> Iterator[PrivateCluster]:
    need_slurm(accounting=True)
    with PrivateCluster(accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def here(accounted: PrivateCluster, tmp_path_factory: pytest.TempPathFactory) -> ClusterRun:
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    run = ClusterRun(accounted, tmp_path_factory.mktemp("local"), values)
    run.succeed("--config", "workflow={on_code_change: warn}", local=True, timeout_s=1800)
    return run


@pytest.fixture(scope="module")
def there(accounted: PrivateCluster, tmp_path_factory: pytest.TempPathFactory) -> ClusterRun:
    """On the cluster; a node dies while it measures heights."""
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    run = ClusterRun(accounted, tmp_path_factory.mktemp("cluster"), values)
    process = run.start(*WITH_ACCOUNTING)

    def at_work() -> bool:
        begun = {each.job_id for each in accounted.started()}
        return process.poll() is not None or any(
            job["comment"].startswith("rule_stereo") and job["node"] == "node2" and job["job_id"] in begun
            for job in accounted.jobs()
            if job["state"] == "RUNNING"
        )

    wait_for(at_work, "heights measured on node2", timeout_s=900)
    accounted.kill_node("node2")
    wait_for(lambda: accounted.node_state("node2").startswith("down"), "node2 found dead")
    accounted.restore_node("node2")
    code, text = run.finish(process, timeout_s=2400)
    assert code == 0, text[-6000:] + accounted.diagnosis()
    return run


def test_the_demo_city_is_the_same_to_the_byte(here: ClusterRun, there: ClusterRun) -> None:
    assert products(there.city) == products(here.city)


def test_jobs_on_both_nodes_each_gpu_rule_with_one_gpu(there: ClusterRun) -> None:
    cluster = there.cluster
    assert {each.node for each in cluster.started()} == set(NODES)
    gpus = {each.job_id: len(each.gpus) for each in cluster.started()}
    for each in cluster.submitted():
        wanted = each.rule.split("_E")[0] in GPU_RULES
        assert gpus[each.job_id] == wanted, each.rule


def test_the_dead_node_cost_one_start(there: ClusterRun) -> None:
    starts = Counter(each.job_id for each in there.cluster.started())
    again = [each.rule for each in there.cluster.submitted() if starts[each.job_id] > 1]
    assert len(again) == 1 and again[0].startswith("stereo")


def accounts(run: ClusterRun) -> list[tuple[Submitted, dict[str, str]]]:
    """What sacct says of every job that was submitted."""
    names = ("JobID", "State", "AllocTRES", "ElapsedRaw")
    lines = run.cluster.call("sacct", "-X", "-n", "-P", "-o", ",".join(names)).stdout.splitlines()
    rows = {line.split("|")[0]: dict(zip(names, line.split("|"), strict=True)) for line in lines}
    return [(each, rows[each.job_id]) for each in run.cluster.submitted()]


def test_accounting_saw_every_job_end_well(there: ClusterRun) -> None:
    for each, row in accounts(there):
        assert row["State"] == "COMPLETED", each.rule
        assert ("gres/gpu=1" in row["AllocTRES"]) == (each.rule.split("_E")[0] in GPU_RULES)


def test_an_efficiency_report_is_written(there: ClusterRun) -> None:
    reports = [file for folder in (there.folder, ROOT) for file in Path(folder).glob("efficiency_report_*.csv")]
    assert reports
    for file in ROOT.glob("efficiency_report_*.csv"):
        file.unlink()


def test_one_tile_without_its_merges_is_the_jobs_that_the_docs_promise(there: ClusterRun) -> None:
    """docs/cluster.md: 6 jobs. Last in this file: it counts jobs anew."""
    before = products(there.city)
    tile = sorted((there.city / "tiles").iterdir())[0].relative_to(there.folder)
    there.cluster.forget()
    alone = ("--workflow-profile", "profiles/unpacked", "--slurm-status-command", "sacct")
    there.succeed(*alone, "--forcerun", f"{tile}/dsm.json", "--", f"{tile}/mesh.json")
    assert sorted(each.rule for each in there.cluster.submitted()) == ["fuse", *["fit_division"] * 4, "mesh"]
    assert products(there.city) == before
