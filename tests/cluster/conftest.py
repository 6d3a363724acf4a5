"""A private cluster, and the workflow run on it through the committed profile."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..workflow.test_mini_city import product_hashes
from .private import PrivateCluster, missing_programs

ROOT = Path(__file__).resolve().parent.parent.parent
MINI = ROOT / "tests" / "workflow" / "mini.yaml"
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
# Small jobs end sooner than the profile's questions come; nothing else is changed for the tests.
IMPATIENT = (
    *("--slurm-init-seconds-before-status-checks", "3", "--max-status-checks-per-second", "10"),
    *("--max-jobs-per-timespan", "10/1s", "--latency-wait", "20"),
)
UNPACKED = "workflow={pack: {divisions: true, tiles: 1}, on_code_change: warn}"


def requests(**changed: dict[str, str]) -> list[str]:
    """The profile's requests with some changed: on the command line they replace the profile's as a whole."""
    rules = yaml.safe_load((ROOT / "slurm" / "config.v9+.yaml").read_text())["set-resources"]
    for rule, values in changed.items():
        rules[rule] = rules.get(rule, {}) | values
    return ["--set-resources", *(f"{rule}:{key}={value}" for rule in rules for key, value in rules[rule].items())]


def products(city: Path) -> dict[str, str]:
    """Hashes of all that must be equal; config.json tells how jobs were packed, which may differ."""
    return {name: digest for name, digest in product_hashes(city).items() if name != "config.json"}


def need_slurm(accounting: bool = False) -> None:
    missing = missing_programs(accounting)
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        missing.append("snakemake-executor-plugin-slurm (make setup EXTRAS=hpc)")
    if not missing:
        return
    text = f"not installed: {', '.join(missing)}"
    if os.environ.get("CITYWEAVE_NEEDS_SLURM"):
        pytest.fail(f"{text}, and CITYWEAVE_NEEDS_SLURM is set")
    pytest.skip(text)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """Two nodes with two stand-in GPUs each, accounting off."""
    need_slurm()
    with PrivateCluster() as cluster:
        yield cluster


class ClusterRun:
    """A clone's Snakefile and profile link, run in `folder` on a private cluster."""

    def __init__(self, cluster: PrivateCluster, folder: Path, values: dict[str, Any]) -> None:
        self.cluster = cluster
        self.folder = folder
        self.city = folder / "results" / values["city"]["name"]
        self.log = folder / "snakemake.log"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "city.yaml").write_text(yaml.safe_dump(values))

    def command(self, *arguments: str, local: bool = False) -> list[str]:
        where = ("--cores", "2") if local else ("--profile", "slurm", *IMPATIENT)
        return [
            *(str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)),
            *("--configfile", str(self.folder / "city.yaml"), *where, *arguments),
        ]

    def start(self, *arguments: str, local: bool = False) -> subprocess.Popen[bytes]:
        """In the clone's top folder, where the link is that `--profile slurm` finds."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command(*arguments, local=local),
                cwd=ROOT,
                env=self.cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *arguments: str, local: bool = False, timeout_s: float = 900) -> tuple[int, str]:
        process = self.start(*arguments, local=local)
        return self.finish(process, timeout_s)

    def finish(self, process: subprocess.Popen[bytes], timeout_s: float = 900) -> tuple[int, str]:
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"not done after {timeout_s:g} s\n{self.text()[-5000:]}\n{self.cluster.diagnosis()}")
        return process.returncode, self.text()

    def succeed(self, *arguments: str, local: bool = False, timeout_s: float = 900) -> str:
        code, text = self.run(*arguments, local=local, timeout_s=timeout_s)
        assert code == 0, text[-6000:]
        return text

    def text(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="session")
def mini_values() -> dict[str, Any]:
    return yaml.safe_load(MINI.read_text())
