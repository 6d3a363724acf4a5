"""A profile's requests reach the rules of a suite, which go by the runs' names."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None, reason="make setup EXTRAS=hpc"
    ),
]
ROOT = Path(__file__).resolve().parent.parent.parent
TELL = """
include: "{root}/Snakefile"
import json
told = lambda each: str(each.raw or each._evaluator or each.value)
found = {{rule.name: {{name: told(each) for name, each in rule.resources.items()}} for rule in workflow.rules}}
if workflow.is_main_process:
    Path("found.json").write_text(json.dumps(found))
"""


@pytest.mark.parametrize("tiles", [1, 4])
def test_partition_gpu_and_memory_are_those_of_the_profile(tmp_path: Path, tiles: int) -> None:
    (tmp_path / "Snakefile").write_text(TELL.format(root=ROOT))
    suite = {
        "description": "d",
        "config": yaml.safe_load((ROOT / "tests" / "workflow" / "mini.yaml").read_text())
        | {"workflow": {"pack": {"tiles": tiles}}},
        "seeds": [1],
        "variants": {"default": {}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    command = [snakemake, "--profile", str(ROOT / "profiles" / "slurm"), "--dry-run", "--quiet", "all"]
    command += ["--config", "suite=mine.yaml", "--", "bench"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.v9+.yaml").read_text())["set-resources"]
    for rule in ("synth", "ingest", "dsm", "fit", "mesh", "texture", "merge_city", "evaluate"):
        name = next(name for name in found if name.startswith(f"default_s1_{rule}"))
        for key, value in profile[rule].items():
            if tiles == 4 and found[name][key].startswith("<function"):
                continue  # a rule of several tiles holds what the profile says as an expression
            assert found[name][key] == str(value), (name, key)
    assert found["default_s1_survey"]["slurm_partition"] == "cpu"
