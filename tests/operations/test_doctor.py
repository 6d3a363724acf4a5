"""Sites made of small scripts on PATH. The real cluster of tests/cluster is asked there."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from cityweave.cli import main
from cityweave.operations.doctor import examine, read_partitions

PROFILE = """
executor: slurm
jobs: 20
slurm-status-command: squeue
default-resources: {slurm_partition: cpu, mem_mb: 4000, runtime: 60}
set-resources:
  dsm: {slurm_partition: gpu, gpu: 1}
"""
SCRIPTS = {
    "scontrol": 'case "$1" in ping) echo "Slurmctld(primary) at head is UP";; '
    '*) echo "AccountingStorageType   = accounting_storage/none";; esac',
    "sinfo": "printf 'cpu|up|(null)|8000|1-00:00:00|idle\\ngpu|up|gpu:h100:4(S:0)|64000|infinite|mixed\\n"
    "old|up|(null)|8000|1:00:00|down\\nmute|up|(null)|8000|1:00:00|idle*\\n'",
    "squeue": "true",
    "scancel": "true",
    "hostname": "echo node7",
    "sbatch": 'for last; do :; done; CUDA_VISIBLE_DEVICES=0 sh "$last" >/dev/null 2>&1; echo "17;here"',
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy site; the working folder is on its shared file system."""
    for name, body in SCRIPTS.items():
        script(tmp_path, name, body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "cityweave.operations.doctor.shutil.which", lambda name: (tmp_path / "bin" / name).exists() or None
    )
    monkeypatch.delenv("CITYWEAVE_FETCHED", raising=False)
    monkeypatch.delenv("CITYWEAVE_DEVICE", raising=False)
    profile(tmp_path, PROFILE)
    return tmp_path


def script(site: Path, name: str, body: str) -> None:
    path = site / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def profile(site: Path, text: str) -> None:
    (site / "profile").mkdir(exist_ok=True)
    (site / "profile" / "config.v9+.yaml").write_text(text)


def ask(site: Path, *, gpu: bool = False, submit: bool = False, timeout_s: float = 20.0) -> tuple[int, str]:
    said: list[str] = []
    code = examine(site / "profile", gpu=gpu, submit=submit, timeout_s=timeout_s, say=said.append)
    return code, "\n".join(said)


def test_a_healthy_site(site: Path) -> None:
    code, text = ask(site, submit=True)
    assert code == 0, text
    assert "17 ran on node7 in partition cpu" in text and "from " in text and "all is well" in text
    assert not list(site.glob(".doctor-*"))


def test_partitions_are_read(site: Path) -> None:
    found = read_partitions()
    assert found["cpu"].limit_min == 1440 and found["gpu"].limit_min is None
    assert found["gpu"].gpus == {"h100": 4} and not found["old"].up


def test_without_slurm(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "bin" / "sbatch").unlink()
    assert main(["doctor", "--profile", str(site / "profile"), "--no-job"]) == 4
    assert "no sbatch on PATH" in capsys.readouterr().out


def test_no_profile(site: Path) -> None:
    code, text = examine(site, gpu=False, submit=False, timeout_s=1, say=lambda _: None), "any"
    assert code == 4 and text


def test_a_controller_that_is_down(site: Path) -> None:
    script(site, "scontrol", 'echo "Slurmctld(primary) at head is DOWN"; exit 1')
    assert "slurmctld doesn't answer" in ask(site)[1]


def test_sacct_without_accounting_is_changed_to_squeue(site: Path) -> None:
    profile(site, PROFILE.replace("squeue", "sacct"))
    code, text = ask(site)
    assert code == 4 and "a run would wait for ever; set slurm-status-command: squeue" in text


def test_accounting_that_works(site: Path) -> None:
    script(site, "scontrol", SCRIPTS["scontrol"].replace("/none", "/slurmdbd"))
    script(site, "sacct", "true")
    assert "sacct would work, too" in ask(site)[1]
    profile(site, PROFILE.replace("squeue", "sacct"))
    assert ask(site)[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "slurm_partition: cpu",
            "slurm_partition: fast",
            "partition fast doesn't exist; set slurm_partition to one of",
        ),
        ("slurm_partition: gpu, gpu: 1", "gpu: 1", "dsm: 1 GPU asked of partition cpu, which has none"),
        ("gpu: 1", "gpu: 8", "8 GPU asked of partition gpu, which has 4 a node"),
        ("gpu: 1", "gpu: 1, gpu_model: a100", "GPU model a100 isn't in partition gpu; it has h100"),
        ("mem_mb: 4000", "mem_mb: 9000 * attempt", "mem_mb 9000 is more than a node of cpu has; at most 8000"),
        ("runtime: 60", "runtime: 2d", "runtime 2880 is over the limit of cpu; at most 1440 minutes"),
        ("slurm_partition: cpu", "slurm_partition: mute", "partition mute has no node that is up"),
        ("slurm_partition: cpu", "slurm_partition: old", "partition old has no node that is up"),
        ("dsm:", "dsn:", "set-resources names dsn"),
        ("executor: slurm", "executor: local", "set slurm"),
    ],
)
def test_what_a_profile_asks_for_and_the_site_has_not(site: Path, old: str, new: str, said: str) -> None:
    profile(site, PROFILE.replace(old, new))
    code, text = ask(site)
    assert code == 4 and said in text


def test_a_file_system_that_is_not_shared(site: Path) -> None:
    script(site, "sbatch", "echo 17")
    assert "no file system that its node shares" in ask(site, submit=True, timeout_s=0.5)[1]


def test_a_job_that_dies_with_its_node(site: Path) -> None:
    script(site, "sbatch", "echo 17")
    state = "JobId=17 JobState=NODE_FAIL Reason=None ExitCode=0:0 NodeList=node3"
    script(site, "scontrol", SCRIPTS["scontrol"].replace("ping)", f'show) [ "$2" != job ] || echo "{state}";; ping)'))
    assert "is NODE_FAIL (None, exit 0:0) on node3" in ask(site, submit=True, timeout_s=0.5)[1]


def test_a_job_that_never_starts_is_taken_back(site: Path) -> None:
    script(site, "sbatch", "echo 17")
    script(site, "squeue", 'case "$*" in *%r*) echo Resources;; *) echo PENDING;; esac')
    script(site, "scancel", f'echo "$@" > {site}/cancelled')
    text = ask(site, submit=True, timeout_s=0.5)[1]
    assert "job 17 in partition cpu is PENDING after 0 s (Resources); taken back" in text
    assert (site / "cancelled").read_text() == "17\n"


def test_a_node_without_the_environment(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    text = ask(site, submit=True)[1]
    assert "/nowhere/python can't import cityweave on node7" in text


def test_a_gpu_that_the_driver_does_not_show(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ask(site, submit=True, gpu=True)[1]
    assert "ran on node7 in partition gpu" in text and "held GPU 0, but the driver shows none on node7" in text
    monkeypatch.setenv("CITYWEAVE_DEVICE", "cpu")
    assert ask(site, submit=True, gpu=True)[0] == 0


def test_sbatch_refuses(site: Path) -> None:
    script(site, "sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    assert "sbatch refuses in partition cpu: sbatch: error: Invalid account" in ask(site, submit=True)[1]
