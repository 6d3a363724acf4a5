from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cityweave import fetched
from cityweave.errors import DataError, MissingCapability
from cityweave.operations import fetch as fetching
from cityweave.operations.fetch import fetch
from cityweave.plan import load_config, vertical_grid

GRID = b"geoid heights"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kernels are compiled for real in tests/workflow; here they are two files."""

    def warm(cache: Path) -> None:
        (cache / "dsm_ab").mkdir(parents=True, exist_ok=True)
        (cache / "dsm_ab" / "sweep.1.nbc").write_bytes(b"code")
        (cache / "dsm_ab" / "sweep.nbi").write_bytes(b"index")

    monkeypatch.setattr(fetching, "warm", warm)
    fetched._checked.cache_clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Set, then removed: whatever the code under test sets is taken back after the test.
    for name in (fetched.VARIABLE, "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path, city_values: dict) -> Path:
    """A configuration that names a grid in grids/."""
    grid = tmp_path / "grids" / "geoid.gtx"
    grid.parent.mkdir()
    grid.write_bytes(GRID)
    city_values["city"]["vertical"] = {"epsg": 3855, "grid": str(grid)}
    file = tmp_path / "city.yaml"
    file.write_text(json.dumps(city_values))
    return file


def values(config: Path) -> dict:
    return json.loads(config.read_text())


def test_a_grid_that_only_was_fetched_is_found_and_checked(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(config, tmp_path / "to", say=lambda _: None)
    (tmp_path / "grids" / "geoid.gtx").unlink()
    with pytest.raises(MissingCapability, match="cityweave fetch"):
        load_config(values(config))
    monkeypatch.setenv(fetched.VARIABLE, str(tmp_path / "to"))
    found = vertical_grid(load_config(values(config)).city.vertical)
    assert found is not None and found.read_bytes() == GRID and found.parent.parent == tmp_path / "to"
    found.write_bytes(b"damaged")
    fetched._checked.cache_clear()
    with pytest.raises(DataError, match="isn't what was fetched"):
        load_config(values(config))


def test_a_folder_that_was_never_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetched.VARIABLE, str(tmp_path))
    with pytest.raises(MissingCapability, match=r"holds no readable fetch\.json"):
        fetched.use_compiled_kernels()


def test_the_index_holds_checksums_and_says_the_same_twice(config: Path, tmp_path: Path) -> None:
    fetch(config, tmp_path / "to", say=lambda _: None)
    text = (tmp_path / "to" / "fetch.json").read_text()
    files = json.loads(text)["files"]
    assert files["grids/geoid.gtx"]["sha256"] == hashlib.sha256(GRID).hexdigest()
    assert fetched.verify(tmp_path / "to") == len(files) == 3
    fetch(config, tmp_path / "to", say=lambda _: None)
    assert (tmp_path / "to" / "fetch.json").read_text() == text


def test_a_stated_checksum_that_differs(config: Path, tmp_path: Path) -> None:
    wrong = values(config)
    wrong["city"]["vertical"]["sha256"] = "0" * 64
    config.write_text(json.dumps(wrong))
    with pytest.raises(DataError, match="the config states 0000"):
        fetch(config, tmp_path / "to", say=lambda _: None)


def test_two_grids_of_one_name(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "geoid.gtx"
    other.parent.mkdir()
    other.write_bytes(b"other heights")
    both = values(config)
    both["sources"]["terrain"] = {"path": "t.tif", "vertical": {"epsg": 5709, "grid": str(other)}}
    config.write_text(json.dumps(both))
    with pytest.raises(DataError, match=r"two different grids are named geoid\.gtx"):
        fetch(config, tmp_path / "to", say=lambda _: None)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for PROJ's store of grids."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    folder = tmp_path / "store"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PROJ_NETWORK_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield folder
        server.shutdown()
        thread.join()


def test_a_missing_grid_is_downloaded(config: Path, tmp_path: Path, store: Path) -> None:
    (tmp_path / "grids" / "geoid.gtx").rename(store / "geoid.gtx")
    fetch(config, tmp_path / "to", say=lambda _: None)
    assert (tmp_path / "to" / "grids" / "geoid.gtx").read_bytes() == GRID


def test_a_grid_that_nobody_has(config: Path, tmp_path: Path, store: Path) -> None:
    (tmp_path / "grids" / "geoid.gtx").unlink()
    with pytest.raises(MissingCapability, match=r"geoid\.gtx doesn't give it"):
        fetch(config, tmp_path / "to", say=lambda _: None)
    assert not list((tmp_path / "to" / "grids").iterdir())


def test_kernels_go_to_the_node_and_the_shared_folder_stays_as_it_is(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(config, tmp_path / "to", say=lambda _: None)
    monkeypatch.setenv(fetched.VARIABLE, str(tmp_path / "to"))
    local = fetched.use_compiled_kernels()
    assert local is not None and os.environ["NUMBA_CACHE_DIR"] == str(local)
    assert local.is_relative_to(tmp_path / f"cityweave-{os.getuid()}")
    assert (local / "dsm_ab" / "sweep.nbi").read_bytes() == b"index"
    (local / "dsm_ab" / "sweep.nbi").write_bytes(b"index of more")
    assert fetched.use_compiled_kernels() == local
    (local / "complete").unlink()  # as when two jobs start at once
    assert fetched.use_compiled_kernels() == local
    assert (local / "dsm_ab" / "sweep.nbi").read_bytes() == b"index of more"
    assert not list(local.rglob("*.tmp"))


def test_many_jobs_may_start_at_once(config: Path, tmp_path: Path) -> None:
    fetch(config, tmp_path / "to", say=lambda _: None)
    code = "from cityweave.fetched import use_compiled_kernels as u; p = u(); print(len(list(p.rglob('*.nb?'))))"
    environment = os.environ | {fetched.VARIABLE: str(tmp_path / "to"), "NUMBA_CACHE_DIR": str(tmp_path / "node")}
    jobs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert [job.communicate()[0] for job in jobs] == ["2\n"] * 6
