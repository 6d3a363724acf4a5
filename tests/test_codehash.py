"""What reruns a stage: its own code and what that imports, nothing said about it; and what is remembered of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cityweave import codehash

OTHER = '"""Words."""\n\nRADIUS = 1\n'
OWN = "from cityweave.other import RADIUS\n\nprint(RADIUS)\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "job.py").write_text(OWN)
    (tmp_path / "other.py").write_text(OTHER)
    (tmp_path / "alone.py").write_text("x = 1\n")
    monkeypatch.setattr(codehash, "PACKAGE", tmp_path)
    monkeypatch.setattr(codehash, "_REMEMBERED", tmp_path / "__pycache__" / "hashes.json")
    return tmp_path


def forget() -> None:
    codehash.stage_hash.cache_clear()
    codehash._all_parsed.cache_clear()


def fresh_hash() -> str:
    """As a new process finds it."""
    forget()
    return codehash.stage_hash("stage")


@pytest.fixture(autouse=True)
def on_its_own() -> Iterator[None]:
    forget()
    yield
    forget()


def test_closure_holds_what_a_stage_imports(package: Path) -> None:
    assert codehash.closure("stage") == ["other.py", "stage/job.py"]


def test_code_counts_and_words_do_not(package: Path) -> None:
    before = fresh_hash()
    (package / "other.py").write_text('"""Other words."""\n\n# why\nRADIUS = 1\n')
    (package / "alone.py").write_text("x = 2\n")
    assert fresh_hash() == before
    (package / "other.py").write_text(OTHER.replace("1", "2"))
    assert fresh_hash() != before


def test_weights_beside_the_code_count(package: Path) -> None:
    before = fresh_hash()
    (package / "stage" / "net.safetensors").write_bytes(b"weights")
    with_weights = fresh_hash()
    assert with_weights != before
    (package / "stage" / "net.safetensors").write_bytes(b"others")
    assert fresh_hash() not in (before, with_weights)


def test_an_unchanged_file_is_not_parsed_again(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fresh_hash()
    parsed = []
    original = codehash._parsed
    monkeypatch.setattr(codehash, "_parsed", lambda file: parsed.append(file.name) or original(file))
    assert fresh_hash() == before
    assert parsed == []
    os.utime(package / "other.py", ns=(0, 0))
    assert fresh_hash() == before
    assert parsed == ["other.py"]


@pytest.mark.parametrize("text", ["", "{", '{"made_by": "another version", "files": {"other.py": ["", "", []]}}'])
def test_what_another_version_or_a_fault_left_is_made_again(package: Path, text: str) -> None:
    before = fresh_hash()
    codehash._REMEMBERED.write_text(text)
    assert fresh_hash() == before


def test_a_package_that_may_not_be_written_is_hashed_all_the_same(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fresh_hash()
    (package / "a file").touch()
    monkeypatch.setattr(codehash, "_REMEMBERED", package / "a file" / "hashes.json")
    assert fresh_hash() == before
