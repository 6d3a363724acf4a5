"""The software environment of `--sdm conda` is what constraints.txt pins, dependencies of dependencies included."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = {
    "python_version": "3.11",
    "python_full_version": "3.11.9",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}


def pins() -> dict[str, str]:
    """What constraints.txt says for the environment's Python."""
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
    return {canonicalize_name(r.name): str(r.specifier) for r in lines if not r.marker or r.marker.evaluate(PYTHON)}


def needed(*extras: str) -> set[str]:
    """Everything that the stages import, from the project's dependencies down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    named = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    queue = [Requirement(text) for texts in named for text in texts]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        new = name not in found
        found.add(name)
        for text in distribution(name).requires or []:
            inner = Requirement(text)
            wanted = not inner.marker or any(
                inner.marker.evaluate(PYTHON | {"extra": extra}) for extra in (requirement.extras or {""})
            )
            if wanted and (new or requirement.extras) and canonicalize_name(inner.name) not in found:
                queue.append(inner)
    return found


@pytest.mark.parametrize(("name", "extras"), [("cpu", ()), ("models", ("models",))])
def test_conda_environment_is_in_step_with_the_constraints(name: str, extras: tuple[str, ...]) -> None:
    if extras:
        pytest.importorskip("torch", reason="make setup EXTRAS=models")
    environment = yaml.safe_load((ROOT / "workflow" / "envs" / f"{name}.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    expected = [f"{package}{pins()[package]}" for package in sorted(needed(*extras))]
    assert pip == expected, f"{name}.yaml should list:\n" + "\n".join(f"      - {line}" for line in expected)


def test_image_and_conda_use_one_python() -> None:
    image = (ROOT / "workflow" / "envs" / "cityweave.def").read_text()
    conda = yaml.safe_load((ROOT / "workflow" / "envs" / "cpu.yaml").read_text())["dependencies"][0]
    assert conda == "python=3.11"
    assert re.search(r"^From: python:3\.11-", image, re.MULTILINE)
    assert "-c constraints.txt" in image
