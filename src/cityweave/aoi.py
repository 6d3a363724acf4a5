"""The AOI store: everything one tile's stages need from the sources, in one Zarr v3 group, never written twice.

Names and dimensions of the layers live here and nowhere else:

    views/{name}    (band, row, col)  native type, sensor geometry, the RPC of the crop in the group's attributes
    ortho/{source}  (band, y, x)      native type, on the global grid of its GSD
    terrain         (y, x)            float32, NaN = nodata, heights in the city's vertical reference
    reference       (y, x)            float32, NaN = nodata, heights in the city's vertical reference
    mask/{layer}    (row, col) or (y, x)   uint8 of a view or ortho: 0 use, else bits INVALID, SATURATED, EXCLUDED

Every layer is a group with the variable `data` and its coordinates, so plain xarray opens it by group and rioxarray
knows its CRS. The stages read it with zarr alone: importing xarray costs more than reading a tile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityweave.cameras import RPC, Correction
from cityweave.errors import DataError
from cityweave.grid import Box, CellGrid, Tile
from cityweave.io import cf
from cityweave.rpc import VENDOR_FIELDS

if TYPE_CHECKING:
    import zarr

FORMAT = 1
PIXEL_CONVENTION = "u right, v down from the top-left corner of the first pixel, whose centre is (0.5, 0.5)"
VIEWS, ORTHO, MASK, TERRAIN, REFERENCE = "views", "ortho", "mask", "terrain", "reference"
HEIGHT_LAYERS = (TERRAIN, REFERENCE)
# Bits of a mask: nodata or NaN, at the sensor's limit, masked by the user.
INVALID, SATURATED, EXCLUDED = 1, 2, 4
_LAYER_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class ViewLayer:
    """A crop of a satellite view. `rpc` speaks of the crop's own pixels, `offset_px` says where they came from.

    Its pointing is corrected; the store holds the vendor's camera and the correction apart.
    """

    name: str
    image: np.ndarray  # (band, row, col), native type
    mask: np.ndarray  # (row, col) uint8, 0 = use
    rpc: RPC
    offset_px: tuple[int, int]  # (du, dv) of the crop in the source image
    nodata: float | None
    saturation: float | None
    attributes: dict[str, Any]

    @property
    def valid(self) -> np.ndarray:
        """(row, col) bool: seen and not excluded; a saturated pixel is valid."""
        return (self.mask & (INVALID | EXCLUDED)) == 0


@dataclass(frozen=True)
class OrthoLayer:
    name: str
    image: np.ndarray  # (band, y, x), native type
    mask: np.ndarray  # (y, x) uint8, 0 = use
    grid: CellGrid
    nodata: float | None
    attributes: dict[str, Any]

    @property
    def valid(self) -> np.ndarray:
        return (self.mask & (INVALID | EXCLUDED)) == 0


@lru_cache(maxsize=8)
def compound_crs_wkt(crs: str, vertical_epsg: int | None) -> str:
    """WKT2 of the city's horizontal and vertical reference in one: 3D for ellipsoidal heights, else compound."""
    from pyproj import CRS
    from pyproj.crs import CompoundCRS

    horizontal = CRS(crs).to_2d()
    if vertical_epsg is None:
        return horizontal.to_3d().to_wkt()
    vertical = CRS.from_epsg(vertical_epsg)
    return CompoundCRS(f"{horizontal.name} + {vertical.name}", [horizontal, vertical]).to_wkt()


