"""What there is and where: a GeoJSON index of the tiles and a static STAC catalog of the city's products."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.cameras import ToGeodetic
from cityweave.grid import Box, Tile

_STAC = "1.0.0"
_PROJECTION = "https://stac-extensions.github.io/projection/v1.1.0/schema.json"
_TITLES: dict[str, tuple[str, str, str]] = {  # media type, role, title
    "city_dsm.tif": (
        "image/tiff; application=geotiff; profile=cloud-optimized",
        "data",
        "surface heights",
    ),
    "city_dtm.tif": (
        "image/tiff; application=geotiff; profile=cloud-optimized",
        "data",
        "ground heights",
    ),
    "city.zarr": ("application/vnd+zarr", "data", "heights with spread, count and source"),
    "tiles3d/tileset.json": ("application/json", "visual", "3D Tiles with levels of detail"),
    "city.glb": ("model/gltf-binary", "overview", "the whole city, reduced"),
    "tiles.geojson": ("application/geo+json", "metadata", "index of the tiles"),
}


@dataclass(frozen=True)
class TileEntry:
    """Files relative to the run's folder; `reason` says why a tile is missing."""

    tile: Tile
    reason: str | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)


def outline(box: Box, to_geodetic: ToGeodetic, height_m: float) -> list[list[float]]:
    """Closed counter-clockwise ring of longitude and latitude, to about a millimetre."""
    x = np.array([box.xmin, box.xmax, box.xmax, box.xmin, box.xmin])
    y = np.array([box.ymin, box.ymin, box.ymax, box.ymax, box.ymin])
    lon, lat, _ = to_geodetic(x, y, np.full(5, height_m))
    return [[round(float(a), 8), round(float(b), 8)] for a, b in zip(lon, lat, strict=True)]


def write_tiles_geojson(
    path: Path, entries: Sequence[TileEntry], to_geodetic: ToGeodetic, height_m: float, extras: Mapping[str, Any]
) -> None:
    features = []
    for entry in entries:
        features.append(
            {
                "type": "Feature",
                "id": entry.tile.name,
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [outline(entry.tile.core, to_geodetic, height_m)],
                },
                "properties": {
                    "name": entry.tile.name,
                    "status": "done" if entry.reason is None else "quarantined",
                    "reason": entry.reason,
                    "core_m": list(entry.tile.core.as_tuple()),
                    "files": dict(entry.files),
                    **entry.statistics,
                },
            }
        )
    _write(path, {"type": "FeatureCollection", **extras, "features": features})


def write_stac(
    folder: Path,
    city: str,
    box: Box,
    to_geodetic: ToGeodetic,
    heights_m: tuple[float, float],
    acquired: Sequence[str],
    properties: Mapping[str, Any],
    assets: Sequence[str],
) -> None:
    """catalog.json and {city}.json below `folder`, which lies in the run's folder beside the assets.

    An item needs a time: the acquisition of the first and the last view, never the time of the run.
    """
    ring = outline(box, to_geodetic, heights_m[0])
    lons, lats = [point[0] for point in ring], [point[1] for point in ring]
    first, last = min(acquired), max(acquired)
    item = {
        "type": "Feature",
        "stac_version": _STAC,
        "stac_extensions": [_PROJECTION],
        "id": city,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": {
            "datetime": None if first != last else first,
            "start_datetime": first,
            "end_datetime": last,
            **properties,
        },
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "./catalog.json", "type": "application/json"},
        ],
        "assets": {
            name.split("/")[-1].replace(".", "_"): {
                "href": f"../{name}",
                "type": _TITLES[name][0],
                "roles": [_TITLES[name][1]],
                "title": _TITLES[name][2],
            }
            for name in assets
        },
    }
    catalog = {
        "type": "Catalog",
        "stac_version": _STAC,
        "id": f"{city}-catalog",
        "description": f"Height model and textured 3D city of {city}",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "item", "href": f"./{city}.json", "type": "application/geo+json"},
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "catalog.json", catalog)
    _write(folder / f"{city}.json", item)


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")
