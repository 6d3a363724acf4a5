"""What clusters do to runs, one fault at a time, in the middle of the mini city: always the same products."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ClusterRun, products, requests
from .private import PrivateCluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
TWO_TILES_A_JOB = ("--config", "workflow={pack: {divisions: true, tiles: 2}, on_code_change: warn}")
# From the textures on: 4 tiles, two a job.
JOBS = Counter({"texture": 2, "merge_city": 1, "evaluate": 1, "report": 1})
KEPT = {"config.json", "city", "tiles", "sources", "logs", "benchmarks", "city_dsm.tif", "city_dtm.tif", "city.zarr"}


@pytest.fixture(scope="module")
def done(cluster: PrivateCluster, mini_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ClusterRun:
    """The mini city, made without a cluster."""
    run = ClusterRun(cluster, tmp_path_factory.mktemp("local"), mini_values)
    run.succeed(*TWO_TILES_A_JOB, local=True)
    return run


@pytest.fixture
def halfway(
    done: ClusterRun, cluster: PrivateCluster, mini_values: dict[str, Any], tmp_path: Path
) -> Iterator[ClusterRun]:
    """The same, up to the meshes."""
    folder = tmp_path / "run"
    shutil.copytree(done.folder, folder)
    run = ClusterRun(cluster, folder, mini_values)
    run.log.unlink()
    for path in run.city.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    late = [*(run.city / "tiles").glob("*/*"), *(run.city / "city").iterdir()]
    for path in late:
        if path.name.startswith(("texture", "merge_city", "evaluate", "report")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    cluster.forget()
    yield run
    cluster.call("scancel", f"--user={cluster.user}", check=False)
    shutil.rmtree(folder, ignore_errors=True)


def rule(comment: str) -> str:
    return comment.removeprefix("rule_").split("_wildcards_")[0].split("_E")[0]


def working(cluster: PrivateCluster, name: str) -> list[dict[str, str]]:
    """Jobs of a rule that run and whose work has begun."""
    begun = {each.job_id for each in cluster.started()}
    return [
        j for j in cluster.jobs() if j["state"] == "RUNNING" and rule(j["comment"]) == name and j["job_id"] in begun
    ]


def catch(cluster: PrivateCluster, name: str) -> dict[str, str]:
    """One job of a rule, in the middle of its work."""
    wait_for(lambda: bool(working(cluster, name)), f"a {name} job at work", timeout_s=400)
    return working(cluster, name)[0]


def submitted(cluster: PrivateCluster) -> Counter[str]:
    return Counter(rule(each.comment) for each in cluster.submitted())


def restarted(cluster: PrivateCluster) -> set[str]:
    return {job for job, count in Counter(each.job_id for each in cluster.started()).items() if count > 1}


def asked(cluster: PrivateCluster, name: str, option: str) -> list[str | None]:
    return sorted((each.value(option) for each in cluster.submitted() if rule(each.comment) == name), key=str)


def ends_well(run: ClusterRun, process: subprocess.Popen[bytes], done: ClusterRun) -> str:
    code, text = run.finish(process, timeout_s=900)
    assert code == 0, text[-6000:] + run.cluster.diagnosis()
    assert products(run.city) == products(done.city)
    return text


def processes_of(cluster: PrivateCluster, job_id: str) -> list[int]:
    """The stage's own process within a job."""
    found = []
    for process in cluster.own_processes():
        folder = Path("/proc") / str(process.pid)
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURM_JOB_ID={job_id}".encode() in environment and command[1:3] == [b"-m", b"cityweave"]:
            found.append(process.pid)
    return found


def test_scancel_of_a_running_job(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB)
    cluster.call("scancel", catch(cluster, "texture")["job_id"])
    ends_well(halfway, process, done)
    assert submitted(cluster) == JOBS + Counter({"texture": 1})
    assert asked(cluster, "texture", "--mem") == ["16000", "16000", "32000"]


def test_a_job_over_its_time_asks_for_more(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB, *requests(texture={"runtime": "2*attempt"}))
    job = catch(cluster, "texture")["job_id"]
    wait_for(lambda: bool(processes_of(cluster, job)), "the stage itself", timeout_s=60, every_s=0.05)
    for pid in processes_of(cluster, job):
        os.kill(pid, signal.SIGSTOP)  # hangs, as on a file system that doesn't answer
    ends_well(halfway, process, done)
    assert submitted(cluster) == JOBS + Counter({"texture": 1})
    assert asked(cluster, "texture", "-t") == ["2", "2", "4"]


