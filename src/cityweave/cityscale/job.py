"""The cityscale job: heights above ground of the windows that a tile owns, each predicted once for all neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cityweave import gpu
from cityweave.aoi import TERRAIN, Aoi
from cityweave.cameras import geodetic_transform
from cityweave.cityscale.weights import SHIPPED, SOUTH, check_cells, read_card
from cityweave.config import Config
from cityweave.grid import Box, CellGrid, Tile
from cityweave.io.predictions import Prediction, write_predictions
from cityweave.io.resample import continued, known_mean, picture_of
from cityweave.lattice import Window, counting, owned
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.plan import city_tiles, cityscale_halo_m, pictured_tiles

LEAST_KNOWN = 0.01  # share of a window that a picture must show


def run(run: Run, tile: Tile) -> None:
    known = set(city_tiles(run.config))
    around = pictured_tiles(run.config, tile, known)
    inputs = {f"ingest/{other.name}": run.manifest_path("ingest", other) for other in around}
    settings = run.config.cityscale
    if settings.weights:
        inputs["weights"] = settings.weights

    def work(products: Products) -> None:
        gsd_m = float(read_card(settings.weights or SHIPPED)["gsd_m"])
        size_px = round(settings.window_m / gsd_m)
        windows = owned(tile, known, size_px, gsd_m, cityscale_halo_m(run.config))
        aois = [aoi for other in around if (aoi := _aoi(run, other))]
        layers = [layer for aoi in aois if (layer := picture_layer(aoi, settings.ortho))]
        predicted, left_out = _predict(run, windows, layers, gsd_m)
        predicted, notes = _fit_shadows(run, predicted, layers, aois)
        with products.path("windows", ".zarr") as path:
            write_predictions(path, predicted)
        products.notes |= {"windows": [each.window.name for each in predicted], "left_out": left_out} | notes

    run_job(run, "cityscale", work, tile=tile, inputs=inputs)


def _aoi(run: Run, tile: Tile) -> Aoi | None:
    manifest = Manifest.read(run.manifest_path("ingest", tile))
    return None if manifest.quarantined else Aoi(manifest.product("aoi"))


def _predict(
    run: Run, windows: list[Window], layers: list[PictureLayer], gsd_m: float
) -> tuple[list[Prediction], list[str]]:
    settings = run.config.cityscale
    pictures = [(window, *picture_in(layers, window.grid)) for window in windows]
    shown = [each for each in pictures if each[2].mean() >= LEAST_KNOWN]
    if not shown:
        return [], [f"{window.name}: the picture shows nothing of it" for window in windows]
    from cityweave.cityscale.predict import open_predictor

    predictor = open_predictor(settings.weights, gpu.in_use())
    predicted = []
    for window, picture, seen in shown:
        over = predictor.sun == SOUTH and sun_side(run.config, window.grid.box) != SOUTH
        noise = partial(window.noise, run.config.seed)
        metres, sigma = predictor.heights(_turned_over(picture, over), noise, settings.samples)
        metres, sigma = _turned_over(metres, over), _turned_over(sigma, over)
        predicted.append(Prediction(window, *(np.where(seen, each, np.nan) for each in (metres, sigma))))
    dark = [window.name for window, _, seen in pictures if seen.mean() < LEAST_KNOWN]
    return predicted, [f"{name}: the picture shows nothing of it" for name in dark]


def _fit_shadows(
    run: Run, predicted: list[Prediction], layers: list[PictureLayer], aois: list[Aoi]
) -> tuple[list[Prediction], dict[str, str]]:
    """All windows of the job together, since a shadow may end in another one than it begins in; and what to note."""
    from cityweave.cityscale.shadows import Sun, shadow_factors

    settings = run.config.cityscale
    if not predicted or settings.sun_azimuth_deg is None or settings.sun_elevation_deg is None:
        return predicted, {}
    boxes = [each.window.grid.box for each in predicted]
    around = Box(
        min(b.xmin for b in boxes), min(b.ymin for b in boxes), max(b.xmax for b in boxes), max(b.ymax for b in boxes)
    )
    grid = CellGrid.covering(around, predicted[0].window.gsd_m)
    total, mass = np.zeros(grid.shape), np.zeros(grid.shape)
    for each in predicted:
        cut, weight = grid.window_of(each.window.grid), counting(np.isfinite(each.metres))
        total[cut] += weight * np.nan_to_num(each.metres)
        mass[cut] += weight
    picture, seen = picture_in(layers, grid)
    metres = np.divide(total, mass, out=total, where=mass > 0).astype(np.float32)  # any mass counts, however small
    sun = Sun(settings.sun_azimuth_deg, settings.sun_elevation_deg)
    factors = shadow_factors(metres, picture, seen & (mass > 0), sun, grid.gsd_m, terrain_in(aois, grid))
    if factors is None:
        return predicted, {"shadows": "tell nothing: nothing high, no sunshine, or the sun stood elsewhere"}
    cuts = [factors[grid.window_of(each.window.grid)] for each in predicted]
    fitted = [replace(each, metres=each.metres * cut) for each, cut in zip(predicted, cuts, strict=True)]
    return fitted, {"shadows": "heights fitted to them"}


def terrain_in(aois: list[Aoi], grid: CellGrid) -> np.ndarray | None:
    """Heights of the ground out of several tiles' stores, the nearest ones where none is told; None where none is."""
    from scipy import ndimage

    ground = np.full(grid.shape, np.nan, np.float32)
    for aoi in aois:
        if not aoi.has(TERRAIN):
            continue
        own, heights = aoi.raster(TERRAIN)
        (there,), share = known_mean(heights[None] - aoi.z0_m, np.isfinite(heights), own, grid)
        new = (share > 0.5) & np.isnan(ground)
        ground[new] = there[new] + aoi.z0_m
    if np.isnan(ground).all():
        return None
    row, col = ndimage.distance_transform_edt(np.isnan(ground), return_distances=False, return_indices=True)
    nearest: np.ndarray = ground[row, col]
    return nearest


