"""The rasters a synthetic city hands out, written without anything that changes from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.cameras import RPC
from cityweave.grid import CellGrid


def write_raster(
    path: Path,
    values: NDArray[Any],
    grid: CellGrid,
    crs: str,
    nodata: float | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """(y, x) or (y, x, band) on cells of the city."""
    import rasterio

    bands = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    profile = _profile(bands) | {"crs": crs, "transform": grid.transform, "nodata": nodata}
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        file.update_tags(AREA_OR_POINT="Area", **(tags or {}))


def write_view(path: Path, dn: NDArray[np.uint16], rpc: RPC, tags: dict[str, str]) -> None:
    """A picture in sensor geometry: no CRS, an RPC instead; 0 is nodata."""
    import rasterio

    bands = np.moveaxis(dn, -1, 0)
    with rasterio.open(path, "w", **_profile(bands), nodata=0) as file:
        file.write(bands)
        file.update_tags(**tags)
        file.update_tags(ns="RPC", **rpc.to_tags())


def _profile(bands: NDArray[Any]) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 3 if bands.dtype.kind == "f" else 2,
        "interleave": "pixel",
    }
    if bands.shape[0] == 3:
        profile["photometric"] = "RGB"
    return profile
