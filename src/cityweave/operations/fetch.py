"""`cityweave fetch`: what nodes without a network need, into one folder with checksums.

Grids that the configuration names, and compiled kernels: a city of one small tile is run through every stage, so that
numba compiles what real jobs call. `fetched.py` is the other half: how a job finds and checks it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cityweave
from cityweave.errors import DataError, MissingCapability
from cityweave.fetched import GRIDS, INDEX, NUMBA, VARIABLE, sha256_of
from cityweave.grid import DIVISIONS
from cityweave.manifest import Run
from cityweave.plan import city_tiles, load_config
from cityweave.profiles import read_values

# Small enough to be quick, large enough that every kernel is called.
_SMALL_CITY: dict[str, Any] = {
    "city": {
        "name": "small",
        "crs": "EPSG:32637",
        "vertical": "ellipsoid",
        "bounds_m": [315360, 4161504, 315456, 4161600],
        "heights_m": [550, 640],
        "max_building_m": 50,
    },
    "seed": 7,
    "tiles": {"size_m": 96},
    "synth": {
        "margin_m": 60,
        "relief_m": 6,
        "max_height_m": 30,
        "gsd_m": 0.5,
        "test_headings_deg": [20],
        "test_heights_m": [200],
        "test_size_px": 96,
        "views": [
            {"name": name, "off_nadir_deg": off, "azimuth_deg": azimuth, "date": "2025-06-18",
             "sun_azimuth_deg": 138, "sun_elevation_deg": 62}
            for name, off, azimuth in (("v1", 5, 200), ("v2", 16, 20), ("v3", 18, 110), ("v4", 18, 260))
        ],
    },
}  # fmt: skip
# Module, function and what it wants beside the run.
_STAGES = (
    ("synth", "run", "city"),
    ("survey", "run", "city"),
    ("ingest", "run", "tile"),
    ("dsm", "run", "tile"),
    ("geometry", "fit", "divisions"),
    ("geometry", "mesh", "tile"),
    ("texture", "run", "tile"),
    ("merge", "heights", "city"),
    ("merge", "city", "city"),
    ("evaluate", "run", "city"),
    ("report", "run", "city"),
)
_PROJ = "https://cdn.proj.org"


def fetch(config: Path, folder: Path, say: Callable[[str], None] = print) -> None:
    """Fill `folder`; what is there and right stays."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    for grid, sha256 in _grids(read_values(config)):
        relative = f"{GRIDS}/{grid.name}"
        entry = {"grid": grid.name, **_fetch_grid(grid, sha256, folder / relative)}
        if files.setdefault(relative, entry) != entry:
            raise DataError(f"two different grids are named {grid.name}; give one of them another name")
        say(f"grid {grid.name}: {entry['bytes'] / 1e6:.1f} MB")
    warm(folder / NUMBA)
    for path in sorted((folder / NUMBA).rglob("*.nb[ci]")):
        files[path.relative_to(folder).as_posix()] = _entry(path)
    compiled = [entry["bytes"] for name, entry in files.items() if name.startswith(NUMBA)]
    say(f"compiled code: {len(compiled)} files, {sum(compiled) / 1e6:.1f} MB, for {platform.machine()} and this CPU")
    index = {
        "files": files,
        "cityweave": cityweave.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    text = json.dumps(index, indent=1, sort_keys=True)
    index["id"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    aside = folder / f"{INDEX}.tmp"
    aside.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    aside.replace(folder / INDEX)
    say(f"{len(files)} files with checksums in {folder / INDEX}; for the jobs: export {VARIABLE}={folder.resolve()}")


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _grids(values: dict[str, Any]) -> Iterator[tuple[Path, str | None]]:
    """Grid files with the checksums that the configuration states. Plain values: a grid may not be there yet."""
    sources = values.get("sources") or {}
    holders = [values.get("city"), sources.get("terrain"), sources.get("reference")]
    for holder in holders:
        vertical = (holder or {}).get("vertical")
        if isinstance(vertical, dict) and vertical.get("grid"):
            yield Path(vertical["grid"]), vertical.get("sha256")


def _fetch_grid(grid: Path, sha256: str | None, target: Path) -> dict[str, Any]:
    if not (target.is_file() and sha256 and sha256_of(target) == sha256):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(target.name + ".tmp")
        if grid.is_file():
            shutil.copyfile(grid, aside)
        else:
            _download(grid, aside)
        aside.replace(target)
    entry = _entry(target)
    if sha256 and entry["sha256"] != sha256:
        target.unlink()
        raise DataError(f"grid {grid} has the checksum {entry['sha256']}; the config states {sha256}")
    return entry


def _download(grid: Path, target: Path) -> None:
    """From PROJ's own store, which has the grids of most countries under the names that PROJ uses."""
    address = f"{os.environ.get('PROJ_NETWORK_ENDPOINT', _PROJ).rstrip('/')}/{grid.name}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, target.open("wb") as stream:
            shutil.copyfileobj(answer, stream)
    except (urllib.error.URLError, OSError, ValueError) as error:
        target.unlink(missing_ok=True)
        raise MissingCapability(
            f"grid {grid} is not there, and {address} doesn't give it ({error}); accepted: put the file where the "
            "config names it, or name a grid that PROJ's store has, such as us_nga_egm08_25.tif"
        ) from error


def warm(cache: Path) -> None:
    """Fill numba's cache by running the small city, in a process of its own: numba reads the folder at import."""
    cache.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    environment |= {"NUMBA_CACHE_DIR": str(cache.resolve()), "CITYWEAVE_DEVICE": "cpu"}
    with tempfile.TemporaryDirectory(prefix="cityweave-") as scratch:
        result = subprocess.run(
            [sys.executable, "-m", "cityweave.operations.fetch"],
            cwd=scratch, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if result.returncode != 0:
        tail = (result.stdout + result.stderr).strip()[-600:]
        raise MissingCapability(f"the kernels can't be compiled here: the small city fails with: {tail}")


def _run_small_city() -> None:
    """In the working folder: every stage, as a job of the workflow runs it."""
    config = load_config(_SMALL_CITY)
    folder = Path("results") / config.city.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    run, (tile,) = Run.open(folder), city_tiles(config)
    for stage, function, wants in _STAGES:
        call = getattr(importlib.import_module(f"cityweave.{stage}.job"), function)
        if wants == "city":
            call(run)
        elif wants == "tile":
            call(run, tile)
        else:
            for division in DIVISIONS:
                call(run, tile, division)


if __name__ == "__main__":
    _run_small_city()
