"""Jobs on a node without a network, with what `cityweave fetch` brought: nothing is compiled, nothing is missed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cityweave.fetched import INDEX, VARIABLE
from cityweave.operations.fetch import _SMALL_CITY, fetch
from cityweave.plan import city_tiles, load_config

pytestmark = [pytest.mark.slurm, pytest.mark.slow]  # no Slurm in it, but what its nodes often are
WITHOUT_NETWORK = ("unshare", "--map-root-user", "--net")
TILE = f"--tile {city_tiles(load_config(_SMALL_CITY))[0].name}"
JOBS = (
    *("synth", "survey", f"ingest {TILE}", f"dsm {TILE}", f"fit {TILE} --division 0 --division 1"),
    *(f"fit {TILE} --division 2 --division 3", f"mesh {TILE}", f"texture {TILE}", "merge-heights", "merge-city"),
    *("evaluate", "report"),
)


@pytest.fixture
def no_network() -> None:
    if subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare can't take the network away here")


def test_every_job_runs_without_a_network_and_compiles_nothing(no_network: None, tmp_path: Path) -> None:
    config = tmp_path / "city.yaml"
    config.write_text(json.dumps(_SMALL_CITY))
    fetch(config, tmp_path / "fetched", say=lambda _: None)
    kernels = {name for name in json.loads((tmp_path / "fetched" / INDEX).read_text())["files"] if "numba" in name}
    assert len(kernels) > 100

    run = tmp_path / "work" / "results" / "small"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(load_config(_SMALL_CITY).model_dump(mode="json")))
    script = "! python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 9), 1)' 2> /dev/null\n"
    for job in JOBS:
        script += f"{shlex.quote(sys.executable)} -m cityweave {job} --run results/small\n"
    environment = os.environ | {VARIABLE: str(tmp_path / "fetched"), "NUMBA_CACHE_DIR": str(tmp_path / "node")}
    result = subprocess.run(
        [*WITHOUT_NETWORK, "sh", "-e", "-c", script],
        cwd=run.parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (run / "report.html").is_file()
    on_the_node = {f"numba/{path.relative_to(path.parents[1])}" for path in (tmp_path / "node").rglob("*.nb[ci]")}
    assert on_the_node == kernels
