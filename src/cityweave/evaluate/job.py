"""The job: reads the delivered city and the truth, writes metrics.json and the pictures that the report shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cityweave.errors import DataError
from cityweave.evaluate.city import City
from cityweave.evaluate.cost import cost
from cityweave.evaluate.heights import border_figures, dsm_figures
from cityweave.evaluate.mesh import mesh_figures
from cityweave.evaluate.truth import Truth
from cityweave.evaluate.views import texture_figures
from cityweave.grid import Tile
from cityweave.manifest import Manifest, Products, Run, run_job, write_json
from cityweave.plan import city_tiles, tile_manifests

SIGNIFICANT_DIGITS = 6
_SECOND_RUN = "needs a second run whose tiles are shifted by half a tile: cityweave border fills it"


def run(run: Run) -> Manifest:
    inputs = {name: run.manifest_path(name) for name in ("merge_heights", "merge_city")}
    if run.config.synth is not None:
        inputs["synth"] = run.folder.parent / run.config.city.name / "city" / "synth.json"

    def work(products: Products) -> None:
        with products.path("pictures") as folder:
            folder.mkdir()
            metrics = measure(run, folder)
        # The figures are a product to the byte; what the run cost never is, so it joins them outside.
        with products.path("figures", ".json") as path:
            write_json(path, metrics)
        _publish(run, metrics)

    return run_job(run, "evaluate", work, inputs=inputs)


def measure(run: Run, pictures: Path) -> dict[str, Any]:
    """Every figure but the cost."""
    config = run.config
    truth = Truth(run)
    city = City(run, truth.origin)
    dsm, dsm_reasons, maps = dsm_figures(run, truth)
    maps.save(pictures / "maps.npz")
    mesh, mesh_reasons = mesh_figures(city, truth, config.evaluate.points_per_m2, config.dsm.gsd_m, config.seed)
    texture, texture_reasons = texture_figures(city, truth, pictures)
    dsm["border_ratio"] = dsm["border_ratio_interval"] = None
    dsm_reasons["border_ratio"] = dsm_reasons["border_ratio_interval"] = _SECOND_RUN
    reasons: dict[str, str] = {}
    for section, part in (("dsm", dsm_reasons), ("mesh", mesh_reasons), ("texture", texture_reasons)):
        reasons |= {f"{section}.{name}": reason for name, reason in part.items()}
    return rounded(
        {
            "city": config.city.name,
            "tiles": tile_states(run),
            "dsm": dsm,
            "mesh": mesh,
            "texture": texture,
            "reasons": reasons,
        }
    )


def tile_states(run: Run) -> dict[str, Any]:
    """Expected and done tiles, and the quarantined ones by name."""
    tiles = city_tiles(run.config)
    quarantined = [tile.name for tile in tiles if _is_quarantined(run, tile)]
    done = [tile for tile in tiles if run.manifest_path("texture", tile).is_file() and tile.name not in quarantined]
    return {"expected": len(tiles), "done": len(done), "quarantined": quarantined}


def _is_quarantined(run: Run, tile: Tile) -> bool:
    paths = (run.manifest_path(name, tile) for name in tile_manifests(run.config))
    return any(path.is_file() and Manifest.read(path).quarantined is not None for path in paths)


def _publish(run: Run, metrics: dict[str, Any]) -> None:
    """metrics.json: the figures, and what the run cost (which differs from run to run)."""
    area_km2 = (
        sum(
            part.width * part.height
            for tile in city_tiles(run.config)
            if (part := tile.core.intersection(run.config.city.box)) is not None
        )
        / 1e6
    )
    figures, reasons = cost(run, area_km2)
    reasons = metrics["reasons"] | {f"cost.{name}": reason for name, reason in reasons.items()}
    write_json(run.folder / "metrics.json", metrics | {"cost": rounded(figures), "reasons": reasons})


def border(run: Run, shifted: Run) -> None:
    """Fill border_ratio in metrics.json of `run` from a second run whose tiles are shifted by half a tile."""
    path = run.folder / "metrics.json"
    if not path.is_file():
        raise DataError(f"{path} is not there; run the workflow first, then this")
    found = border_figures(run, shifted)
    metrics = json.loads(path.read_text())
    metrics["dsm"]["border_ratio"] = rounded(found.ratio)
    metrics["dsm"]["border_ratio_interval"] = [rounded(found.low), rounded(found.high)]
    for name in ("border_ratio", "border_ratio_interval"):
        metrics["reasons"].pop(f"dsm.{name}", None)
    write_json(path, metrics)
    print(
        f"border_ratio {found.ratio:.4f}, 95 % interval {found.low:.4f} to {found.high:.4f}, "
        f"from {found.cells} cells in {found.blocks} blocks"
    )


def rounded(value: Any) -> Any:
    """Floats to 6 significant digits, so that the last bits of a sum never decide what a file holds."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value
