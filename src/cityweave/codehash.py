"""What code a stage runs: a hash over the import closure of its folder inside this package.

Taken over the syntax tree without docstrings, so a comment reruns nothing. Standard library only: the workflow asks
for it at parse time. What a file holds is remembered beside Python's own compiled code, by the file's time and size.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
_DATA = (".json", ".safetensors")  # weights and tables beside the code count as code
_REMEMBERED = PACKAGE / "__pycache__" / f"codehash.{sys.implementation.cache_tag}.json"


def _strip_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


_MADE_BY = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
_Parsed = tuple[str, tuple[str, ...]]  # hash of one file, and the files of this package that it imports


@cache
def _all_parsed() -> dict[str, _Parsed]:
    """Every file of the package by its path in it."""
    remembered = _remembered()
    now = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        found = file.stat()
        state = f"{found.st_mtime_ns} {found.st_size}"
        name = file.relative_to(PACKAGE).as_posix()
        known = remembered.get(name)
        if known is None or known[0] != state:
            known = [state, *_parsed(file)]
        now[name] = known
    if now != remembered:
        _remember(now)
    return {name: (str(digest), tuple(imported)) for name, (_, digest, imported) in now.items()}


def _remembered() -> dict[str, list[Any]]:
    try:
        found = json.loads(_REMEMBERED.read_text())
    except (OSError, ValueError):
        return {}
    # Written by this very file as it is now, or not at all: how a hash is made may have changed.
    return found["files"] if found.get("made_by") == _MADE_BY else {}


def _remember(files: dict[str, list[Any]]) -> None:
    """Whole or not at all, and nothing where the package may not be written."""
    with contextlib.suppress(OSError):
        _REMEMBERED.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=_REMEMBERED.parent)
        with os.fdopen(handle, "w") as out:
            json.dump({"made_by": _MADE_BY, "files": files}, out)
        Path(name).replace(_REMEMBERED)


def _parsed(file: Path) -> tuple[str, list[str]]:
    tree = _strip_docstrings(ast.parse(file.read_text()))
    imported: list[str] = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cityweave"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("cityweave.")]
        for name in names:
            path = PACKAGE.joinpath(*name.split(".")[1:])
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.is_file() and candidate != PACKAGE / "__init__.py":
                    imported.append(candidate.relative_to(PACKAGE).as_posix())
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), list(dict.fromkeys(imported))


def closure(stage: str) -> list[str]:
    """Files that a stage's folder uses, itself included, as paths in the package, sorted."""
    files = _all_parsed()
    waiting = [name for name in files if name.startswith(f"{stage}/")]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += files[name][1]
    return sorted(seen)


# Every stage imports the configuration's models; the sections it reads are in its params already.
_NOT_COUNTED = {
    *("config.py", "plan.py", "manifest.py", "codehash.py", "errors.py"),
    *("gpu.py", "fetched.py", "profiles.py", "machine.py"),
}


@cache
def stage_hash(stage: str) -> str:
    digest = hashlib.sha256()
    files = closure(stage)
    for name in files:
        if name not in _NOT_COUNTED:
            digest.update(f"{name} {_all_parsed()[name][0]}\n".encode())
    for folder in sorted({PACKAGE / Path(name).parent for name in files}):
        for file in sorted(folder.iterdir()):
            if file.suffix in _DATA:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{file.relative_to(PACKAGE).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
