"""Which GPU a job holds: asked of the driver before the work, metered while it runs. Loads no array library.

A device is no part of a job's identity: nothing here reaches a manifest, only the run record beside it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from cityweave.errors import ConfigError, MissingCapability

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")
DEVICE_VARIABLE = "CITYWEAVE_DEVICE"  # what --device is when it isn't given: set once for a site or a test cluster
_NONE = {"", "-1", "none", "nodevfiles"}
_GRANTED = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE")
_SAMPLE_MS = 500


def visible_gpus() -> list[str]:
    """Names of the GPUs that the CUDA driver lets this process use; CUDA_VISIBLE_DEVICES counts."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    names = []
    for number in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        if cuda.cuDeviceGet(ctypes.byref(device), number) == 0 and cuda.cuDeviceGetName(name, 256, device) == 0:
            names.append(name.value.decode())
    return names


def require(device: str) -> None:
    """Refuse `cuda` where no GPU is visible, so that a paid node doesn't crawl in silence.

    `auto` means cuda in a Slurm job that was given a GPU.
    """
    if device not in DEVICES:
        raise ConfigError(f"{DEVICE_VARIABLE} is {device!r}; accepted: {', '.join(DEVICES)}")
    granted = "SLURM_JOB_ID" in os.environ and any(os.environ.get(name) for name in _GRANTED)
    wanted = device == "cuda" or (device == "auto" and granted)
    if not wanted or visible_gpus():
        return
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    job = os.environ.get("SLURM_JOB_ID")
    raise MissingCapability(
        f"{'--device cuda' if device == 'cuda' else 'Slurm gave this job a GPU'}, but none is visible on "
        f"{os.environ.get('SLURMD_NODENAME') or platform.node()}"
        f"{f' in job {job}' if job else ''} (CUDA_VISIBLE_DEVICES is "
        f"{'not set' if asked is None else repr(asked)}); accepted: a job that holds a GPU (resources gpu: 1 for its "
        f"rule in the profile; `cityweave doctor --gpu` tries one), or --device cpu ({DEVICE_VARIABLE}=cpu for all)"
    )


_chosen = "cpu"


def use(device: str) -> None:
    """What stages with a GPU path work on for the rest of this process: `auto` takes a GPU that torch can use."""
    global _chosen
    require(device)
    if device == "cpu" or not visible_gpus():
        _chosen = "cpu"
        return
    if find_spec("torch") is not None:
        _chosen = "cuda"
    elif device == "cuda":
        raise MissingCapability("--device cuda needs torch; accepted: make setup EXTRAS=gpu, or --device cpu")


def in_use() -> str:
    return _chosen


def held_devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Devices that Slurm gave to this job, as CUDA_VISIBLE_DEVICES names them."""
    if "SLURM_JOB_ID" not in environment:
        return []
    named = environment.get("CUDA_VISIBLE_DEVICES", "")
    return [] if named.strip().lower() in _NONE else [name.strip() for name in named.split(",")]


@dataclass
class Meter:
    """What a job held: the devices all along, used or not, since that is what a site counts."""

    devices: list[str]
    started: float = field(default_factory=time.perf_counter)
    models: list[str] = field(default_factory=list)
    peak_memory_mb: float | None = None

    def usage(self) -> dict[str, Any]:
        if not self.devices:
            return {}
        record: dict[str, Any] = {
            "count": len(self.devices),
            "model": ", ".join(sorted(set(self.models))) or None,
            "seconds": round((time.perf_counter() - self.started) * len(self.devices), 3),
            "peak_memory_mb": self.peak_memory_mb,
        }
        if not self.models:
            record["note"] = "model and memory unknown: nvidia-smi is not there or knows no such device"
        return {"gpu": record}


@contextmanager
def metered(devices: list[str] | None = None) -> Iterator[Meter]:
    """Meter the GPUs that the job holds. Memory is that of the whole device, sampled: a job has it for itself."""
    meter = Meter(held_devices() if devices is None else devices)
    if not meter.devices:
        yield meter
        return
    query = ["nvidia-smi", "--id=" + ",".join(meter.devices), "--query-gpu=name,memory.used"]
    query += ["--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile("w+") as samples:
        try:
            process = subprocess.Popen([*query, f"--loop-ms={_SAMPLE_MS}"], stdout=samples, stderr=subprocess.DEVNULL)
        except OSError:
            yield meter
            return
        try:
            yield meter
        finally:
            process.terminate()
            process.wait()
            samples.seek(0)
            _read_samples(meter, samples.read())
            if not meter.models:
                _read_samples(meter, _asked_once(query))
            _add_torch_peak(meter)


def _asked_once(query: list[str]) -> str:
    """For work shorter than the first sample."""
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _read_samples(meter: Meter, text: str) -> None:
    for line in text.splitlines():
        name, _, used = line.rpartition(",")
        try:
            megabytes = float(used) * 1.048576  # nvidia-smi counts MiB
        except ValueError:
            continue  # no such device, or the last line cut short
        if name.strip():
            if name.strip() not in meter.models:
                meter.models.append(name.strip())
            meter.peak_memory_mb = round(max(meter.peak_memory_mb or 0.0, megabytes), 1)


def _add_torch_peak(meter: Meter) -> None:
    """A peak between two samples is known to torch, where a stage used it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peak = max(torch.cuda.max_memory_reserved(number) for number in range(torch.cuda.device_count()))
        meter.peak_memory_mb = round(max(meter.peak_memory_mb or 0.0, peak / 1e6), 1)
