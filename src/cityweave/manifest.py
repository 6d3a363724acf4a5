"""One job, one output, whole or absent.

A job writes its products aside and renames them to a name that holds the hash of their content. Its manifest
`{stage}.json` comes last, is what the workflow sees, and depends on inputs, parameters and results only, so redoing a
job with the same result changes no byte. What a run cost goes into `{stage}.run.json` beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cityweave.codehash import stage_hash
from cityweave.config import Config
from cityweave.errors import DataError, Quarantine
from cityweave.gpu import metered
from cityweave.grid import Tile
from cityweave.machine import cpu_model
from cityweave.plan import base_folder, load_config, run_folder, stage_params

HASH_LENGTH = 12


@dataclass(frozen=True)
class Run:
    """A folder under results/ with its resolved configuration; every stage works in one."""

    folder: Path
    config: Config
    resume: bool = False  # take over what an attempt of the same job that died has finished

    @staticmethod
    def begin(config: Config) -> Run:
        """The run of a configuration, which is rewritten only when it changed; and, where there is none yet, that of
        the base it was derived from."""
        text = json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
        folder = run_folder(config)
        for each in {folder, base_folder(config)}:
            file = each / "config.json"
            if file.is_file() and (each != folder or file.read_text() == text):
                continue
            each.mkdir(parents=True, exist_ok=True)
            aside = each / "config.json.tmp"
            aside.write_text(text)
            aside.replace(file)
        return Run(folder, config)

    @staticmethod
    def open(folder: Path) -> Run:
        file = folder / "config.json"
        if not file.is_file():
            raise DataError(f"{folder} is no run: it has no config.json; the workflow writes it when it starts")
        return Run(folder, load_config(json.loads(file.read_text())))

    def tile_folder(self, tile: Tile) -> Path:
        return self.folder / "tiles" / tile.name

    def manifest_path(self, stage: str, tile: Tile | None = None) -> Path:
        """`stage` is the manifest's name: dsm, sdf_2, mesh, ..."""
        folder = self.tile_folder(tile) if tile else self.folder / "city"
        return folder / f"{stage}.json"


@dataclass(frozen=True)
class Manifest:
    path: Path
    values: dict[str, Any]

    @staticmethod
    def read(path: Path) -> Manifest:
        try:
            return Manifest(path, json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} can't be read ({error}); rerun with: snakemake {path}") from error

    @property
    def quarantined(self) -> str | None:
        """The reason, when the tile is out."""
        return self.values.get("reason") if self.values["status"] == "quarantined" else None

    @property
    def notes(self) -> dict[str, Any]:
        return self.values["notes"]

    def product(self, name: str) -> Path:
        """Path of a product, checked to be there at the size that was written."""
        for entry in self.values["products"]:
            if entry["name"] == name:
                path = self.path.parent / entry["path"]
                if not is_whole(path, entry["bytes"]):
                    what = "was pruned" if pruned_marker(self.path).exists() else "is gone or damaged"
                    raise DataError(f"{path} {what}; rerun with: snakemake --force {self.path}")
                return path
        raise DataError(f"{self.path} names no product {name!r}, only {[e['name'] for e in self.values['products']]}")


def pruned_marker(manifest: Path) -> Path:
    """Beside a manifest whose products were dropped on purpose, until its job runs again."""
    return manifest.with_name(f"{manifest.stem}.pruned.json")


def is_whole(path: Path, size: int) -> bool:
    return path.exists() and _size(path) == size


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in _files(path))


