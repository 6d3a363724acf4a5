"""Pictures of heights, errors and provenance, seen from above."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cityweave.io.raster import open_raster
from cityweave.io.textures import GENERATED, INFERRED, OUTSIDE
from cityweave.report.colours import ABOVE, COUNT, ERROR, GENERATED_RGB, INFERRED_RGB, UNKNOWN_RGB, look_up

MAX_SIDE_PX = 1024
ERROR_RANGE_M = 3.0
MAX_VIEWS = 8  # darkest colour of the provenance map
_SUN_AZIMUTH_DEG, _SUN_ELEVATION_DEG = 315.0, 45.0  # light from the upper left: relief reads the right way up


def read_thinned(path: Path, step: int) -> NDArray[np.float32]:
    """Every `step`-th cell of a raster, read block by block; NaN for nodata."""
    from rasterio.windows import Window

    with open_raster(path) as dataset:
        rows, cols = -(-dataset.height // step), -(-dataset.width // step)
        out = np.full((rows, cols), np.nan, np.float32)
        strip = max(1, 1024 // step)
        for top in range(0, rows, strip):
            count = min(strip, rows - top)
            height = min(count * step, dataset.height - top * step)
            values = dataset.read(1, window=Window(0, top * step, dataset.width, height)).astype(np.float32)  # type: ignore[no-untyped-call, unused-ignore]
            if dataset.nodata is not None and not np.isnan(dataset.nodata):
                values[values == dataset.nodata] = np.nan
            out[top : top + count] = values[::step, ::step]
    return out


def relief(heights: NDArray[np.floating], cell_m: float) -> NDArray[np.float64]:
    """Light on a height map, 0.35 to 1.15: a sun from the north-west, and less sky in narrow places."""
    from scipy.ndimage import gaussian_filter

    filled = np.where(np.isfinite(heights), heights, np.nanmedian(heights)).astype(np.float64)
    north, east = np.gradient(filled, -cell_m, cell_m)
    azimuth, elevation = np.radians(_SUN_AZIMUTH_DEG), np.radians(_SUN_ELEVATION_DEG)
    sun = np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    length = np.sqrt(1 + east**2 + north**2)
    direct = np.clip((-east * sun[0] - north * sun[1] + sun[2]) / length, 0, 1)
    around = gaussian_filter(filled, 8.0 / cell_m) - filled  # streets and courtyards lie below their surroundings
    sky = np.clip(1.0 - np.clip(around, 0, None) / 30.0, 0.6, 1.0)
    return (0.35 + 0.8 * direct) * sky  # type: ignore[no-any-return]


def height_picture(
    surface: NDArray[np.floating], ground: NDArray[np.floating], cell_m: float, top_m: float
) -> NDArray[np.uint8]:
    """Height above the ground as colour, the surface's relief as light; `top_m` has the darkest colour."""
    colour = look_up(np.sqrt(np.clip(surface - ground, 0, None) / top_m), 0.0, 1.0, ABOVE).astype(np.float64)
    lit = np.clip(colour * relief(surface, cell_m)[..., None] * 1.06, 0, 255)
    out = np.rint(lit).astype(np.uint8)
    out[~np.isfinite(surface)] = UNKNOWN_RGB
    return out


def error_picture(error: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Blue: we are too low, red: too high; full colour at 3 m."""
    return look_up(error, -ERROR_RANGE_M, ERROR_RANGE_M, ERROR)


def provenance_picture(provenance: NDArray[np.uint8], drawn: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How many views a texel's colour comes from; orange where it is inferred, violet where it is generated."""
    out = look_up(provenance.astype(np.float64), 1.0, float(MAX_VIEWS), COUNT)
    out[(provenance == 0) | (provenance == INFERRED)] = INFERRED_RGB
    out[provenance == GENERATED] = GENERATED_RGB
    out[~drawn | (provenance == OUTSIDE)] = UNKNOWN_RGB
    return out


def dates_picture(number: NDArray[np.uint8], dates: list[str]) -> NDArray[np.uint8]:
    """The newer, the darker: colours go with the time between the first date and the last."""
    days = np.array([date.fromisoformat(each).toordinal() for each in dates], np.float64)
    known = number < len(dates)
    out = look_up(days[np.where(known, number, 0)], days[0], max(days[-1], days[0] + 1), COUNT)
    out[~known] = UNKNOWN_RGB
    return out


def with_borders(picture: NDArray[np.uint8], lines_x: list[float], lines_y: list[float]) -> NDArray[np.uint8]:
    """Tile borders as thin pale lines at pixel positions."""
    out = picture.astype(np.float64)
    for x in lines_x:
        column = round(x)
        if 0 < column < picture.shape[1]:
            out[:, column - 1 : column + 1] = out[:, column - 1 : column + 1] * 0.45 + 255 * 0.55
    for y in lines_y:
        row = round(y)
        if 0 < row < picture.shape[0]:
            out[row - 1 : row + 1] = out[row - 1 : row + 1] * 0.45 + 255 * 0.55
    return np.rint(out).astype(np.uint8)
