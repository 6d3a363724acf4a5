"""A height model of real images against those that other programs made of the same images.

    python bench/real_pairs.py --run results/kahramanmaras --reference cars=DSM.tif --reference s2p=DSM.tif

Prints one line a reference and writes shaded reliefs side by side with `--picture`.

Common footprint: cells whose place on the city's height model lies in the picture of every view and is not hidden from
it by the model itself. The models are compared where both have heights, after the median difference and the whole-cell
shift with the least spread (up to 2 cells each way) are taken away: other programs put cells and datums otherwise.

Width of edges: across every step of 5 m or more, along its steepest direction, the metres between the last 10 % and
the first 90 % of the climb from the lower side's median to the upper side's; medians over all steps that all models
show. A program that smooths more has wider edges; a sharp one with edges in the wrong place isn't better, which only
truth can tell.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import zarr
from scipy import ndimage

from cityweave.cameras import fit_local, geodetic_transform
from cityweave.dsm.visibility import horizons
from cityweave.grid import CellGrid
from cityweave.manifest import Manifest, Run
from cityweave.plan import vertical_grid

SHIFTS = range(-2, 3)
STEP_M = 5.0
PROFILE_M = 6.0  # each side of an edge
HIDDEN_BY_M = 1.0  # a cell this far below a line of sight is hidden


@dataclass(frozen=True)
class Match:
    nmad_m: float
    median_m: float
    within_1m: float
    shift: tuple[int, int]  # rows, columns
    cells: int


def on_grid(path: Path, grid: CellGrid) -> np.ndarray:
    """A height model with the same cell size and cell borders, as float64 with NaN."""
    with rasterio.open(path) as dataset:
        values = dataset.read(1, masked=True).astype(np.float64).filled(np.nan)
        t = dataset.transform
    col = round(t.c / grid.gsd_m) - grid.col0
    row = grid.row0 + grid.rows - round(t.f / grid.gsd_m)
    out = np.full(grid.shape, np.nan)
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + values.shape[0], grid.rows), min(col + values.shape[1], grid.cols)
    out[top:bottom, left:right] = values[top - row : bottom - row, left - col : right - col]
    return out


def compared(model: np.ndarray, reference: np.ndarray, shifts: Sequence[int]) -> Match:
    best: Match | None = None
    for rows in shifts:
        for cols in shifts:
            difference = (np.roll(model, (rows, cols), (0, 1)) - reference)[2:-2, 2:-2]
            difference = difference[np.isfinite(difference)]
            median = float(np.median(difference))
            nmad = 1.4826 * float(np.median(np.abs(difference - median)))
            within = float((np.abs(difference - median) < 1).mean())
            if best is None or nmad < best.nmad_m:
                best = Match(nmad, median, within, (rows, cols), difference.size)
    assert best is not None
    return best


def common_footprint(run: Run, grid: CellGrid, surface_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells in the picture of every view, and those of them that no view has hidden."""
    from cityweave.aoi import correction_from_json, rpc_from_json  # what the survey's file holds

    survey = json.loads(Manifest.read(run.manifest_path("survey")).product("survey").read_text())
    city = run.config.city
    to_geodetic = geodetic_transform(city.crs, vertical_grid(city.vertical))
    low, high = float(np.nanmin(surface_m)) - 1, float(np.nanmax(surface_m)) + 1
    box = grid.box
    local = CellGrid(0, 0, grid.cols, grid.rows, grid.gsd_m)
    height = np.where(np.isfinite(surface_m), surface_m, np.nanmedian(surface_m)) - low
    shown, seen = np.ones(grid.shape, bool), np.ones(grid.shape, bool)
    for view in survey["views"]:
        rpc = rpc_from_json(view["rpc"]).corrected(correction_from_json(view.get("pointing")))
        camera = fit_local(rpc, to_geodetic, box, (low, high), (box.xmin, box.ymin, low))
        u, v = camera.project(local.x_centres[None, :], local.y_centres[:, None], height)
        cols, rows = view["size_px"]
        shown &= (u >= 0) & (v >= 0) & (u < cols) & (v < rows)
        bottom = np.full(grid.shape, -1.0)
        horizon = horizons(height, bottom, grid.gsd_m, camera.lean()[None])[0].reshape(grid.shape)
        seen &= height >= horizon - HIDDEN_BY_M
    return shown, shown & seen


def edge_widths(models: dict[str, np.ndarray], gsd_m: float) -> dict[str, float]:
    """Median width in metres of the steps that every model shows."""
    first = next(iter(models.values()))
    filled = np.where(np.isfinite(first), first, np.nanmedian(first))
    smooth = ndimage.gaussian_filter(filled, 1.0)
    gy, gx = np.gradient(smooth)
    steep = np.hypot(gx, gy)
    ridge = (steep > 1.0) & (steep == ndimage.maximum_filter(steep, 5))
    rows, cols = np.nonzero(ridge)
    direction = np.stack([gy[ridge], gx[ridge]]) / steep[ridge]
    steps = np.arange(-PROFILE_M, PROFILE_M + 1e-9, gsd_m / 4) / gsd_m
    at = np.stack([rows[:, None] + direction[0][:, None] * steps, cols[:, None] + direction[1][:, None] * steps])
    widths = {name: _widths(ndimage.map_coordinates(model, at, order=1, cval=np.nan), gsd_m / 4)
              for name, model in models.items()}  # fmt: skip
    everywhere = np.all([np.isfinite(width) for width in widths.values()], axis=0)
    print(f"edges that all models show: {everywhere.sum()}")
    return {name: float(np.median(width[everywhere])) for name, width in widths.items()} if everywhere.any() else {}


