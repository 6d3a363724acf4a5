"""A suite through `--profile slurm bench`: ordinary jobs with the profile's requests, and records at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cityweave.bench.record import read_records

from .conftest import IMPATIENT, MINI, ROOT, SNAKEMAKE, ClusterRun
from .private import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_suite_on_a_cluster(cluster: PrivateCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load(MINI.read_text())
    suite = {
        "description": "The mini city.",
        "config": values,
        "seeds": [11],
        "variants": {"default": {}, "loose": {"config": {"geometry": {"level_errors_m": [1.5, 3.0]}}}},
        "metrics": [{"key": "mesh.f1.1", "label": "mesh F1", "better": "higher", "tolerance": 0.002}],
        "timing": {"repeats": 1},
    }
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    run = ClusterRun(cluster, tmp_path, values)
    packed = "workflow={pack: {divisions: true, tiles: 4}, on_code_change: warn}"
    command = [
        str(SNAKEMAKE),
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(tmp_path),
        "--profile",
        "slurm",
    ]
    command += [*IMPATIENT, "--config", f"suite={tmp_path / 'mini.yaml'}", packed, "--", "bench"]
    monkeypatch.setattr(run, "command", lambda *_, **__: command)
    run.succeed(timeout_s=1500)
    records = read_records([tmp_path / "results" / "bench" / "mini" / "records"])
    assert [record["variant"] for record in records] == ["default", "loose"]
    assert records[1]["stages"]["dsm"]["adopted_from"] and records[1]["stages"]["mesh"]["timed"]["seconds"] > 0
    submitted = {job.rule.split("_E")[0]: job for job in cluster.submitted()}
    assert "default_s11_dsm" in submitted and "loose_s11_mesh" in submitted and "loose_s11_dsm" not in submitted
    assert submitted["default_s11_dsm"].value("-p") == "gpu", submitted["default_s11_dsm"].arguments
    assert "default_s11_record" not in submitted, "small jobs stay where Snakemake runs"
