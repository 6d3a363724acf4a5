from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

METRICS = [
    {"key": "dsm.mae_m", "label": "DSM mean error", "unit": "m", "better": "lower", "tolerance": 0.005},
    {"key": "mesh.f1.1", "label": "mesh F1", "unit": "", "better": "higher", "tolerance": 0.002},
    {"key": "mesh.triangles", "label": "triangles", "unit": "", "better": None, "tolerance": 10.0},
]


def stage(work_s: float = 1.0, pixels: float = 1e6, **timed: Any) -> dict[str, Any]:
    job = {
        "measured_in": "default-s1",
        "seconds": work_s + 1,
        "all_seconds": [work_s + 1] * 3,
        "work_s": work_s,
        "work_cpu_s": work_s,
    }
    job |= {"cpu_s": work_s, "peak_rss_mb": 200.0, "gpu_peak_mb": None} | timed
    sums = {"units": 4, "work_s": 4 * work_s, "cpu_s": 4 * work_s, "peak_rss_mb": 200.0, "gpu_s": 0.0}
    return sums | {
        "gpu_peak_mb": None,
        "pixels": pixels,
        "km2": pixels / 1e6,
        "floor": {"bytes": 1, "operations": {}, "seconds": 0.01},
        "timed": job,
        "code": ["c"],
        "cpu": ["A"],
    }


@pytest.fixture
def make() -> Callable[..., dict[str, Any]]:
    """A record with the figures that a test is about."""

    def record(variant: str = "default", seed: int = 1, mae: float | None = 0.4, f1: float = 0.9, **over: Any) -> dict:
        base = {
            "format": 1,
            "suite": "tiny",
            "variant": variant,
            "seed": seed,
            "source": {"commit": "a" * 40, "clean": True, "changed": [], "code": {"dsm": "c"}},
            "versions": {"numpy": "2"},
            "machine": {"cpu": "A", "cpu_kind": "x 1 2 3", "cpu_features": ["avx2"], "cores": 2, "gpus": []},
            "calibration": {"copy_gb_s": 10.0},
            "config": {"dsm": {"gsd_m": 0.5}, "workflow": {"results": f"{variant}-s{seed}"}},
            "inputs": {"sources": {"sha256": "s"}},
            "metrics": {"dsm": {"mae_m": mae}, "mesh": {"f1": {"1": f1}, "triangles": 1000}, "cost": {"wall_s": seed}},
            "tolerances": {"other": 0.02, "metrics": {metric["key"]: metric["tolerance"] for metric in METRICS}},
            "stages": {"dsm": stage()},
            "timing": {"at_once": 1, "repeats": 3},
            "products": {},
            "shown": {
                "description": "A tiny suite.",
                "variants": ["default", "coarse", "other"],
                "seeds": [1, 2, 3],
                "overlay": {},
                "axis": None,
                "at_once": 1,
                "metrics": METRICS,
                "published": [],
                "remarks": "",
            },
            "refused": [],
        }
        return base | over

    return record
