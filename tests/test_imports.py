"""Imports go one way only, and planning a run loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "cityweave"

# A module may import from lower levels; stages may not import each other.
LEVELS = [
    {"errors"},
    {"codes", "config", "cores", "grid", "lattice", "codehash", "gpu"}
    | {"fetched", "machine", "packs", "patches", "plots", "profiles", "rpc"},
    {"plan", "cameras", "mesh", "rpc_torch"},
    {"manifest"},
    {"aoi", "io", "status", "adopt", "windows"},
    {"render"},
    {"synth", "survey", "ingest", "cityscale", "dsm", "geometry", "texture", "merge", "evaluate", "report"},
    {"train"},
    {"operations"},
    {"bench"},
    {"cli", "__main__"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
WITHIN_LEVEL = {
    ("config", "grid"),
    ("lattice", "grid"),
    ("plan", "config"),
    ("io", "aoi"),
    ("aoi", "io"),
    ("windows", "io"),
    ("__main__", "cli"),
}


def unit(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(file: Path) -> set[str]:
    units = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "cityweave":
                units |= {alias.name for alias in node.names}
            elif node.module.startswith("cityweave."):
                units.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            units |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cityweave.")}
    return units - {"__version__"}


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py" or file.parent != PACKAGE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_arrows_point_down(file: Path) -> None:
    own = unit(file)
    for other in imported_units(file) - {own}:
        assert other in LEVEL, f"{other} has no level; add it where it belongs"
        if own == "cli":
            continue
        allowed = LEVEL[other] < LEVEL[own] or (own, other) in WITHIN_LEVEL
        assert allowed, f"{file.relative_to(PACKAGE)} imports {other}: arrows point down only"


def test_src_never_mentions_the_workflow_engine_in_code() -> None:
    for file in FILES:
        names = {
            alias.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not any("snakemake" in name for name in names), file


def test_planning_loads_nothing_heavy() -> None:
    """The login node parses the workflow for every job: no array library, no raster library."""
    code = (
        "import sys, cityweave.plan, cityweave.codehash\n"
        "heavy = {'numpy', 'numba', 'scipy', 'rasterio', 'xarray', 'zarr', 'torch', 'dask', 'shapely'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
