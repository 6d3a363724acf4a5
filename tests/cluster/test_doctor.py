"""What `cityweave doctor` finds on a real cluster, and a GPU rule that meets no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT
from .private import NODES, PrivateCluster

pytestmark = pytest.mark.slurm


def call(cluster: PrivateCluster, folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**cluster.environment, **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip


def doctor(cluster: PrivateCluster, folder: Path, profile: Path, *options: str, **variables: str) -> tuple[int, str]:
    command = (sys.executable, "-m", "cityweave", "doctor", "--profile", str(profile), "--timeout-s", "60", *options)
    result = call(cluster, folder, *command, **variables)
    return result.returncode, result.stdout + result.stderr


def test_the_committed_profile_suits_the_cluster(cluster: PrivateCluster, tmp_path: Path) -> None:
    code, text = doctor(cluster, tmp_path, ROOT / "profiles" / "slurm", "--gpu")
    assert code == 0, text
    assert any(f"ran on {node} in partition gpu" in text for node in NODES)
    assert "accounting_storage/none, asked by squeue" in text and "held GPU" in text
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden files count


def test_a_profile_for_another_site_is_told_what_to_change(cluster: PrivateCluster, tmp_path: Path) -> None:
    text = (ROOT / "profiles" / "slurm" / "config.v9+.yaml").read_text()
    changed = text.replace("&gpu gpu", "&gpu a100").replace(
        "slurm-status-command: squeue", "slurm-status-command: sacct"
    )
    (tmp_path / "config.v9+.yaml").write_text(changed)
    code, said = doctor(cluster, tmp_path, tmp_path, "--no-job")
    assert code == 4
    assert "partition a100 doesn't exist; set slurm_partition to one of cpu (2 GPU), gpu (2 GPU), urgent" in said
    assert "set slurm-status-command: squeue" in said


def test_a_gpu_rule_without_a_visible_gpu_names_its_node(cluster: PrivateCluster, tmp_path: Path) -> None:
    """A stand-in is held, and no driver shows it: what a broken node looks like."""
    job = (sys.executable, "-m", "cityweave", "dsm", "--run", "nowhere", "--tile", "E0_N0")
    granted = ("srun", "--partition=gpu", "--gres=gpu:1", "--nodelist=node2")
    for command, variables in ((job, {"CITYWEAVE_DEVICE": "auto"}), ((*job, "--device", "cuda"), {})):
        result = call(cluster, tmp_path, *granted, *command, **variables)
        assert result.returncode == 4, result.stderr
        assert "node2" in result.stderr and "CUDA_VISIBLE_DEVICES" in result.stderr


RECORDS = """
import json, sys, time
from pathlib import Path
from cityweave.manifest import Run, run_job
from cityweave.plan import load_config
config = load_config(json.loads(Path("city.json").read_text()))
Path("config.json").write_text(json.dumps(config.model_dump(mode="json")))
run_job(Run.open(Path(".")), "survey", lambda products: time.sleep(1))
"""


def test_a_job_that_holds_a_gpu_records_it(
    cluster: PrivateCluster, tmp_path: Path, mini_values: dict[str, object]
) -> None:
    (tmp_path / "city.json").write_text(json.dumps(mini_values))
    work = (sys.executable, "-c", RECORDS)
    for options, held in ((("--partition=gpu", "--gres=gpu:1"), True), (("--partition=cpu",), False)):
        result = call(cluster, tmp_path, "srun", *options, *work)
        assert result.returncode == 0, result.stderr
        record = json.loads((tmp_path / "city" / "survey.run.json").read_text())
        assert ("gpu" in record) == held
        if held:
            assert record["gpu"]["count"] == 1 and 1 <= record["gpu"]["seconds"] < 30
            assert record["gpu"]["model"] is None and "nvidia-smi is not there" in record["gpu"]["note"]
    status = call(cluster, tmp_path, sys.executable, "-m", "cityweave", "status", "--run", ".")
    assert status.returncode == 0 and "missing" in status.stdout