def test_preemption_requeues(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB)
    job = catch(cluster, "texture")
    cluster.call(
        "sbatch", "--parsable", "-p", "urgent", "-w", job["node"], "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5"
    )
    ends_well(halfway, process, done)
    jobs = submitted(cluster)
    jobs.subtract({"": 1})  # the urgent one
    assert +jobs == JOBS
    assert job["job_id"] in restarted(cluster)


def test_a_node_dies_and_comes_back(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB)
    job = catch(cluster, "texture")
    hit = {each["job_id"] for each in working(cluster, "texture") if each["node"] == job["node"]}
    cluster.kill_node(job["node"])
    wait_for(lambda: cluster.node_state(job["node"]).startswith("down"), "the node found dead")
    time.sleep(5)
    cluster.restore_node(job["node"])
    ends_well(halfway, process, done)
    assert submitted(cluster) == JOBS
    assert restarted(cluster) == hit


def both_at_work(cluster: PrivateCluster) -> list[int]:
    """The stage's processes, once both jobs have come that far."""

    def found() -> list[int]:
        return [pid for job in working(cluster, "texture") for pid in processes_of(cluster, job["job_id"])]

    wait_for(lambda: len(found()) >= 2, "both texture jobs in their stage", timeout_s=400, every_s=0.05)
    return found()


def test_snakemake_killed_and_started_again(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB)
    held = both_at_work(cluster)
    for pid in held:
        os.kill(pid, signal.SIGSTOP)  # still there when the next run starts
    process.kill()
    process.wait()
    first = submitted(cluster)
    code, text = halfway.run(*TWO_TILES_A_JOB)
    assert code != 0 and "cannot be locked" in text
    halfway.succeed(*TWO_TILES_A_JOB, "--unlock")
    code, text = halfway.run(*TWO_TILES_A_JOB)
    assert code != 0 and "SLURM jobs of an earlier run in" in text and "scancel" in text, text[-3000:]
    assert submitted(cluster) == first
    for pid in held:
        os.kill(pid, signal.SIGCONT)
    wait_for(
        lambda: not [j for j in cluster.jobs() if j["state"] in ("RUNNING", "PENDING")], "left jobs", timeout_s=300
    )
    ends_well(halfway, halfway.start(*TWO_TILES_A_JOB), done)
    assert submitted(cluster) == JOBS, "what the left jobs finished counts"


def test_the_controller_restarts(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB)
    both_at_work(cluster)
    cluster.stop_controller()
    time.sleep(12)
    cluster.start_controller()
    ends_well(halfway, process, done)
    assert submitted(cluster) == JOBS
    assert restarted(cluster) == set()


def test_a_full_disk_under_one_job(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    tile = sorted((halfway.city / "tiles").iterdir())[0]
    used = sum(file.stat().st_size + 4096 for file in tile.rglob("*"))
    aside = tile.with_name("aside")
    tile.rename(aside)
    tile.mkdir()
    size = used + 300_000
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tile)], capture_output=True)
    if mounted.returncode:
        tile.rmdir()
        pytest.skip("no right to mount a small file system")
    try:
        shutil.copytree(aside, tile, dirs_exist_ok=True)
        shutil.rmtree(aside)
        free = shutil.disk_usage(tile).free
        (tile / "filler").write_bytes(b"\0" * max(0, free - 8192))
        process = halfway.start(*TWO_TILES_A_JOB)
        wait_for(lambda: submitted(cluster)["texture"] == 3, "a second attempt", timeout_s=400)
        (tile / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=200M", str(tile)], check=True)
        text = ends_well(halfway, process, done)
    finally:
        subprocess.run(["umount", "-l", str(tile)], check=True)
    assert "No space left on device" in text
    extra = submitted(cluster) - JOBS
    assert set(extra) == {"texture"} and extra["texture"] <= 2


def test_a_second_run_at_once_is_refused(halfway: ClusterRun, done: ClusterRun) -> None:
    cluster = halfway.cluster
    process = halfway.start(*TWO_TILES_A_JOB)
    catch(cluster, "texture")
    second = subprocess.run(
        halfway.command(*TWO_TILES_A_JOB),
        cwd=Path(halfway.command()[2]).parent,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout + second.stderr
    assert process.poll() is None
    ends_well(halfway, process, done)
    assert submitted(cluster) == JOBS
