"""Zarr v3 groups that plain xarray opens and whose CRS rioxarray finds, by the CF conventions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.grid import CellGrid

if TYPE_CHECKING:
    import zarr

CHUNK_PX = 512


def on_ground() -> dict[str, Any]:
    """Attributes of a variable with cells on the ground.

    `coordinates` makes spatial_ref a coordinate for plain xarray, `grid_mapping` is what the CF rules ask for.
    """
    return {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}


def along(axis: str) -> dict[str, Any]:
    """Attributes of the coordinate `x` or `y`."""
    return {"units": "metre", "standard_name": f"projection_{axis}_coordinate"}


def write_array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dims: tuple[str, ...],
    attributes: Mapping[str, Any],
    fill_value: float | None = None,
) -> None:
    """One shard an array: a reader of a part still decodes only the chunks it needs."""
    from zarr.codecs import ZstdCodec

    chunks = tuple(min(CHUNK_PX, n) if axis >= len(dims) - 2 else n for axis, n in enumerate(values.shape))
    shards = tuple(-(-n // c) * c for n, c in zip(values.shape, chunks, strict=True))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        shards=shards,
        compressors=ZstdCodec(level=1),
        dimension_names=dims,
        fill_value=fill_value,
        attributes=dict(attributes),
        # All-zero and all-NaN chunks are written too, so that every array is one file.
        config={"write_empty_chunks": True},
    )
    array[...] = values


def write_axes(group: zarr.Group, grid: CellGrid) -> None:
    for axis, values in (("x", grid.x_centres), ("y", grid.y_centres)):
        write_array(group, axis, values, (axis,), along(axis))


def write_spatial_ref(group: zarr.Group, grid: CellGrid, crs_wkt: str) -> None:
    t = grid.transform
    geotransform = " ".join(repr(float(number)) for number in (t.c, t.a, t.b, t.f, t.d, t.e))
    attributes: dict[str, Any] = {"crs_wkt": crs_wkt, "GeoTransform": geotransform}
    array = group.create_array("spatial_ref", shape=(), dtype="int64", attributes=attributes)
    array[...] = 0


def consolidate(group: zarr.Group) -> None:
    """Copy all metadata into the root's: without it plain xarray reads every array's file on its own, and warns."""
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(group.store, zarr_format=3)
