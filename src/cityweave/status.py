"""What a run has done: the status table, the verdict, and quarantine by hand."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cityweave.errors import ConfigError, DataError
from cityweave.grid import Tile
from cityweave.manifest import Run, pruned_marker, write_json
from cityweave.plan import city_tiles, stage_params, tile_manifests

PRODUCTS = (
    ("report.html", "the report: open it first"),
    ("city.glb", "the city as one model (overview)"),
    ("tiles3d/tileset.json", "the city as 3D Tiles (full detail)"),
    ("city_dsm.tif", "surface heights (COG)"),
    ("city_dtm.tif", "terrain heights (COG)"),
    ("city.zarr", "all height layers"),
    ("tiles.geojson", "index of the tiles"),
    ("metrics.json", "every figure"),
)


@dataclass(frozen=True)
class Entry:
    """One manifest's state; `work_s` and `peak_rss_mb` are of the attempt that made it."""

    tile: Tile
    name: str
    status: str  # done, quarantined, missing, running, started (elsewhere) or failed
    reason: str | None = None
    work_s: float = 0.0
    peak_rss_mb: float = 0.0
    pruned: bool = False  # done, and its products dropped since on purpose


def tile_entries(run: Run) -> Iterator[Entry]:
    for tile in city_tiles(run.config):
        for name in tile_manifests(run.config):
            yield _entry(run, tile, name)


def _entry(run: Run, tile: Tile, name: str) -> Entry:
    path = run.manifest_path(name, tile)
    if not path.is_file():
        return Entry(tile, name, _attempt_state(path.with_name(f"{name}.attempt")))
    values = json.loads(path.read_text())
    record = path.with_name(f"{name}.run.json")
    cost: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    status = values["status"]
    gone = any(not (path.parent / product["path"]).exists() for product in values["products"])
    pruned = gone and pruned_marker(path).is_file()
    if gone and not pruned:
        status = "missing"
    work_s, peak_rss_mb = cost.get("work_s", 0.0), cost.get("peak_rss_mb", 0.0)
    return Entry(tile, name, status, values["reason"], work_s, peak_rss_mb, pruned)


def _attempt_state(attempt: Path) -> str:
    """Of a job without a manifest. On another machine than the job's, one that died can't be told from one at work."""
    if not attempt.is_file():
        return "missing"
    started = json.loads(attempt.read_text())
    if started["host"] != platform.node():
        return "started"
    try:
        os.kill(started["pid"], 0)
    except ProcessLookupError:
        return "failed"
    return "running"


def quarantined_tiles(run: Run) -> dict[str, str]:
    """Tiles that are out, each with the first reason given."""
    reasons: dict[str, str] = {}
    for entry in tile_entries(run):
        if entry.status == "quarantined":
            reasons.setdefault(entry.tile.name, entry.reason or "")
    return reasons


def status_table(run: Run) -> str:
    """Tile x stage as text: seconds where done, a word where not."""
    entries = list(tile_entries(run))
    names = list(tile_manifests(run.config))
    width = max(len(entry.tile.name) for entry in entries)
    lines = [" ".join([f"{'tile':{width}}", *(f"{name:>8}" for name in names), f"{'peak MB':>8}"])]
    for start in range(0, len(entries), len(names)):
        row = entries[start : start + len(names)]
        cells = [
            f"{'pruned' if e.pruned else f'{e.work_s:.1f}s' if e.status == 'done' else e.status[:8]:>8}" for e in row
        ]
        peak = max(entry.peak_rss_mb for entry in row)
        lines.append(" ".join([f"{row[0].tile.name:{width}}", *cells, f"{peak:8.0f}"]))
    done = sum(row.status == "done" for row in entries if row.name == "texture")
    total = sum(entry.work_s for entry in entries)
    lines.append(f"{done} of {len(entries) // len(names)} tiles done, {total:.1f} s of work")
    for tile, reason in quarantined_tiles(run).items():
        lines.append(f"quarantined {tile}: {reason}")
    return "\n".join(lines)


def check_verdict(run: Run, output: Path | None) -> None:
    """Write `output` when every tile is delivered; raise, naming each, when one is quarantined or missing."""
    quarantined = quarantined_tiles(run)
    missing = sorted(
        {e.tile.name for e in tile_entries(run) if e.status not in ("done", "quarantined")} - set(quarantined)
    )
    if quarantined or missing:
        parts = [f"{tile} is quarantined: {reason}" for tile, reason in quarantined.items()]
        parts += [f"{tile} is missing" for tile in missing]
        raise DataError(
            f"{len(parts)} of {len(city_tiles(run.config))} tiles are not in the city; the rest is delivered under "
            f"{run.folder}. {'; '.join(parts)}. After mending the data: cityweave retry --run {run.folder} TILE"
        )
    if output is not None:
        write_json(output, {"status": "complete", "tiles": len(city_tiles(run.config))})


def deliver_without(run: Run, tile: Tile, reason: str) -> None:
    """Quarantine on purpose: the first stage that the tile lacks gets a manifest that says so.

    Neighbours close their borders by the fits, so a tile that lost only its mesh or texture is taken out there.
    """
    paths = {name: run.manifest_path(name, tile) for name in tile_manifests(run.config)}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if not missing:
        raise ConfigError(f"{tile.name} has all its products; there is nothing to leave out")
    fits = [name for name in tile_manifests(run.config) if name.startswith("sdf_")]
    for name in missing[:1] if missing[0] in ("ingest", "stereo", "cityscale", "dsm") else fits:
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        stage = tile_manifests(run.config)[name]
        values = {
            "stage": stage,
            "tile": tile.name,
            "status": "quarantined",
            "reason": f"on purpose: {reason}",
            "inputs": {},
            "parameters": stage_params(run.config, stage),
            "seed": run.config.seed,
            "products": [],
            "notes": {},
        }
        write_json(paths[name], values)


def retry_tile(run: Run, tile: Tile) -> None:
    """Forget every quarantine of the tile, so that the next run does those stages again."""
    found = False
    for name in tile_manifests(run.config):
        path = run.manifest_path(name, tile)
        if path.is_file() and json.loads(path.read_text())["status"] == "quarantined":
            path.unlink()
            found = True
    if not found:
        raise ConfigError(f"{tile.name} is not quarantined; `cityweave status` shows which tiles are")


def describe_products(folder: Path) -> str:
    lines = [f"The city is in {folder}/"]
    lines += [f"  {folder / name}: {text}" for name, text in PRODUCTS if (folder / name).exists()]
    metrics = folder / "metrics.json"
    if metrics.is_file():
        lines.append(_headline(json.loads(metrics.read_text())))
    return "\n".join(lines)


def _headline(metrics: dict[str, Any]) -> str:
    figures = []
    for section, key, label in (
        ("dsm", "mae_m", "DSM mean error {} m"),
        ("dsm", "completeness", "complete {}"),
        ("mesh", "f1", "mesh F1 at 1 m {}"),
        ("texture", "psnr", "PSNR {} dB"),
    ):
        value = metrics.get(section, {}).get(key)
        value = value.get("1") if isinstance(value, dict) else value
        if value is not None:
            figures.append(label.format(f"{value:.3g}"))
    return "  " + ", ".join(figures)
