"""Are bridges flagged, and nothing else? python bench/decks.py RUN …

Runs of synthetic cities whose heights are there. Truth: cells whose top is a deck at least BREAK_M above the ground
below. Printed per run: how many bridges there are (at least 20 m2 inside a tile), how many of them are flagged over
half of their area, the flagged share of all their area, and flagged ground farther than 5 m from any bridge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import zarr
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy import ndimage

from cityweave.dsm.decks import BREAK_M, may_be_decks
from cityweave.evaluate.truth import Truth
from cityweave.grid import CellGrid
from cityweave.manifest import Manifest, Run
from cityweave.plan import city_tiles, dsm_box

LEAST_M2, NEAR_M = 20.0, 5.0


def decks_of(run: Run, grid: CellGrid) -> np.ndarray:
    truth = Truth(run)
    assert truth.folder is not None
    with np.load(truth.folder / "mesh.npz", allow_pickle=False) as mesh:
        number = list(mesh["materials"]).index("DECK")
        corners = (mesh["vertices"] + mesh["origin_m"])[mesh["faces"][mesh["material"] == number]][..., :2]
    shapes = [{"type": "Polygon", "coordinates": [[*map(tuple, corner), tuple(corner[0])]]} for corner in corners]
    transform = from_origin(grid.box.xmin, grid.box.ymax, grid.gsd_m, grid.gsd_m)
    top = rasterize(shapes, out_shape=grid.shape, transform=transform, dtype=np.uint8) > 0 if shapes else False
    ground = truth.ground(grid)
    assert ground is not None
    return top & (truth.heights(grid) - ground >= BREAK_M)


def main() -> None:
    print("| run | bridges | flagged | of their area | elsewhere, m2 | cells |\n|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        run = Run.open(Path(name).resolve())
        gsd_m = run.config.dsm.gsd_m
        bridges = flagged = cells = 0
        area = hit = stray = 0.0
        for tile in city_tiles(run.config):
            grid = CellGrid.covering(dsm_box(run.config, tile), gsd_m)
            group = zarr.open_group(Manifest.read(run.manifest_path("dsm", tile)).product("dsm"), mode="r")
            core = grid.window_of(CellGrid.covering(tile.core, gsd_m))
            found = may_be_decks(group["dsm"][...], group["dtm"][...], gsd_m)[core]
            deck = decks_of(run, grid)[core]
            patch, patches = ndimage.label(deck)
            sizes = np.bincount(patch.ravel(), minlength=patches + 1)[1:] * gsd_m**2
            hits = np.bincount(patch.ravel(), found.ravel(), patches + 1)[1:] * gsd_m**2
            whole = sizes >= LEAST_M2
            bridges, flagged = bridges + int(whole.sum()), flagged + int((hits[whole] > sizes[whole] / 2).sum())
            area, hit = area + sizes.sum(), hit + hits.sum()
            near = ndimage.binary_dilation(deck, iterations=round(NEAR_M / gsd_m))
            stray, cells = stray + float((found & ~near).sum()) * gsd_m**2, cells + found.size
        share = f"{hit / area:.2f}" if area else "-"
        print(f"| {run.folder.name} | {bridges} | {flagged} | {share} | {stray:.0f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