def content_hash(path: Path) -> str:
    """sha256 of a file, or of the names and contents below a folder."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else _files(path):
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass
class Products:
    """Hands out paths to write to; what was written becomes visible when its block ends without an error."""

    folder: Path
    prefix: str  # of every product of this job, so that remains of a killed attempt can be told
    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # deterministic facts for the manifest
    usage: dict[str, Any] = field(default_factory=dict)  # anything about this very attempt, for .run.json

    @contextmanager
    def path(self, name: str, suffix: str = "") -> Iterator[Path]:
        """A file or a folder `{name}.{hash}{suffix}` in the job's folder; the caller creates it."""
        aside = self.folder / f"{name}.{self.prefix}.tmp"
        remove(aside)
        yield aside
        digest = content_hash(aside)
        final = self.folder / f"{name}.{digest[:HASH_LENGTH]}{suffix}"
        size = _size(aside)
        if final.exists() and content_hash(final) == digest:
            remove(aside)
        else:
            remove(final)  # damaged since it was written, or not there
            aside.rename(final)
        self._add(name, final, size, digest)

    @contextmanager
    def fixed(self, path: Path) -> Iterator[Path]:
        """A single file with a fixed name, such as a city's product: written aside and replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.{self.prefix}.tmp{path.suffix}")
        remove(aside)
        yield aside
        size, digest = _size(aside), content_hash(aside)
        if path.is_dir():
            remove(path)
        aside.replace(path)
        self._add(path.name, path, size, digest)

    def _add(self, name: str, path: Path, size: int, digest: str) -> None:
        relative = os.path.relpath(path, self.folder)
        self.entries.append({"name": name, "path": relative, "bytes": size, "sha256": digest})


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    aside.replace(path)


def run_job(
    run: Run,
    stage: str,
    work: Callable[[Products], None],
    *,
    name: str | None = None,
    tile: Tile | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> Manifest:
    """Do the work of one job and write its manifest.

    `stage` names the section, the code and the cost; `name` the manifest where they differ (sdf_2, mesh).
    `inputs` are manifests of other jobs by a stable name. `work` raises Quarantine when the tile can't be used.
    """
    name = name or stage
    path = run.manifest_path(name, tile)
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        "stage": stage,
        "tile": tile.name if tile else None,
        "inputs": {key: content_hash(value) for key, value in sorted((inputs or {}).items())},
        "parameters": stage_params(run.config, stage),
        "seed": run.config.seed,
    }
    record = path.with_name(f"{name}.run.json")
    if run.resume and (finished := _finished(path, record, base, stage)):
        return finished
    for remains in folder.glob(f"*.{name}.tmp*"):
        remove(remains)
    old = recorded(record)
    path.unlink(missing_ok=True)
    pruned_marker(path).unlink(missing_ok=True)

    attempt = path.with_name(f"{name}.attempt")
    write_json(attempt, {"host": platform.node(), "pid": os.getpid()})
    products = Products(folder, name)
    started, cpu_before = time.perf_counter(), time.process_time()
    reason: str | None = None
    with metered() as meter:
        try:
            work(products)
        except Quarantine as verdict:
            reason = verdict.reason
            products.entries.clear()
    products.usage |= meter.usage()
    values = base | {
        "status": "done" if reason is None else "quarantined",
        "reason": reason,
        "products": sorted(products.entries, key=lambda entry: entry["name"]),
        "notes": products.notes,
    }
    cost = _cost(stage, started, cpu_before, products.usage)
    write_json(record, cost | {"manifest": values})
    write_json(path, values)
    attempt.unlink(missing_ok=True)  # stays when the work failed or died: so the status can tell
    drop_stale(folder, old, values)
    return Manifest(path, values)


def _finished(path: Path, record: Path, base: dict[str, Any], stage: str) -> Manifest | None:
    """The manifest of an earlier attempt, put back if the same job would be done again."""
    values = recorded(record)
    if any(values.get(key) != base[key] for key in base):
        return None
    if json.loads(record.read_text())["code"] != stage_hash(stage):
        return None
    manifest = Manifest(path, values)
    try:
        for entry in values["products"]:
            manifest.product(entry["name"])
    except DataError:
        return None
    write_json(path, values)
    return manifest


def recorded(record: Path) -> dict[str, Any]:
    """What the last finished attempt wrote; its manifest itself is often gone, as Snakemake removes outputs first."""
    try:
        values: dict[str, Any] = json.loads(record.read_text())["manifest"]
        return values
    except (OSError, ValueError, KeyError):
        return {"products": []}


def drop_stale(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Products that the manifest before this one named, or that a killed attempt left, and that nothing names now."""
    kept = {entry["path"] for entry in new["products"]}
    stale = {entry["path"] for entry in old["products"]} - kept
    for entry in new["products"]:
        if entry["path"].startswith(f"{entry['name']}."):
            suffix = entry["path"].removeprefix(f"{entry['name']}.")[HASH_LENGTH:]
            stale |= {path.name for path in folder.glob(f"{entry['name']}.{'[0-9a-f]' * HASH_LENGTH}{suffix}")} - kept
    for path in sorted(stale):
        remove(folder / path)


def _cost(stage: str, started: float, cpu_before: float, usage: dict[str, Any]) -> dict[str, Any]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    workers = usage.get("workers", {"count": 0, "cpu_s": 0.0, "peak_rss_mb": 0.0, "beside": False})
    peak_rss_mb = max(own.ru_maxrss, children.ru_maxrss) / 1024
    if workers["beside"]:  # all in the memory of this job, at once
        peak_rss_mb = own.ru_maxrss / 1024 + workers["count"] * workers["peak_rss_mb"]
    return {
        "stage": stage,
        "work_s": round(time.perf_counter() - started, 3),
        "cpu_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        "work_cpu_s": round(time.process_time() - cpu_before + workers["cpu_s"], 3),
        "peak_rss_mb": round(peak_rss_mb, 1),
        "host": platform.node(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "python": sys.version.split()[0],
        "code": stage_hash(stage),
        **usage,
    }