class AoiWriter:
    """Writes the layers of one tile into a new folder, in a `with` block.

    What it writes depends on its arguments alone, to the byte.
    """

    def __init__(
        self,
        path: Path,
        tile: Tile,
        *,
        crs_wkt: str,
        vertical: str,
        halo_m: float,
        z0_m: float,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        import zarr

        if path.exists():
            raise DataError(f"{path} is already there; an AOI is written once, into a new folder")
        self._crs_wkt = crs_wkt
        self._vertical = vertical
        self._root = zarr.create_group(
            path,
            attributes={
                "cityweave_aoi": FORMAT,
                "tile": tile.name,
                "tile_size_m": tile.size_m,
                "tile_shift_m": tile.shift_m,
                "core_m": list(map(float, tile.core.as_tuple())),
                "halo_m": float(halo_m),
                "z0_m": float(z0_m),
                "crs_wkt": crs_wkt,
                "vertical": vertical,
                "pixel_convention": PIXEL_CONVENTION,
                **(attributes or {}),
            },
        )
        self._masks: set[str] = set()

    def __enter__(self) -> AoiWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        cf.consolidate(self._root)

    def add_view(
        self,
        name: str,
        image: np.ndarray,
        rpc: RPC,
        offset_px: tuple[int, int],
        *,
        mask: np.ndarray | None = None,
        nodata: float | None = None,
        saturation: float | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """`rpc` is the camera of the crop: already shifted by `offset_px`, with the correction of its pointing."""
        _check_image(name, image)
        pointing = {} if rpc.correction is None else {"pointing": correction_to_json(rpc.correction)}
        group = self._group(
            VIEWS,
            name,
            {
                "offset_px": [int(offset_px[0]), int(offset_px[1])],
                "rpc": rpc_to_json(rpc),
                **pointing,
                "nodata": _json_number(nodata),
                "saturation": _json_number(saturation),
                **(attributes or {}),
            },
        )
        cf.write_array(group, "data", image, ("band", "row", "col"), {})
        self._write_mask(name, image.shape[1:], mask, ("row", "col"), None)

    def add_ortho(
        self,
        name: str,
        image: np.ndarray,
        grid: CellGrid,
        *,
        mask: np.ndarray | None = None,
        nodata: float | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        _check_image(name, image)
        _check_shape(name, image.shape[1:], grid.shape)
        extra = {"nodata": _json_number(nodata), **(attributes or {})}
        group = self._group(ORTHO, name, {"grid": _grid_to_json(grid), **extra})
        cf.write_array(group, "data", image, ("band", "y", "x"), cf.on_ground())
        self._write_ground(group, grid)
        self._write_mask(name, grid.shape, mask, ("y", "x"), grid)

    def add_raster(
        self, layer: str, heights: np.ndarray, grid: CellGrid, *, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """`layer` is 'terrain' or 'reference'; heights are in the city's vertical reference, NaN = nodata."""
        if layer not in HEIGHT_LAYERS:
            raise DataError(f"an AOI has the height layers {', '.join(HEIGHT_LAYERS)}, not {layer!r}")
        _check_shape(layer, heights.shape, grid.shape)
        attrs = {"grid": _grid_to_json(grid), "vertical": self._vertical, **(attributes or {})}
        group = self._root.create_group(layer, attributes=attrs)
        on_ground = {**cf.on_ground(), "units": "m", "vertical": self._vertical}
        cf.write_array(group, "data", heights.astype(np.float32, copy=False), ("y", "x"), on_ground, fill_value=np.nan)
        self._write_ground(group, grid)

    def _group(self, kind: str, name: str, attributes: Mapping[str, Any]) -> zarr.Group:
        if not _LAYER_NAME.fullmatch(name):
            raise DataError(f"a layer's name has letters, digits, _ and - only, not {name!r}")
        if name in self._masks:
            raise DataError(f"two layers of one AOI are named {name!r}; views and orthos need names of their own")
        return self._root.require_group(kind).create_group(name, attributes=dict(attributes))

    def _write_mask(
        self,
        name: str,
        shape: tuple[int, ...],
        mask: np.ndarray | None,
        dims: tuple[str, str],
        grid: CellGrid | None,
    ) -> None:
        mask = np.zeros(shape, np.uint8) if mask is None else mask
        _check_shape(f"the mask of {name}", mask.shape, tuple(shape))
        bits = {"flag_masks": [INVALID, SATURATED, EXCLUDED], "flag_meanings": "invalid saturated excluded"}
        group = self._root.require_group(MASK).create_group(name, attributes=bits)
        cf.write_array(group, "data", mask.astype(np.uint8, copy=False), dims, cf.on_ground() if grid else {})
        if grid is not None:
            self._write_ground(group, grid)
        self._masks.add(name)

    def _write_ground(self, group: zarr.Group, grid: CellGrid) -> None:
        cf.write_axes(group, grid)
        cf.write_spatial_ref(group, grid, self._crs_wkt)


class Aoi:
    """Reads an AOI. Opening it reads only the root's attributes."""

    def __init__(self, path: Path) -> None:
        try:
            self.attributes: dict[str, Any] = _attributes(path)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is no AOI store ({error}); rerun the tile's ingest") from error
        if self.attributes.get("cityweave_aoi") != FORMAT:
            found = self.attributes.get("cityweave_aoi")
            raise DataError(f"{path}: AOI format {found}, {FORMAT} is accepted; rerun the tile's ingest")
        self.path = path

    @property
    def core(self) -> Box:
        return Box(*self.attributes["core_m"])

    @property
    def extent(self) -> Box:
        """Core and halo."""
        return self.core.grow(self.attributes["halo_m"])

    @property
    def z0_m(self) -> float:
        return float(self.attributes["z0_m"])

    @property
    def crs_wkt(self) -> str:
        return str(self.attributes["crs_wkt"])

    @property
    def views(self) -> list[str]:
        return self._names(VIEWS)

    @property
    def orthos(self) -> list[str]:
        return self._names(ORTHO)

    def has(self, layer: str) -> bool:
        """Whether 'terrain' or 'reference' is there."""
        return (self.path / layer / "zarr.json").is_file()

    def view(self, name: str) -> ViewLayer:
        attributes = self._layer_attributes(VIEWS, name)
        offset = attributes.pop("offset_px")
        return ViewLayer(
            name=name,
            image=self._read(f"{VIEWS}/{name}"),
            mask=self._read(f"{MASK}/{name}"),
            rpc=rpc_from_json(attributes.pop("rpc")).corrected(correction_from_json(attributes.pop("pointing", None))),
            offset_px=(offset[0], offset[1]),
            nodata=_from_json_number(attributes.pop("nodata")),
            saturation=_from_json_number(attributes.pop("saturation")),
            attributes=attributes,
        )

    def ortho(self, name: str) -> OrthoLayer:
        attributes = self._layer_attributes(ORTHO, name)
        return OrthoLayer(
            name=name,
            image=self._read(f"{ORTHO}/{name}"),
            mask=self._read(f"{MASK}/{name}"),
            grid=_grid_from_json(attributes.pop("grid")),
            nodata=_from_json_number(attributes.pop("nodata")),
            attributes=attributes,
        )

    def raster(self, layer: str) -> tuple[CellGrid, np.ndarray]:
        """'terrain' or 'reference': its grid and heights, north-up, NaN = nodata."""
        if not self.has(layer):
            there = [name for name in HEIGHT_LAYERS if self.has(name)]
            raise DataError(f"{self.path} has no layer {layer!r}; it has {', '.join(there) or 'no height layer'}")
        return _grid_from_json(_attributes(self.path / layer)["grid"]), self._read(layer)

    def _names(self, kind: str) -> list[str]:
        folder = self.path / kind
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def _layer_attributes(self, kind: str, name: str) -> dict[str, Any]:
        if name not in self._names(kind):
            there = ", ".join(self._names(kind)) or "none"
            raise DataError(f"{self.path} has no {kind}/{name}; it has {there}")
        return _attributes(self.path / kind / name)

    def _read(self, layer: str) -> np.ndarray:
        import zarr

        # One chunk of consequence per array: going through the array's path skips the walk down the groups.
        return np.asarray(zarr.open_array(self.path / layer / "data", mode="r", zarr_format=3)[...])


def rpc_to_json(rpc: RPC) -> dict[str, Any]:
    """The vendor's camera as JSON numbers, not text: Python writes the shortest digits that give back the float64."""
    values = {name: getattr(rpc, name) for name in VENDOR_FIELDS}
    return {name: list(map(float, v)) if isinstance(v, tuple) else float(v) for name, v in values.items()}


def rpc_from_json(values: Mapping[str, Any]) -> RPC:
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return RPC(**fields)


def correction_to_json(correction: Correction) -> dict[str, Any]:
    return {
        "du_px": correction.du_px,
        "dv_px": correction.dv_px,
        "about_px": list(correction.about_px),
        "affine": list(correction.affine),
    }


def correction_from_json(values: Mapping[str, Any] | None) -> Correction | None:
    if values is None:
        return None
    a, b, c, d = values["affine"]
    return Correction(values["du_px"], values["dv_px"], (values["about_px"][0], values["about_px"][1]), (a, b, c, d))


def _attributes(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_text())["attributes"]


def _json_number(value: float | None) -> float | str | None:
    """JSON has no NaN."""
    if value is None:
        return None
    return float(value) if np.isfinite(value) else str(float(value))


def _from_json_number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _grid_to_json(grid: CellGrid) -> dict[str, Any]:
    return {
        "col0": grid.col0,
        "row0": grid.row0,
        "cols": grid.cols,
        "rows": grid.rows,
        "gsd_m": float(grid.gsd_m),
    }


def _grid_from_json(values: Mapping[str, Any]) -> CellGrid:
    return CellGrid(**values)


def _check_image(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or 0 in image.shape:
        raise DataError(f"layer {name}: an image has (band, row, col), found shape {image.shape}")


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if tuple(found) != tuple(wanted):
        raise DataError(f"layer {name}: found shape {tuple(found)} where {tuple(wanted)} is needed")
