"""What `cityweave fetch` brought for nodes without a network, as a job finds and checks it. Standard library only.

CITYWEAVE_FETCHED names the folder. Its `fetch.json` holds the checksum of every file; what is used is checked first.
The folder itself is only read: compiled kernels are copied to a folder of the node, where many jobs may start at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from cityweave.errors import DataError, MissingCapability

VARIABLE = "CITYWEAVE_FETCHED"
INDEX = "fetch.json"
GRIDS, NUMBA = "grids", "numba"


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetched_folder() -> Path | None:
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def read_index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise MissingCapability(
            f"{VARIABLE} is {folder}, which holds no readable {INDEX} ({error}); "
            f"accepted: a folder that was filled by: cityweave fetch --config FILE --to {folder}"
        ) from error
    return index


@cache
def _checked(folder: Path, relative: str, sha256: str) -> Path:
    path = folder / relative
    if not path.is_file() or sha256_of(path) != sha256:
        raise DataError(
            f"{path} is gone or isn't what was fetched; on the login node: cityweave fetch --config FILE --to {folder}"
        )
    return path


def fetched_grid(grid: Path) -> Path | None:
    """The fetched copy of a grid that the configuration names, checked; None when it wasn't fetched."""
    folder = fetched_folder()
    if folder is None:
        return None
    for relative, entry in read_index(folder)["files"].items():
        if entry.get("grid") == grid.name:
            return _checked(folder, relative, entry["sha256"])
    return None


def verify(folder: Path) -> int:
    """Check every file; how many there are."""
    files = read_index(folder)["files"]
    for relative, entry in files.items():
        _checked(folder, relative, entry["sha256"])
    return len(files)


def use_compiled_kernels() -> Path | None:
    """Put the fetched kernels where this node's jobs keep compiled code, before numba is imported.

    A fetched folder is shared and may be read-only; numba needs one that it can write. Files are never overwritten, so
    that jobs which start together or have compiled more don't disturb each other.
    """
    folder = fetched_folder()
    if folder is None:
        return None
    index = read_index(folder)
    given = os.environ.get("NUMBA_CACHE_DIR")
    local = Path(given) if given else _node_folder() / "numba"
    if local.name != index["id"]:  # a parent process has been here
        local /= index["id"]  # kernels of other sources aren't these
    os.environ["NUMBA_CACHE_DIR"] = str(local)
    marker = local / "complete"
    if marker.exists():
        return local
    local.mkdir(parents=True, exist_ok=True)
    # Data before the indexes that name it.
    for relative in sorted(index["files"], key=lambda name: (name.endswith(".nbi"), name)):
        if relative.startswith(f"{NUMBA}/"):
            source = _checked(folder, relative, index["files"][relative]["sha256"])
            _copy_new(source, local / relative.removeprefix(f"{NUMBA}/"))
    marker.touch()
    return local


def _copy_new(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.copyfile(source, aside)
    try:
        os.link(aside, target)  # fails where another job was first
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def _node_folder() -> Path:
    """A folder of this user on this node."""
    folder = Path(tempfile.gettempdir()) / f"cityweave-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise MissingCapability(f"{folder} belongs to somebody else; set NUMBA_CACHE_DIR to a folder of your own")
    return folder
