"""What `--profile slurm` plans, without a cluster: dry runs from the top of the clone, through the committed link."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from cityweave.plan import city_tiles, load_config

from ..workflow.test_dry_runs import Workflow, pretend_done, seven
from .conftest import ROOT, SNAKEMAKE

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None, reason="make setup EXTRAS=hpc"
    ),
]
PROFILE = ROOT / "slurm" / "config.v9+.yaml"
GPU_RULES = ("cityscale", "stereo", "dsm", "fit", "fit_division", "texture")


def dry_run(workflow: Workflow, *arguments: str) -> str:
    command = [
        *(str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--directory", str(workflow.folder)),
        *("--configfile", str(workflow.config), "--profile", "slurm", "--dry-run", *arguments),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def jobs(workflow: Workflow, *arguments: str) -> dict[str, int]:
    """Jobs by rule; the tile is cut from the names of rules that serve several."""
    rows = {}  # the table is printed twice
    for line in dry_run(workflow, "--quiet", "rules", *arguments).splitlines():
        if match := re.fullmatch(r"(\w+) +(\d+)", line.strip()):
            rows[match[1]] = int(match[2])
    counts: Counter[str] = Counter()
    for name, count in rows.items():
        counts[re.sub(r"_[EW]\d+_[NS]\d+$", "", name)] += count
    return {name: count for name, count in counts.items() if name not in ("total", "all")}


def values_of(values: dict[str, Any], side: int) -> dict[str, Any]:
    x, y = values["city"]["bounds_m"][:2]
    return values | {"city": values["city"] | {"bounds_m": [x, y, x + side * 64, y + side * 64]}}


def test_every_key_of_the_profile_has_a_comment() -> None:
    assert (ROOT / "slurm").is_symlink()
    lines = PROFILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"^[a-z][\w-]*:", line):
            above = number and lines[number - 1].startswith("#")
            assert "# " in line or above or lines[number - 1].startswith(("default-resources", " ")), line


def test_one_gpu_and_the_gpu_partition_for_gpu_rules_alone() -> None:
    profile = yaml.safe_load(PROFILE.read_text())
    rules = profile["set-resources"]
    assert {name for name, values in rules.items() if "gpu" in values} == set(GPU_RULES)
    for name in GPU_RULES:
        assert rules[name]["gpu"] == 1 and rules[name]["slurm_partition"] == "gpu"
    for values in (profile["default-resources"], *rules.values()):
        assert all("attempt" in str(values[key]) for key in ("mem_mb", "runtime") if key in values)


def test_a_hundred_tiles_are_planned_in_seconds(tmp_path: Path, mini_values: dict[str, Any]) -> None:
    workflow = Workflow(tmp_path, values_of(mini_values, 10))
    start = time.monotonic()
    planned = jobs(workflow)
    assert time.monotonic() - start < 30
    assert planned == {"synth": 1, "survey": 1} | dict.fromkeys(
        ("ingest", "dsm", "fit", "mesh", "texture"), 25
    ) | dict.fromkeys(("merge_heights", "merge_city", "evaluate", "report", "verdict"), 1)


def test_reruns_are_the_jobs_that_the_guide_promises(tmp_path: Path, mini_values: dict[str, Any]) -> None:
    values = seven(mini_values)
    workflow = Workflow(tmp_path, values)
    pretend_done(workflow, values)
    tile = workflow.city / "tiles" / city_tiles(load_config(values))[24].name
    tile = tile.relative_to(workflow.folder)
    alone = ("--workflow-profile", "profiles/unpacked")
    division = ("--forcerun", f"{tile}/sdf_2.json", "--")
    assert jobs(workflow, *alone, *division, f"{tile}/sdf_2.json") == {"fit_division": 1}
    assert jobs(workflow, *alone, *division, f"{tile}/mesh.json") == {"fit_division": 1, "mesh": 1}
    heights = ("--forcerun", f"{tile}/dsm.json", "--", f"{tile}/mesh.json")
    assert jobs(workflow, *alone, *heights) == {"dsm": 1, "fit_division": 4, "mesh": 1}