def sun_side(config: Config, box: Box) -> str:
    """Where the sun stands, as far as it is told; at noon, by the latitude of the box; between the tropics a guess."""
    if config.cityscale.sun_azimuth_deg is not None:
        return SOUTH if 90 <= config.cityscale.sun_azimuth_deg <= 270 else "north"
    x, y = (np.array([(low + high) / 2]) for low, high in ((box.xmin, box.xmax), (box.ymin, box.ymax)))
    _, latitude, _ = geodetic_transform(config.city.crs)(x, y, np.zeros(1))
    return SOUTH if latitude[0] >= 0 else "north"


def _turned_over(rows: np.ndarray, over: bool) -> np.ndarray:
    """The first row last: shadows point the other way."""
    return np.ascontiguousarray(rows[..., ::-1, :]) if over else rows


@dataclass(frozen=True)
class PictureLayer:
    """Three bands of a tile's orthophoto, and what is black and white in them."""

    bands: np.ndarray
    valid: np.ndarray
    grid: CellGrid
    black: float
    white: float


def picture_layer(aoi: Aoi, ortho: str | None) -> PictureLayer | None:
    """None where the orthophoto shows nothing of the tile and its halo: then the store has none of that name."""
    name = ortho or next(iter(aoi.orthos), None)  # where there are several, the configuration names one
    if name not in aoi.orthos:
        return None
    layer = aoi.ortho(name)
    black, white = layer.attributes.get("black_white", (0.0, 255.0))
    return PictureLayer(picture_of(layer.image, f"{aoi.path}: {name}"), layer.valid, layer.grid, black, white)


def picture_in(layers: list[PictureLayer], grid: CellGrid) -> tuple[np.ndarray, np.ndarray]:
    """[3, y, x] float32 in -1..1 out of several tiles' pictures, and where it is known; elsewhere as in a mirror."""
    total = np.zeros((3, *grid.shape), np.float32)
    seen = np.zeros(grid.shape, bool)
    for layer in layers:
        check_cells(layer.grid.gsd_m, grid.gsd_m, "the orthophoto")
        own = CellGrid.covering(grid.box, layer.grid.gsd_m).overlap(layer.grid)
        if own is None or seen.all():
            continue
        cut = layer.grid.window_of(own)
        colours, share = known_mean(layer.bands[:, *cut], layer.valid[cut], own, grid)
        new = (share > 0.999) & ~seen
        total[:, new] = ((colours[:, new] - layer.black) * (2 / (layer.white - layer.black)) - 1).clip(-1, 1)
        seen |= new
    return continued(total, seen), seen
