"""Stages on a GPU against their CPU twin and their floor, on a node where only numpy and torch are sure to be there.

What the node can do is measured too, and the floors computed from it. Called by bench/gpu.sh.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cityweave import __version__
from cityweave.bench.calibrate import calibrate
from cityweave.bench.source import source_state
from cityweave.bench.twins import TWINS, Twin
from cityweave.errors import CityweaveError, MissingCapability
from cityweave.machine import describe

FORMAT = 1
REPEATS = 3


def gpu_rates(torch: Any) -> dict[str, float]:
    """Best of several: bandwidths count what is read and what is written."""
    device = torch.device("cuda")
    big = torch.ones(1 << 28, device=device)  # 1 GiB
    other = torch.empty_like(big)
    figures = {"copy_gb_s": 2 * 4 * big.numel() / _seconds(torch, lambda: other.copy_(big)) / 1e9}
    host = torch.ones(1 << 26).pin_memory()  # 256 MiB
    part = other[: host.numel()]
    figures["to_device_gb_s"] = 4 * host.numel() / _seconds(torch, lambda: part.copy_(host, non_blocking=True)) / 1e9
    figures["from_device_gb_s"] = 4 * host.numel() / _seconds(torch, lambda: host.copy_(part, non_blocking=True)) / 1e9
    n = 8192
    for name, kind in (("float32_matmul_tflop_s", torch.float32), ("bf16_matmul_tflop_s", torch.bfloat16)):
        a = torch.ones(n, n, device=device, dtype=kind)
        figures[name] = 2 * n**3 / _seconds(torch, partial(torch.matmul, a, a)) / 1e12
    tiny = torch.ones(1, device=device)
    figures["launch_us"] = _seconds(torch, lambda: [tiny.add_(1) for _ in range(1000)]) * 1e3
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _seconds(torch: Any, work: Callable[[], Any]) -> float:
    work()
    best = float("inf")
    for _ in range(7):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def compare_twin(twin: Twin, torch: Any, rates: dict[str, float]) -> dict[str, Any]:
    """Median seconds of both after one run that compiles, their largest difference, and the floor of the GPU's."""
    data = twin.make()
    timings: dict[str, float] = {}
    results = {}
    torch.cuda.reset_peak_memory_stats()
    for name, work in (("cpu", twin.cpu), ("gpu", twin.gpu)):
        results[name] = work(data)
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            work(data)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        timings[f"{name}_s"] = statistics.median(seconds)
    floor = max(twin.bytes / rates["copy_gb_s"] / 1e9, twin.operations / rates["float32_matmul_tflop_s"] / 1e12)
    difference = float(np.nanmax(np.abs(results["gpu"] - results["cpu"])))
    return timings | {
        "floor_s": floor,
        "difference": difference,
        "agrees": difference <= twin.tolerance,
        "gpu_peak_mb": round(torch.cuda.max_memory_reserved() / 1e6, 1),
    }


def record(twins: Sequence[Twin] = TWINS) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise MissingCapability("torch is not there; accepted: a node with numpy and torch") from error
    if not torch.cuda.is_available():
        raise MissingCapability(f"torch sees no GPU on {platform.node()}; accepted: a node with a CUDA device")
    rates = gpu_rates(torch)
    source = source_state()
    if commit := os.environ.get("CITYWEAVE_COMMIT"):  # where the code came without its repository
        source |= {"commit": commit, "clean": source["clean"] or os.environ.get("CITYWEAVE_CLEAN") == "1"}
    stages = {twin.stage: compare_twin(twin, torch, rates) for twin in twins}
    return {
        "format": FORMAT,
        "kind": "gpu",
        "source": source,
        "versions": {
            "cityweave": __version__,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        },
        "machine": describe(),
        "calibration": calibrate(),
        "gpu": {"name": torch.cuda.get_device_name(0), "rates": rates},
        "stages": stages,
        "notes": [],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="every stage that has a GPU path, against its floor and its CPU twin")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the record is written")
    folder = parser.parse_args(arguments).output
    try:
        found = record()
    except CityweaveError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{found['gpu']['name'].replace(' ', '_')}.json"
    file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print("\n".join([str(file), json.dumps(found["gpu"]), *found["notes"]]))
    return int(not all(stage["agrees"] for stage in found["stages"].values()))


if __name__ == "__main__":
    sys.exit(main())
