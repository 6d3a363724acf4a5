from __future__ import annotations

import json
from pathlib import Path

import pytest

from cityweave import gpu
from cityweave.cli import main
from cityweave.errors import ConfigError, MissingCapability
from cityweave.manifest import Products, Run, run_job
from cityweave.operations.costs import gpu_report, recorded
from cityweave.plan import city_tiles, load_config


@pytest.fixture
def run(tmp_path: Path, city_values: dict) -> Run:
    (tmp_path / "config.json").write_text(json.dumps(load_config(city_values).model_dump(mode="json")))
    return Run.open(tmp_path)


@pytest.fixture
def in_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A job that holds device 0 on a node without a driver."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.setattr(gpu, "visible_gpus", list)
    return monkeypatch


def with_nvidia_smi(folder: Path, patch: pytest.MonkeyPatch, lines: str) -> None:
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '{lines}'\nexec sleep 60\n")
    program.chmod(0o755)
    patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def waits(products: Products) -> None:
    import time

    time.sleep(0.2)


def test_cuda_without_a_gpu_names_the_node_and_exits_with_4(
    in_slurm: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = main(["dsm", "--run", str(tmp_path), "--tile", "E0_N0", "--device", "cuda"])
    text = capsys.readouterr().err
    assert code == 4 and "node7" in text and "job 17" in text and "CUDA_VISIBLE_DEVICES is '0'" in text


def test_auto_is_cuda_in_a_job_that_was_given_a_gpu(in_slurm: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingCapability, match="Slurm gave this job a GPU"):
        gpu.require("auto")
    gpu.require("cpu")
    in_slurm.delenv("SLURM_JOB_GPUS")
    gpu.require("auto")


def test_an_unknown_device_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        gpu.require("tpu")


def test_only_a_slurm_job_holds_devices() -> None:
    assert gpu.held_devices({"CUDA_VISIBLE_DEVICES": "0"}) == []
    assert gpu.held_devices({"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}) == []
    assert gpu.held_devices({"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "0,GPU-ab"}) == ["0", "GPU-ab"]


def test_a_record_says_that_the_model_is_unknown(run: Run, in_slurm: pytest.MonkeyPatch) -> None:
    in_slurm.setenv("PATH", "/nonexistent")
    path = run_job(run, "dsm", waits, tile=city_tiles(run.config)[0]).path
    held = json.loads(path.with_name("dsm.run.json").read_text())["gpu"]
    assert held["count"] == 1 and held["model"] is None and held["peak_memory_mb"] is None
    assert held["seconds"] >= 0.2 and "nvidia-smi" in held["note"]


def test_a_record_holds_model_seconds_and_peak_and_the_manifest_does_not(
    run: Run, in_slurm: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tile = city_tiles(run.config)[0]
    bare = run_job(run, "dsm", waits, tile=tile).path.read_bytes()
    with_nvidia_smi(tmp_path, in_slurm, r"NVIDIA H100 80GB HBM3, 1000\nNVIDIA H100 80GB HBM3, 3000\nNVIDIA H1")
    path = run_job(run, "dsm", waits, tile=tile).path
    held = json.loads(path.with_name("dsm.run.json").read_text())["gpu"]
    assert held["model"] == "NVIDIA H100 80GB HBM3" and held["peak_memory_mb"] == pytest.approx(3145.7)
    assert "note" not in held and path.read_bytes() == bare


def test_gpu_hours_are_summed_by_kind_and_area(run: Run, in_slurm: pytest.MonkeyPatch) -> None:
    assert gpu_report(run) == []
    for tile in city_tiles(run.config)[:2]:
        path = run_job(run, "dsm", waits, tile=tile).path.with_name("dsm.run.json")
        record = json.loads(path.read_text())
        record["gpu"] = {"count": 1, "model": "H200", "seconds": 1800.0, "peak_memory_mb": 900.0}
        path.write_text(json.dumps(record))
    assert recorded(run)["dsm"].gpu_s == 3600.0
    first, total = gpu_report(run)
    assert "GPU dsm: 1.0000 h, 3.8147 h/km2, peak 900 MB, H200" in first
    assert "1.0000 h for 0.262 km2" in total
