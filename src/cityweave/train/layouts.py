"""Public training sets as they are handed out: which files show a place, and what is made of them.

A layout finds the files by their names. Heights are of the surface and of the ground, or above ground; where only the
surface is given, the ground is estimated as in the workflow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityweave.config import DsmConfig
from cityweave.dsm.ground import ground_heights
from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid
from cityweave.io.raster import footprint, horizontal_crs, open_raster, read_as_float, warp_heights, warp_to_grid
from cityweave.io.resample import area_mean, picture_of
from cityweave.train.cities import City

_BRIGHT = 99.8  # percentile that is shown as white where a picture isn't 8 bit


@dataclass(frozen=True)
class Place:
    """`surface` and, if given, `ground`; or `above`. `crs`: where the files name none."""

    name: str
    rgb: Path
    surface: Path | None = None
    ground: Path | None = None
    above: Path | None = None
    crs: str | None = None

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.rgb, self.surface, self.ground, self.above) if path is not None]


def _geonrw(folder: Path) -> Iterator[Place]:
    for rgb in sorted(folder.rglob("*_rgb.*")):
        if rgb.suffix not in (".tif", ".jp2"):
            continue
        key = rgb.stem.removesuffix("_rgb")
        surface = rgb.with_name(f"{key}_dem.tif")
        if surface.is_file():
            yield Place(f"{rgb.parent.name}-{key}", rgb, surface=surface, crs="EPSG:25832")


def _dfc2019(folder: Path) -> Iterator[Place]:
    heights = {path.name: path for path in folder.rglob("*_AGL.tif")}
    for rgb in sorted(folder.rglob("*_RGB.tif")):
        if above := heights.get(rgb.name.replace("_RGB.tif", "_AGL.tif")):
            yield Place(rgb.stem.removesuffix("_RGB"), rgb, above=above)


_SWISS = re.compile(r"(swissimage-dop10|swisssurface3d-raster|swissalti3d)_(\d{4})_(\d{4}-\d{4})_.*\.tif$")


def _swisstopo(folder: Path) -> Iterator[Place]:
    newest: dict[tuple[str, str], tuple[str, Path]] = {}
    for path in sorted(folder.rglob("*.tif")):
        if found := _SWISS.match(path.name):
            kind, year, key = found.groups()
            newest[kind, key] = max(newest.get((kind, key), ("", path)), (year, path))
    for key in sorted({key for _, key in newest}):
        files = [newest.get((kind, key)) for kind in ("swissimage-dop10", "swisssurface3d-raster", "swissalti3d")]
        if all(files):
            rgb, surface, ground = (path for _, path in filter(None, files))
            yield Place(key, rgb, surface=surface, ground=ground, crs="EPSG:2056")


_LHD = re.compile(r"LHD_[A-Z]+_(\d{4}_\d{4})_(MNS|MNT)_.*\.tif$")
_ORTHO = re.compile(r".*(LA93-0M\d\d-E|_ORTHO_).*\.(jp2|tif)$")


def _ign_lidar_hd(folder: Path) -> Iterator[Place]:
    heights: dict[tuple[str, str], Path] = {}
    orthos = []
    for path in sorted(folder.rglob("*")):
        if found := _LHD.match(path.name):
            heights[found[1], found[2]] = path
        elif _ORTHO.match(path.name):
            orthos.append((path, _box(path, "EPSG:2154")))
    for key in sorted({key for key, _ in heights}):
        surface, ground = (heights.get((key, kind)) for kind in ("MNS", "MNT"))
        if surface is None or ground is None:
            continue
        middle = _box(surface, "EPSG:2154")
        x, y = (middle.xmin + middle.xmax) / 2, (middle.ymin + middle.ymax) / 2
        shown = [path for path, box in orthos if box.xmin <= x < box.xmax and box.ymin <= y < box.ymax]
        if shown:
            yield Place(key, shown[-1], surface=surface, ground=ground, crs="EPSG:2154")


# Of each: how its places are found, and what its files are called.
LAYOUTS: dict[str, tuple[Callable[[Path], Iterator[Place]], str]] = {
    "geonrw": (_geonrw, "{city}/{east}_{north}_rgb.jp2 (or .tif) and _dem.tif beside it"),
    "swisstopo": (
        _swisstopo,
        "swissimage-dop10_{year}_{e}-{n}_*.tif, swisssurface3d-raster_{year}_{e}-{n}_*.tif and "
        "swissalti3d_{year}_{e}-{n}_*.tif",
    ),
    "ign_lidar_hd": (
        _ign_lidar_hd,
        "LHD_FXX_{x}_{y}_MNS_*.tif and _MNT_*.tif, and the BD ORTHO's *LA93-0M20-E*.jp2 (or .tif, or *_ORTHO_*)",
    ),
    "dfc2019": (_dfc2019, "*_RGB.tif, and *_AGL.tif of the same key anywhere below the folder"),
}


def places(layout: str, folder: Path) -> list[Place]:
    find, accepted = LAYOUTS[layout]
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; accepted for {layout}: a folder with {accepted}")
    found = list(find(folder))
    if not found:
        raise DataError(f"{folder} holds no place of the layout {layout}; accepted: {accepted}")
    return found


def city_of_place(place: Place, gsd_m: float, own_gsd_m: float) -> City:
    """`own_gsd_m`: of pictures that are nowhere on earth."""
    with open_raster(place.rgb) as dataset:
        somewhere = not dataset.transform.is_identity
    return _on_earth(place, gsd_m) if somewhere else _nowhere(place, gsd_m, own_gsd_m)


def _box(path: Path, declared: str | None) -> Box:
    """In whole metres, inside."""
    with open_raster(path) as dataset:
        crs = horizontal_crs(dataset, declared)
        outline = np.array(footprint(dataset, crs, crs.to_wkt()))
    low, high = np.ceil(outline.min(axis=0) - 0.3), np.floor(outline.max(axis=0) + 0.3)
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _on_earth(place: Place, gsd_m: float) -> City:
    heights = place.surface or place.above
    assert heights is not None
    with open_raster(heights) as dataset:
        crs = horizontal_crs(dataset, place.crs).to_wkt()
    grid = CellGrid.covering(_box(heights, place.crs), gsd_m)
    shown = warp_to_grid(place.rgb, grid, crs, upsampling="cubic", declared_crs=place.crs)
    bands = picture_of(shown.native(), str(place.rgb))
    surface = warp_heights(heights, grid, crs, declared_crs=place.crs)
    if place.above is not None:
        height = surface
    elif place.ground is not None:
        height = surface - warp_heights(place.ground, grid, crs, declared_crs=place.crs)
    else:
        usual = DsmConfig()
        height = surface - ground_heights(
            surface, gsd_m, usual.ground_window_m, usual.ground_slope, usual.ground_step_m
        )
    return _city(bands, height, shown.valid)


def _nowhere(place: Place, gsd_m: float, own_gsd_m: float) -> City:
    from rasterio.windows import Window

    if place.above is None:
        raise DataError(f"{place.rgb} has no geotransform; accepted for this layout: georeferenced pictures")
    with open_raster(place.rgb) as dataset:
        pixels, dtype = dataset.read(), np.dtype(dataset.dtypes[0])
        seen = dataset.dataset_mask() > 0
    with open_raster(place.above) as dataset:
        height = read_as_float(dataset, [1], Window(0, 0, dataset.width, dataset.height))[0][0]  # type: ignore[no-untyped-call, unused-ignore]
    if height.shape != pixels.shape[1:]:
        raise DataError(f"{place.above} has {height.shape} cells, its picture {pixels.shape[1:]}; accepted: the same")
    own = CellGrid(0, 0, height.shape[1], height.shape[0], own_gsd_m)
    side = [int(n * own_gsd_m // gsd_m) for n in height.shape]
    grid = CellGrid(0, round(own.rows * own_gsd_m / gsd_m) - side[0], side[1], side[0], gsd_m)
    known = np.isfinite(height) & seen
    share = area_mean(known[None].astype(np.float32), own, grid)[0]
    whole = np.maximum(share, 1e-6)
    rgb = area_mean(np.where(known, picture_of(pixels, str(place.rgb)), 0).astype(np.float32), own, grid) / whole
    above = area_mean(np.where(known, height, 0)[None].astype(np.float64), own, grid)[0] / whole
    bands = np.clip(np.rint(rgb), 0, 255).astype(np.uint8) if dtype == np.uint8 else rgb
    return _city(bands, above, share > 0.999)


def _city(bands: np.ndarray, height: np.ndarray, seen: np.ndarray) -> City:
    valid = seen & np.isfinite(height)
    white = 255.0 if bands.dtype == np.uint8 else float(np.percentile(bands[:, seen], _BRIGHT)) if seen.any() else 1.0
    if seen.any():  # what isn't known looks as when it is predicted, and is no number too large
        bands[:, ~seen] = bands[:, seen].mean(axis=1, keepdims=True)
    return City(bands, np.where(valid, height, 0).astype(np.float32), valid, white)
