"""The executor plugin excludes nodes that failed; a job that is queued again is on none."""

from __future__ import annotations

import inspect

import pytest

from cityweave.operations.slurm_plugin import ignore_unknown_nodes


def test_only_names_of_nodes_are_excluded() -> None:
    class Executor:
        def __post_init__(self, test_mode: bool = False) -> None:
            self._failed_nodes = {"node7"}

    ignore_unknown_nodes(Executor)
    ignore_unknown_nodes(Executor)  # the Snakefile is read once more for every run of a suite
    executor = Executor()
    executor.__post_init__(test_mode=True)
    executor._failed_nodes.add("None assigned")
    executor._failed_nodes.add("node[2-3]")
    assert executor._failed_nodes == {"node7", "node[2-3]"}


def test_the_plugin_still_keeps_them_there() -> None:
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm", reason="the hpc extra is not installed")
    assert "self._failed_nodes = set()" in inspect.getsource(inspect.unwrap(plugin.Executor.__post_init__))
    assert "_failed_nodes.add(node)" in inspect.getsource(plugin.Executor)
