"""Running the real workflow, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MINI = Path(__file__).with_name("mini.yaml")


class Workflow:
    """The repository's Snakefile, run in `folder` on one configuration file."""

    def __init__(self, folder: Path, values: dict) -> None:
        self.folder = folder
        self.city = folder / "results" / values["city"]["name"]
        self.config = folder / "city.yaml"
        self.write(values)

    def write(self, values: dict) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(values))

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        return [
            str(Path(sys.executable).with_name("snakemake")),
            *("--snakefile", str(ROOT / "Snakefile"), "--configfile", str(self.config)),
            *("--cores", str(cores), *arguments),
        ]

    def run(self, *arguments: str, cores: int = 2, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            self.command(*arguments, cores=cores),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def succeed(self, *arguments: str, cores: int = 2) -> str:
        result = self.run(*arguments, cores=cores)
        text = result.stdout + result.stderr
        assert result.returncode == 0, text[-6000:]
        return text

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs per rule that a dry run would do."""
        text = self.succeed("--dry-run", "--quiet", "rules", *arguments)
        jobs = {}
        for line in text.splitlines():
            name, _, count = line.rpartition(" ")
            if count.isdigit() and " " not in name.strip():
                jobs[name.strip()] = int(count)
        jobs.pop("total", None)
        jobs.pop("all", None)
        return jobs


@pytest.fixture(scope="session")
def mini_values() -> dict:
    return yaml.safe_load(MINI.read_text())


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory, mini_values: dict) -> Workflow:
    """The mini city, run once to its end."""
    workflow = Workflow(tmp_path_factory.mktemp("mini"), mini_values)
    workflow.succeed()
    return workflow
