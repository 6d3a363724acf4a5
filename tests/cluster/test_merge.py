"""Merging with SLURM jobs as workers, on a real cluster: same bytes, both nodes, nothing left in the queue."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cityweave.manifest import Manifest, Run, content_hash
from cityweave.merge.workers import JOB_NAME
from cityweave.plan import city_tiles
from cityweave.texture import job as texture_job
from tests.texture import scene

from .conftest import UNPACKED, ClusterRun, products
from .private import NODES, PrivateCluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
PRODUCTS = ("city_dsm.tif", "city_dtm.tif", "city.zarr", "tiles3d", "city.glb", "tiles.geojson", "stac")
MERGES = ("merge-heights", "merge-city")
ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
SLEEPERS = """
import time
from pathlib import Path
from cityweave.config import MergeConfig
from cityweave.merge.workers import open_workers
with open_workers(MergeConfig(workers=2, cluster="slurm"), 1, 8, Path("scratch")) as workers:
    print(len(dict(workers.map(time.sleep, {f"t{n}": 4.0 for n in range(8)}))), "slept", flush=True)
"""


def hashes(run: Run) -> dict[str, str]:
    manifests = [run.manifest_path(name.replace("-", "_")) for name in MERGES]
    return {path.name: content_hash(path) for path in [*(run.folder / name for name in PRODUCTS), *manifests]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, str]]:
    """A city of 2 x 2 tiles, merged in one process; its configuration names SLURM."""
    from cityweave.merge import job

    run = scene.make_run(tmp_path_factory.mktemp("city") / "results" / "boxes")
    for tile in city_tiles(run.config):
        texture_job.run(run, tile)
    job.heights(run)
    job.city(run)
    write_config(run)
    return run, hashes(run)


def write_config(run: Run, **slurm: Any) -> None:
    values = run.config.model_dump(mode="json")
    values["merge"] |= {"workers": 2, "cluster": "slurm", "slurm": {"memory_mb": 2000, "partition": "cpu", **slurm}}
    (run.folder / "config.json").write_text(json.dumps(values))


def merge(cluster: PrivateCluster, run: Run, command: str) -> subprocess.CompletedProcess[str]:
    """As a rule's shell calls it, with relative paths."""
    return subprocess.run(
        [sys.executable, "-m", "cityweave", command, "--run", f"results/{run.folder.name}"],
        cwd=run.folder.parent.parent,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def worker_jobs(cluster: PrivateCluster) -> list[dict[str, str]]:
    return [job for job in cluster.jobs() if job["name"] == JOB_NAME]


def wait_until_gone(cluster: PrivateCluster, timeout_s: float = 60) -> None:
    wait_for(lambda: all(job["state"] in ENDED for job in worker_jobs(cluster)), "no worker left", timeout_s=timeout_s)


@pytest.mark.parametrize("command", MERGES)
def test_slurm_jobs_on_both_nodes_make_the_same_bytes(
    cluster: PrivateCluster, made: tuple[Run, dict[str, str]], command: str
) -> None:
    run, expected = made
    before = {job["job_id"] for job in worker_jobs(cluster)}
    for name in PRODUCTS[:3] if command == "merge-heights" else PRODUCTS[3:]:
        path = run.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = merge(cluster, run, command)
    assert result.returncode == 0, result.stderr + cluster.diagnosis()
    assert hashes(run) == expected
    wait_until_gone(cluster)
    own = [job for job in worker_jobs(cluster) if job["job_id"] not in before]
    assert {job["node"] for job in own} == set(NODES)
    name = command.replace("-", "_")
    record = json.loads((run.folder / "city" / f"{name}.run.json").read_text())
    assert record["workers"]["count"] == 2
    assert record["workers"]["beside"] is False
    assert not list((run.folder / "logs" / f"{name}_workers").glob(".dask*")), "keys are left behind"


def test_an_error_in_a_tile_names_it_and_leaves_no_job(
    cluster: PrivateCluster, made: tuple[Run, dict[str, str]]
) -> None:
    run, expected = made
    tile = city_tiles(run.config)[1]
    product = Manifest.read(run.manifest_path("dsm", tile)).product("dsm")
    hidden = product.rename(product.with_name("hidden"))
    result = merge(cluster, run, "merge-heights")
    hidden.rename(product)
    assert result.returncode == 3, result.stderr
    assert f"DataError: {tile.name}: " in result.stderr.splitlines()[-1]
    wait_until_gone(cluster)
    assert merge(cluster, run, "merge-heights").returncode == 0
    assert hashes(run) == expected


def test_a_request_that_slurm_refuses_is_told_at_once(
    cluster: PrivateCluster, made: tuple[Run, dict[str, str]]
) -> None:
    run, _ = made
    before = len(worker_jobs(cluster))
    write_config(run, partition="nosuch")
    result = merge(cluster, run, "merge-heights")
    write_config(run)
    assert result.returncode == 2, result.stderr
    assert "Slurm refuses the workers that merge.slurm describes" in result.stderr
    assert "partition" in result.stderr
    assert len(worker_jobs(cluster)) == before
    assert merge(cluster, run, "merge-heights").returncode == 0


@pytest.fixture
def sleepers(cluster: PrivateCluster, tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SLEEPERS],
            cwd=tmp_path,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(working(cluster)) == 2, "two workers", timeout_s=120)
        time.sleep(6)  # both have tasks
        return process

    return start


def working(cluster: PrivateCluster) -> list[str]:
    return [job["job_id"] for job in worker_jobs(cluster) if job["state"] == "RUNNING"]


def test_workers_that_are_taken_away_are_replaced(
    cluster: PrivateCluster, sleepers: Callable[[], subprocess.Popen[str]]
) -> None:
    process = sleepers()
    first = working(cluster)
    cluster.call("scancel", *first)
    output, errors = process.communicate(timeout=300)
    assert output.strip() == "8 slept", errors + cluster.diagnosis()
    wait_until_gone(cluster)


@pytest.mark.parametrize("kill", ["terminate", "kill"])
def test_workers_end_with_their_job(
    cluster: PrivateCluster, sleepers: Callable[[], subprocess.Popen[str]], kill: str
) -> None:
    process = sleepers()
    getattr(process, kill)()
    process.communicate(timeout=60)
    wait_until_gone(cluster, timeout_s=120)


def test_the_workflow_merges_on_slurm_and_reruns_nothing_for_it(
    cluster: PrivateCluster, mini_values: dict[str, Any], tmp_path: Path
) -> None:
    run = ClusterRun(cluster, tmp_path, mini_values)
    run.succeed("--config", UNPACKED, local=True)
    expected = products(run.city)
    merge = {"workers": 2, "cluster": "slurm", "slurm": {"partition": "cpu", "memory_mb": 2000}}
    (tmp_path / "city.yaml").write_text(yaml.safe_dump(mini_values | {"merge": merge}))
    assert "Nothing to be done" in run.succeed("--config", UNPACKED, "--dry-run", local=True)
    before = len(worker_jobs(cluster))
    targets = [f"results/mini/city/{name.replace('-', '_')}.json" for name in MERGES]
    run.succeed("--config", UNPACKED, "--forcerun", *targets, "--", *targets)
    assert products(run.city) == expected
    assert len(worker_jobs(cluster)) >= before + 4
    wait_until_gone(cluster)
    for name in MERGES:
        record = json.loads((run.city / "city" / f"{name.replace('-', '_')}.run.json").read_text())
        assert record["workers"]["beside"] is False
