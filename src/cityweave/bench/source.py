"""Which source code this is: commit and whether the tree is clean, asked of git."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

# Made from records: a new record doesn't make the tree that it came from dirty.
MADE_FROM_RECORDS = ("bench/records", "docs/benchmarks.md", "docs/benchmarks")


def source_state(folder: Path = Path(__file__).parent.parent) -> dict[str, Any]:
    """{commit, clean, changed}; commit None where the package isn't in a git clone."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    # An environment inside somebody else's clone isn't that clone's code.
    if (
        top is None
        or commit is None
        or _git(folder, "ls-files", "--error-unmatch", str(folder / "__init__.py")) is None
    ):
        return {"commit": None, "clean": False, "changed": []}
    excluded = [f":(exclude,top){path}" for path in MADE_FROM_RECORDS]
    status = _git(Path(top), "status", "--porcelain", "--", ":/", *excluded)
    changed = [line[3:] for line in (status or "").splitlines()]
    return {"commit": commit, "clean": status == "", "changed": changed[:20]}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")
