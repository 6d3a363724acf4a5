"""Time and memory of the geometry stage at the published sizes.

    python bench/geometry_time.py FOLDER > bench/records/geometry_time.md

Makes a synthetic city of one tile of 1,024 m in FOLDER and takes its true heights, with noise of 0.1 m and 3 % holes,
as what the stage before would deliver. Then `fit` (four divisions of 512 m, a job each, two at a time) and `mesh` run
by their commands, imports included, twice; the second counts, since the first compiles. In nodes and pixels that is the
published size: 256 x 256 nodes and a raster of 1024 x 1024 a division with nodes 2 m apart. Last, steps of the
published fit.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr

from cityweave.evaluate.truth import Truth
from cityweave.geometry.job import fit_division, read_heights
from cityweave.grid import DIVISIONS, CellGrid, Tile
from cityweave.machine import cpu_kind, usable_cores
from cityweave.manifest import Manifest, Products, Run, run_job, write_json
from cityweave.mesh import load_levels
from cityweave.plan import city_tiles, dsm_box, load_config

ROOT = Path(__file__).resolve().parent.parent
SIZE_M, GSD_M = 1024, 0.5
CORNER_M = (315392, 4161536)
NOISE_M, HOLES = 0.1, 0.03
FIRST_M = 2.0  # node spacing; then half and a quarter of it
PUBLISHED_STEPS = 5
HEAD = """## geometry: what it costs at the published sizes

One tile of 1,024 m, four divisions, by `bench/geometry_time.py` on {cores} cores of {cpu}, {date}; compiled code
cached, imports in. Fit: four jobs, two at a time. Alone: the fit of one division in a process that has it loaded.

| nodes | a division | fit s | steps | alone s | ns a pixel and step | mesh s | together s | peak MB | triangles |
|---|---|---|---|---|---|---|---|---|---|"""


def config_of(folder: Path, pitch_m: float) -> dict[str, Any]:
    suite = yaml.safe_load((ROOT / "config" / "bench" / "geometry.yaml").read_text())
    values: dict[str, Any] = suite["config"]
    west, south = CORNER_M
    values["city"] |= {"name": "square_km", "bounds_m": [west, south, west + SIZE_M, south + SIZE_M]}
    values["synth"] |= {"views": values["synth"]["views"][:2], "test_heights_m": []}
    values |= {"seed": 1, "tiles": {"size_m": SIZE_M}, "workflow": {"results": str(folder)}}
    values["geometry"] = {"pitch_m": pitch_m, "blend_m": 16.0}
    return values


def made(folder: Path) -> Run:
    file = folder / "square_km.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config_of(folder, FIRST_M), sort_keys=False))
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    target = folder / "square_km" / "city" / "synth.json"
    command = [snakemake, "--cores", "all", "--quiet", "all", "--configfile", str(file), "--", str(target)]
    subprocess.run(command, cwd=ROOT, check=True)
    return Run.open(folder / "square_km")


def write_heights(run: Run, tile: Tile) -> None:
    grid = CellGrid.covering(dsm_box(run.config, tile), GSD_M)
    draw = np.random.default_rng(1)
    heights = Truth(run).heights(grid)
    heights = (heights + draw.normal(0, NOISE_M, heights.shape)).astype(np.float32)
    heights[draw.random(heights.shape) < HOLES] = np.nan

    def work(products: Products) -> None:
        with products.path("dsm", ".zarr") as path:
            group = zarr.create_group(path)
            layers = {"dsm": heights, "sigma": np.full_like(heights, NOISE_M), "source": np.ones(heights.shape, "u1")}
            for name, values in layers.items():
                group[name] = values

    run_job(run, "dsm", work, tile=tile)


def side_by_side(commands: list[list[str]]) -> tuple[float, float]:
    """Seconds until all are done, and the sum of their peak memory in MB."""
    started = time.perf_counter()
    children = [os.posix_spawn(command[0], command, os.environ) for command in commands]
    peak = 0.0
    for child in children:
        _, status, usage = os.wait4(child, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit("a job failed")
        peak += usage.ru_maxrss / 1024
    return time.perf_counter() - started, peak


def measure(folder: Path, pitch_m: float) -> None:
    config = load_config(config_of(folder, pitch_m))
    run_folder = folder / "square_km"
    write_json(run_folder / "config.json", config.model_dump(mode="json"))
    run = Run.open(run_folder)
    (tile,) = city_tiles(config)
    write_heights(run, tile)
    job = [sys.executable, "-m", "cityweave"]
    rest = ["--run", str(run.folder), "--tile", tile.name]
    fits = [[*job, "fit", *rest, "--division", str(division)] for division in DIVISIONS]
    for _ in range(2):
        for manifest in (run.folder / "tiles" / tile.name).glob("sdf_*.json"):
            manifest.unlink()
        run.manifest_path("mesh", tile).unlink(missing_ok=True)
        (first_s, first_mb), (second_s, second_mb) = side_by_side(fits[:2]), side_by_side(fits[2:])
        fit_s, fit_mb = first_s + second_s, max(first_mb, second_mb)
        mesh_s, mesh_mb = side_by_side([[*job, "mesh", *rest]])
    heights = read_heights(config, tile, 0, Manifest.read(run.manifest_path("dsm", tile)).product("dsm"))
    started = time.perf_counter()
    _, steps = fit_division(config, heights)
    alone_s = time.perf_counter() - started
    triangles = len(load_levels(Manifest.read(run.manifest_path("mesh", tile)).product("mesh"))[0].faces)
    side = round(SIZE_M / 2 / pitch_m)
    print(
        f"| {pitch_m:g} m apart | {side} x {side} | {fit_s:.1f} | {steps} | {alone_s:.2f} | "
        f"{alone_s / steps / heights.target.size * 1e9:.1f} | {mesh_s:.1f} | {fit_s + mesh_s:.1f} | "
        f"{max(fit_mb, mesh_mb):.0f} | {triangles} |",
        flush=True,
    )


def published(folder: Path) -> None:
    """Steps of the published fit on one division, with one core and 128 x 128 cubes in plan."""
    import torch

    from cityweave.geometry.field import FieldShape
    from cityweave.geometry.published import PublishedSettings, fit

    torch.set_num_threads(1)
    run = Run.open(folder / "square_km")
    (tile,) = city_tiles(run.config)
    heights = Truth(run).heights(CellGrid.covering(tile.division(0), GSD_M))[::-1].copy()
    shape = FieldShape(2.0, 3.125, 2.0, "centred")
    seconds = [
        fit(heights, SIZE_M / 2, 256, shape, PublishedSettings(steps=n)).seconds for n in (1, PUBLISHED_STEPS + 1)
    ]
    step_s = (seconds[1] - seconds[0]) / PUBLISHED_STEPS
    print(
        f"\nThe published fit, FlexiCubes at every step, on the same division: {step_s:.2f} s a step on one core, so "
        f"{step_s * 2000 / 60:.0f} minutes for its 2,000 steps and {step_s * 8000 / 60:.0f} for the four divisions; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB."
    )


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    made(folder)
    print(HEAD.format(cores=usable_cores(), cpu=cpu_kind(), date=time.strftime("%Y-%m-%d")), flush=True)
    for pitch_m in (FIRST_M, FIRST_M / 2, FIRST_M / 4):
        measure(folder, pitch_m)
    published(folder)


if __name__ == "__main__":
    main()
