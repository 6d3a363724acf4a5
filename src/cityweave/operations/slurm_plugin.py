"""What the SLURM executor plugin has to be told as long as it doesn't know it itself. Called where Snakemake runs."""

from __future__ import annotations

from functools import wraps
from typing import Any


class _Nodes(set[str]):
    def add(self, node: str) -> None:
        if " " not in node:
            super().add(node)


def ignore_unknown_nodes(executor: Any) -> None:
    """A job whose node died and that SLURM queued again is on no node: sacct says "None assigned" for it.

    Plugin 2.8.0 takes this for the name of a broken node and excludes it, and sbatch refuses every job from then on
    (its issue 485, open).
    """
    begin = executor.__post_init__

    @wraps(begin)
    def begin_with_known_nodes(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._failed_nodes = _Nodes(self._failed_nodes)

    executor.__post_init__ = begin_with_known_nodes
