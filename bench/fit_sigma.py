"""The table of sigma that `cityweave.dsm.confidence` reads, fitted on synthetic cities.

    python bench/fit_sigma.py fit FOLDER          # makes the cities in FOLDER, measures their heights, writes the table
    python bench/fit_sigma.py check FOLDER        # coverage of sigma on cities of other seeds

The cities are those of config/bench/stereo.yaml with seeds that no suite uses, each from seven sets of views. Cells are
sorted into a table by their evidence; sigma is the quantile of their errors that `QUANTILE` says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import ndimage

from cityweave.aoi import Aoi
from cityweave.dsm.confidence import MEASURED, evidence
from cityweave.dsm.job import local_grid, usable_views
from cityweave.dsm.reconstruct import reconstruct
from cityweave.evaluate.confidence import Confidence
from cityweave.evaluate.truth import Truth
from cityweave.grid import CellGrid
from cityweave.manifest import Manifest, Run
from cityweave.plan import city_tiles, halos_m

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "src" / "cityweave" / "dsm" / "sigma_table.json"
SEEDS = {"fit": (11, 12, 13), "check": (21, 22)}
VIEWS = {
    "two": ("v02", "v06"),
    "two_others": ("v01", "v06"),
    "three": ("v02", "v06", "v04"),
    "three_others": ("v01", "v05", "v08"),
    "four": ("v01", "v02", "v05", "v07"),
    "six": ("v01", "v02", "v03", "v04", "v05", "v06"),
    "twelve": tuple(f"v{number:02d}" for number in range(1, 13)),
}
CLASSES = (2, 3, 4, 6)
QUANTILE = 0.7
LEAST_CELLS = 150  # in an entry of the table; those with fewer take their neighbour's
CLEARNESS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.6)
RELIEF_M = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.37, 0.45, 0.55, 0.7, 1.0, 1.5, 2.2, 3.5, 6.0, 10.0)
HOLE_M = (0.5, 1.0, 1.5, 2.5, 4.0, 7.0, 15.0)

Cells = dict[str, np.ndarray]  # the evidence, `measured`, `error` and `sigma` of many cells


def made(folder: Path, seed: int, name: str) -> Run:
    """The city's AOIs, with the workflow; what is there already is taken."""
    suite = yaml.safe_load((ROOT / "config" / "bench" / "stereo.yaml").read_text())
    views = {view["name"]: view for view in suite[".views"]}
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(suite["config"]))
    config["city"]["name"] = f"{name}_{seed}"
    config |= {"seed": seed, "workflow": {"results": str(folder)}}
    config["synth"]["views"] = [views[view] for view in VIEWS[name]]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}_{seed}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    command = [snakemake, "--cores", "all", "--quiet", "all", "--configfile", str(file), "--", "heights"]
    subprocess.run(command, cwd=ROOT, check=True)
    return Run.open(folder / config["city"]["name"])


def cells_of(run: Run) -> Cells:
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    truth, settings = Truth(run), run.config.dsm
    for tile in city_tiles(run.config):
        aoi = Aoi(Manifest.read(run.manifest_path("ingest", tile)).product("aoi"))
        box = tile.core.grow(halos_m(run.config)["dsm"])
        heights = tuple(float(height) - aoi.z0_m for height in aoi.attributes["heights_m"])
        views, _ = usable_views(run.config, aoi, box, (tile.core.xmin, tile.core.ymin, aoi.z0_m))
        grid = CellGrid.covering(box, settings.gsd_m)
        model = reconstruct(views, local_grid(grid, tile), (heights[0], heights[1]), settings)
        core = CellGrid.covering(tile.core, settings.gsd_m)
        window = grid.window_of(core)
        error = np.abs(model.dsm[window] + aoi.z0_m - truth.heights(core))
        known = np.isfinite(error)
        clearness, relief, hole = astuple(evidence(model.dsm, model.clearness, model.source, settings.gsd_m))
        layers = {"clearness": clearness, "relief_m": relief, "hole_m": hole, "sigma": model.sigma}
        for name, layer in layers.items():
            found[name].append(layer[window][known])
        found["measured"].append((model.source == MEASURED)[window][known])
        found["error"].append(error[known])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def fitted(cells: Cells, chosen: np.ndarray, first: tuple[str, tuple[float, ...]]) -> list[list[float]]:
    name, points = first
    rows = np.digitize(cells[name][chosen], np.convolve(points, (0.5, 0.5), "valid"))
    cols = np.digitize(cells["relief_m"][chosen], np.convolve(RELIEF_M, (0.5, 0.5), "valid"))
    error = cells["error"][chosen]
    grid = np.full((len(points), len(RELIEF_M)), np.nan)
    for at in np.ndindex(grid.shape):
        entry = error[(rows == at[0]) & (cols == at[1])]
        if entry.size >= LEAST_CELLS:
            grid[at] = np.log(np.quantile(entry, QUANTILE) + 1e-3)
    nearest = ndimage.distance_transform_edt(np.isnan(grid), return_distances=False, return_indices=True)
    grid = grid[tuple(nearest)]
    if name == "clearness":  # a clearer winner is never less sure, whatever few cells of an entry say
        grid = np.maximum.accumulate(grid[::-1])[::-1]
    return [[round(float(value), 3) for value in row] for row in grid]


def fit(folder: Path) -> None:
    by_class: dict[int, list[Cells]] = defaultdict(list)
    for seed in SEEDS["fit"]:
        for name, views in VIEWS.items():
            by_class[max(least for least in CLASSES if least <= len(views))].append(cells_of(made(folder, seed, name)))
    pooled = [{k: np.concatenate([part[k] for part in by_class[c]]) for k in by_class[c][0]} for c in CLASSES]
    table = {
        "made_by": "bench/fit_sigma.py fit",
        "cities": f"config/bench/stereo.yaml with seeds {', '.join(map(str, SEEDS['fit']))}",
        "quantile": QUANTILE,
        "views": CLASSES,
        "clearness": CLEARNESS,
        "relief_m": RELIEF_M,
        "hole_m": HOLE_M,
        "measured": [fitted(cells, cells["measured"], ("clearness", CLEARNESS)) for cells in pooled],
        "filled": [fitted(cells, ~cells["measured"], ("hole_m", HOLE_M)) for cells in pooled],
    }
    TABLE.write_text(json.dumps(table).replace("]], ", "]],\n ").replace("], [", "],\n  [") + "\n")
    print(TABLE)


def check(folder: Path) -> None:
    for name in VIEWS:
        confidence = Confidence()
        for seed in SEEDS["check"]:
            cells = cells_of(made(folder, seed, name))
            confidence.add(cells["error"], cells["sigma"])
        figures = confidence.figures()
        assert figures is not None
        print(
            f"{name}: coverage off by at most {figures['coverage_gap']:.3f}, sparsification error {figures['ause']:.3f}"
        )
        for key in ("decile_sigma_m", "coverage_1", "coverage_2"):
            print("   ", key, *(f"{value:.3f}" for value in figures[key]))


if __name__ == "__main__":
    {"fit": fit, "check": check}[sys.argv[1]](Path(sys.argv[2]))
