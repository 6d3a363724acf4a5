"""What merging the heights of a large city costs: python bench/merge_heights.py FOLDER SIDE WORKERS [WORKERS ...]

Makes a city of SIDE x SIDE tiles with height models only (1024 x 1024 cells each, 12 MB on disk), merges it with each
number of workers and prints wall seconds, processor seconds, and the memory of all processes and of the largest.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cityweave.grid import CellGrid
from cityweave.manifest import Run, content_hash, run_job
from cityweave.plan import city_tiles, load_config

TILE_M, HALO_M, GSD_M = 512, 24, 0.5


def make_city(folder: Path, side: int) -> Run:
    x, y = 315392, 4161536
    city: dict[str, Any] = {
        "name": folder.name,
        "crs": "EPSG:32637",
        "vertical": "ellipsoid",
        "heights_m": [500.0, 900.0],
    }
    city |= {"bounds_m": [x, y, x + side * TILE_M, y + side * TILE_M], "max_building_m": 80}
    views = [{"name": f"v{number}", "path": f"v{number}.tif"} for number in range(2)]
    config = load_config({"city": city, "tiles": {"size_m": TILE_M}, "sources": {"views": views}})
    run = Run(folder, config)
    folder.mkdir(parents=True)

    def survey(products: Any) -> None:
        with products.path("survey", ".json") as path:
            path.write_text(json.dumps({"views": []}))

    run_job(run, "survey", survey)
    rng = np.random.default_rng(0)
    layers = made_layers(rng, round((TILE_M + 2 * HALO_M) / GSD_M) + 256)
    for tile in city_tiles(config):
        grid = CellGrid.covering(tile.core.grow(HALO_M), GSD_M)
        row, col = rng.integers(0, 256, 2)
        cut = {name: layer[row : row + grid.rows, col : col + grid.cols] for name, layer in layers.items()}
        run_job(run, "dsm", lambda products, grid=grid, cut=cut: write_dsm(products, grid, cut), tile=tile)
    return run


def made_layers(rng: np.random.Generator, cells: int) -> dict[str, np.ndarray]:
    """Boxes on rolling ground with noise and holes; noise is what costs when it is compressed."""
    ground = 600 + 20 * np.sin(np.arange(cells) / 300)[:, None] + 10 * np.cos(np.arange(cells) / 200)[None, :]
    surface = ground.copy()
    for _ in range(500):
        j, i = rng.integers(0, cells - 80, 2)
        height, width = rng.integers(16, 70, 2)
        surface[j : j + height, i : i + width] = ground[j, i] + rng.uniform(4, 40)
    surface += rng.normal(0, 0.05, surface.shape)
    holes = rng.random(surface.shape) < 0.02
    return {
        "dsm": np.where(holes, np.nan, surface).astype(np.float32),
        "dtm": ground.astype(np.float32),
        "sigma": rng.gamma(2, 0.1, surface.shape).astype(np.float32),
        "count": rng.integers(0, 8, surface.shape).astype(np.uint8),
        "source": np.where(holes, 0, 1).astype(np.uint8),
    }


def write_dsm(products: Any, grid: CellGrid, layers: dict[str, np.ndarray]) -> None:
    import zarr

    from cityweave.io import cf

    with products.path("dsm", ".zarr") as path:
        group = zarr.create_group(path)
        for name, layer in layers.items():
            cf.write_array(group, name, layer, ("y", "x"), {}, np.nan if layer.dtype.kind == "f" else None)
        cf.write_axes(group, grid)


def merge(run: Run, workers: int) -> str:
    values = run.config.model_dump(mode="json")
    values["merge"]["workers"] = workers
    (run.folder / "config.json").write_text(json.dumps(values))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = ["merge-heights", "--run", str(run.folder), "--cpus", str(workers)]
    process = psutil.Popen([sys.executable, "-m", "cityweave", *command])
    together = largest = 0.0
    while process.poll() is None:
        sizes = [proportional_mb(each) for each in (process, *process.children(recursive=True))]
        together, largest = max(together, sum(sizes)), max(largest, *sizes)
        time.sleep(0.1)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    digest = content_hash(run.manifest_path("merge_heights"))[:12]
    return (
        f"{workers} workers: {wall_s:.1f} s, {cpu_s:.1f} s of processor, {together:.0f} MB together, "
        f"{largest:.0f} MB the largest, manifest {digest}"
    )


def proportional_mb(process: psutil.Process) -> float:
    """Pages that processes share are counted once."""
    try:
        return float(process.memory_full_info().pss) / 2**20
    except psutil.Error:
        return 0.0


if __name__ == "__main__":
    where, tiles, *counts = sys.argv[1:]
    made = make_city(Path(where), int(tiles))
    for count in counts:
        print(merge(made, int(count)), flush=True)
