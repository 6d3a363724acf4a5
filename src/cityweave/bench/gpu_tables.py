"""What the records of GPU nodes say, as Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from cityweave.bench.growth import markdown_table

_RATES = (
    ("copy_gb_s", "copy, GB/s"),
    ("to_device_gb_s", "to device, GB/s"),
    ("from_device_gb_s", "from device, GB/s"),
    ("float32_matmul_tflop_s", "float32 matmul, TFLOP/s"),
    ("bf16_matmul_tflop_s", "bf16 matmul, TFLOP/s"),
    ("launch_us", "launch, µs"),
)


def gpu_markdown(folder: Path) -> str:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rates = [[r["gpu"]["name"], *(f"{r['gpu']['rates'][key]:g}" for key, _ in _RATES)] for r in records]
    parts = ["## GPU", "By `bench/gpu.sh`, one record a node.", markdown_table(["GPU", *(n for _, n in _RATES)], rates)]
    stages = [
        [
            f"{name}, {r['gpu']['name']}",
            *(f"{entry[key]:.3g}" for key in ("gpu_s", "cpu_s", "floor_s")),
            f"{entry['gpu_s'] / entry['floor_s']:.0f}",
            f"{entry['difference']:.2g}",
        ]
        for r in records
        for name, entry in r["stages"].items()
    ]
    if stages:
        parts.append(markdown_table(["stage", "GPU, s", "CPU, s", "floor, s", "GPU / floor", "difference"], stages))
    notes = sorted({note for record in records for note in record["notes"]})
    return "\n\n".join([*parts, *(f"{note[0].upper()}{note[1:]}." for note in notes)])