def _widths(profiles: np.ndarray, spacing_m: float) -> np.ndarray:
    side = round(PROFILE_M / 3 / spacing_m)
    low, high = np.median(profiles[:, :side], axis=1), np.median(profiles[:, -side:], axis=1)
    climb = high - low
    share = (profiles - low[:, None]) / np.where(climb > STEP_M, climb, np.nan)[:, None]
    n = share.shape[1]
    reached = np.argmax(share >= 0.9, axis=1)
    before = np.where(np.arange(n)[None] <= reached[:, None], share, np.inf)
    left = n - 1 - np.argmax((before <= 0.1)[:, ::-1], axis=1)
    valid = np.isfinite(profiles).all(axis=1) & (climb > STEP_M) & (share >= 0.9).any(axis=1)
    valid &= (before <= 0.1).any(axis=1) & (reached > left)
    return np.where(valid, (reached - left) * spacing_m, np.nan)


def hillshade(model: np.ndarray, gsd_m: float) -> np.ndarray:
    gy, gx = np.gradient(model, gsd_m)
    sun = np.array([-1.0, 1.0, 1.4]) / np.linalg.norm([-1.0, 1.0, 1.4])  # east, north, up: from the north-west
    shade = (-gx * sun[0] + gy * sun[1] + sun[2]) / np.sqrt(gx**2 + gy**2 + 1)
    return np.where(np.isfinite(shade), np.clip(shade, 0, 1) * 255, 60).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--reference", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--median-only", action="store_true", help="take away no shift of whole cells")
    parser.add_argument("--picture", type=Path, help="PNG with the shaded reliefs side by side")
    parser.add_argument("--window", type=int, nargs=4, metavar=("ROW", "COL", "ROWS", "COLS"), help="of the picture")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    with rasterio.open(run.folder / "city_dsm.tif") as dataset:
        t, shape = dataset.transform, dataset.shape
        gsd = t.a
        grid = CellGrid(round(t.c / gsd), round(t.f / gsd) - shape[0], shape[1], shape[0], gsd)
        full = dataset.read(1).astype(np.float64)
    source = np.asarray(zarr.open_group(run.folder / "city.zarr", mode="r")["source"])  # type: ignore[arg-type]
    measured = np.where(source == 1, full, np.nan)
    shown, seen = common_footprint(run, grid, full)
    print(f"in the picture of every view: {shown.sum() * gsd**2 / 1e6:.4f} km2, measured {_share(measured, shown):.3f}")
    print(f"common footprint (also hidden from none): {seen.sum() / shown.sum():.3f} of it, "
          f"measured {_share(measured, seen):.3f}")  # fmt: skip
    references = {name: on_grid(Path(file), grid) for name, file in (r.split("=", 1) for r in arguments.reference)}
    model = np.where(shown, measured, np.nan)
    shifts = (0,) if arguments.median_only else SHIFTS
    matches = {name: compared(model, reference, shifts) for name, reference in references.items()}
    for name, m in matches.items():
        print(f"against {name}: NMAD {m.nmad_m:.3f} m, within 1 m {m.within_1m:.4f}, median {m.median_m:+.3f} m, "
              f"shift {m.shift} cells, {m.cells} cells; it has {int(np.isfinite(references[name]).sum())}, "
              f"this one {int(np.isfinite(model).sum())}")  # fmt: skip
    if len(references) == 2:
        _where_they_agree(model, references, matches)
    aligned = {"cityweave": model} | {
        name: np.roll(reference, tuple(-k for k in matches[name].shift), (0, 1))
        for name, reference in references.items()
    }
    for name, width in edge_widths(aligned, gsd).items():
        print(f"width of edges, {name}: {width:.2f} m")
    if arguments.picture:
        _picture(arguments.picture, {"cityweave": measured, **references}, gsd, arguments.window)


def _share(model: np.ndarray, where: np.ndarray) -> float:
    return float(np.isfinite(model)[where].mean())


def _where_they_agree(model: np.ndarray, references: dict[str, np.ndarray], matches: dict[str, Match]) -> None:
    (first, a), (second, b) = references.items()
    between = compared(a, b, SHIFTS)
    agree = np.abs(np.roll(a, between.shift, (0, 1)) - b - between.median_m) < 1
    moved = np.roll(model, matches[second].shift, (0, 1)) - matches[second].median_m
    difference = (moved - b)[agree & np.isfinite(moved)]
    print(
        f"{first} and {second} agree with each other: NMAD {between.nmad_m:.3f} m, within 1 m {between.within_1m:.4f}"
    )
    print(f"where these two agree: within 1 m {(np.abs(difference) < 1).mean():.4f}")


def _picture(path: Path, models: dict[str, np.ndarray], gsd_m: float, window: list[int] | None) -> None:
    from PIL import Image

    row, col, rows, cols = window or (0, 0, *next(iter(models.values())).shape)
    shades = [hillshade(model, gsd_m)[row : row + rows, col : col + cols] for model in models.values()]
    gap = np.full((shades[0].shape[0], 6), 255, np.uint8)
    strips = [part for shade in shades for part in (shade, gap)][:-1]
    Image.fromarray(np.concatenate(strips, axis=1)).save(path)
    print(f"{path}: {', '.join(models)}")


if __name__ == "__main__":
    main()
