"""Checks that open the sources: once, in the main process, before any job is planned.

What the configuration alone can tell is checked where it is read. Here: every file is there and can be read, a view
has a camera, a height source a CRS, and each of them overlaps the city. The message says which key of the
configuration led to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cityweave.config import Config, OrthoSource, RasterSource, Vertical, ViewSource
from cityweave.errors import CityweaveError, DataError
from cityweave.grid import Box
from cityweave.plan import resolved_sources, vertical_grid

if TYPE_CHECKING:
    from cityweave.cameras import RPC, ToGeodetic


def check_sources(config: Config) -> None:
    """Raise DataError (exit 3) or MissingCapability (4) for the first source that can't be used."""
    if config.synth is not None:  # its sources are made by the run
        model = config.synth.model
        if model is not None and not model.is_file():
            raise DataError(f"synth.model: {model} is not there; accepted: a CityJSON, OBJ or GLB file")
        return
    from cityweave.cameras import geodetic_transform

    city, sources = config.city, resolved_sources(config)
    to_geodetic = geodetic_transform(city.crs, vertical_grid(city.vertical))
    with _saying("city.vertical"):
        _check_height(to_geodetic, city.box)
    cameras: dict[RPC, ViewSource] = {}
    for number, view in enumerate(sources.views):
        with _saying(f"sources.views[{number}] ({view.name})"):
            rpc = _check_view(view, config, to_geodetic)
            if rpc in cameras:
                raise DataError(
                    f"{view.path} has the very RPC of {cameras[rpc].path} ({cameras[rpc].name}); accepted: images "
                    "taken from different places, each with its own RPC"
                )
            cameras[rpc] = view
    for number, ortho in enumerate(sources.ortho):
        with _saying(f"sources.ortho[{number}] ({ortho.name})"):
            _check_ortho(ortho, config)
    for name, raster in (("terrain", sources.terrain), ("reference", sources.reference)):
        if raster is not None:
            with _saying(f"sources.{name}"):
                _check_heights(raster, config)


@contextmanager
def _saying(where: str) -> Iterator[None]:
    try:
        yield
    except CityweaveError as error:
        raise type(error)(f"{where}: {error}") from error


def _check_height(to_geodetic: ToGeodetic, box: Box) -> None:
    """The vertical reference must give heights in the whole city."""
    x, y = np.meshgrid([box.xmin, box.xmax], [box.ymin, box.ymax])
    to_geodetic(x.ravel(), y.ravel(), np.zeros(4))


def _check_view(source: ViewSource, config: Config, to_geodetic: ToGeodetic) -> RPC:
    from cityweave.io.raster import check_readable, open_raster, picture_bands
    from cityweave.io.satellite import crop_for, read_rpc

    with open_raster(source.path) as dataset:
        rpc = read_rpc(dataset, source)
        picture_bands(dataset)
        check_readable(dataset)
        size = (dataset.width, dataset.height)
    crop = crop_for(rpc, to_geodetic, config.city.box, config.city.heights_m, size, 0.0)
    if crop is None:
        raise _outside(source.path, _view_box(rpc, size, config.city.crs), config.city.box)
    if source.mask is not None:
        with open_raster(source.mask) as mask:
            if (mask.width, mask.height) != size:
                raise DataError(
                    f"mask {source.mask} has {mask.width}x{mask.height} pixels; the view's own {size[0]}x{size[1]} "
                    "are accepted"
                )
            check_readable(mask)
    return rpc


def _view_box(rpc: RPC, size: tuple[int, int], crs: str) -> Box | None:
    """Roughly what a view shows, for the message."""
    from cityweave.io.satellite import ground_from_geodetic, outline_on_ground

    height = rpc.height_off
    lon, lat = outline_on_ground(rpc, size, height)
    x, y, _ = ground_from_geodetic(crs)(lon, lat, np.full(lon.shape, height))
    return _box_of(x, y)


def _check_ortho(source: OrthoSource, config: Config) -> None:
    from cityweave.io.raster import check_readable, footprint, horizontal_crs, open_raster, picture_bands

    with open_raster(source.path) as dataset:
        outline = footprint(dataset, horizontal_crs(dataset, source.crs), config.city.crs)
        picture_bands(dataset)
        check_readable(dataset)
    _check_overlap(source.path, outline, config.city.box)


def _check_heights(source: RasterSource, config: Config) -> None:
    from cityweave.io.pointcloud import describe_cloud, is_point_cloud
    from cityweave.io.raster import check_readable, footprint, horizontal_crs, open_raster, picture_bands

    box = config.city.box
    if is_point_cloud(source.path):
        cloud = describe_cloud(source.path, config.city.crs, source.crs)
        _check_overlap(source.path, cloud.outline, box)
    else:
        with open_raster(source.path) as dataset:
            outline = footprint(dataset, horizontal_crs(dataset, source.crs), config.city.crs)
            if len(picture_bands(dataset)) != 1:
                raise DataError(f"{source.path} has {dataset.count} bands; a height raster with 1 is accepted")
            check_readable(dataset)
        _check_overlap(source.path, outline, box)
    if source.vertical is None:
        _check_stated_vertical(source, config.city.vertical)
    elif source.vertical != config.city.vertical:
        _check_vertical(source.vertical, config)


def _check_stated_vertical(source: RasterSource, city: Vertical) -> None:
    """A file that says its heights are not the city's must not be taken for the city's."""
    from cityweave.io.heights import stated_vertical

    stated, ours = stated_vertical(source), city if city == "ellipsoid" else city.epsg
    if stated is not None and stated != ours:
        said, wanted = (
            "above the ellipsoid" if value == "ellipsoid" else f"in EPSG:{value}" for value in (stated, ours)
        )
        raise DataError(
            f"{source.path} says its heights are {said}, the city's are {wanted}; accepted: `vertical` in its source, "
            "'ellipsoid' or {epsg, grid}"
        )


def _check_vertical(vertical: Vertical, config: Config) -> None:
    from cityweave.cameras import geodetic_transform

    _check_height(geodetic_transform(config.city.crs, vertical_grid(vertical)), config.city.box)


def _check_overlap(path: Path, outline: list[tuple[float, float]], city: Box) -> None:
    found = _box_of(np.array([p[0] for p in outline]), np.array([p[1] for p in outline]))
    if found is None or not found.intersects(city):
        raise _outside(path, found, city)


def _box_of(x: np.ndarray, y: np.ndarray) -> Box | None:
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return Box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _outside(path: Path, found: Box | None, city: Box) -> DataError:
    where = "elsewhere" if found is None else _range(found)
    return DataError(
        f"{path} lies outside the city: it covers {where}; "
        f"accepted: a source that overlaps {_range(city)} of the city's CRS"
    )


def _range(box: Box) -> str:
    return f"x {box.xmin:.0f} to {box.xmax:.0f}, y {box.ymin:.0f} to {box.ymax:.0f}"
