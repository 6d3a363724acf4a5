"""What code a stage runs: a hash over the import closure of its folder inside this package.

Taken over the syntax tree without docstrings, so a comment reruns nothing. Standard library only: the workflow asks
for it at parse time.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


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


@cache
def _parsed(file: Path) -> tuple[str, tuple[Path, ...]]:
    """Hash of one file and the files of this package that it imports."""
    tree = _strip_docstrings(ast.parse(file.read_text()))
    imported: list[Path] = []
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
                    imported.append(candidate)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(dict.fromkeys(imported))


def closure(stage: str) -> list[Path]:
    """Files that a stage's folder uses, itself included, sorted."""
    waiting = sorted((PACKAGE / stage).rglob("*.py"))
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _parsed(file)[1]
    return sorted(seen)


# Every stage imports the configuration's models; the sections it reads are in its params already.
_NOT_COUNTED = {
    *("config.py", "plan.py", "manifest.py", "codehash.py", "errors.py"),
    *("gpu.py", "fetched.py", "profiles.py", "machine.py"),
}


@cache
def stage_hash(stage: str) -> str:
    digest = hashlib.sha256()
    for file in closure(stage):
        relative = file.relative_to(PACKAGE).as_posix()
        if relative not in _NOT_COUNTED:
            digest.update(f"{relative} {_parsed(file)[0]}\n".encode())
    return digest.hexdigest()[:16]
