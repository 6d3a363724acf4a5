"""The configuration: one frozen model per stage, units in the names and descriptions.

Paths are relative to the folder in which Snakemake runs. What several sections must agree on is checked in
`plan.py`. `config/schema.json` is generated from here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cityweave.errors import ConfigError
from cityweave.grid import Box


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values can't be changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VerticalGrid(Section):
    """Heights above a geoid: an EPSG code of a vertical CRS with the local grid file that realises it."""

    epsg: int = Field(description="EPSG code of the vertical CRS, such as 3855 (EGM2008) or 5709 (NAP)")
    grid: Path = Field(description="GTX or GeoTIFF grid with geoid heights above the WGS 84 / ETRS89 ellipsoid")
    sha256: str | None = Field(None, description="checksum of the grid file; checked when given")


Vertical = Literal["ellipsoid"] | VerticalGrid
BoundsM = tuple[float, float, float, float]


class CityConfig(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="folder name under results/")
    crs: str = Field(description="projected CRS in metres, such as EPSG:32637")
    vertical: Vertical = Field(description="'ellipsoid', or {epsg, grid, sha256} for heights above a geoid")
    bounds_m: BoundsM | None = Field(None, description="xmin, ymin, xmax, ymax of the city in its CRS")
    polygon: Path | None = Field(None, description="GeoJSON polygon in the city's CRS, instead of bounds_m")
    heights_m: tuple[float, float] = Field(
        description="lowest ground and highest roof that may occur, in the vertical reference"
    )
    max_building_m: float = Field(220.0, gt=0, description="tallest structure above the ground around it")

    @property
    def z0_m(self) -> float:
        """Height that local coordinates count from."""
        return math.floor(self.heights_m[0])

    @property
    def base_m(self) -> float:
        """Height of the closed solid's bottom."""
        return math.floor(self.heights_m[0]) - 10.0

    @property
    def box(self) -> Box:
        if self.bounds_m is not None:
            return Box(*self.bounds_m)
        points = [point for ring in self.rings() for point in ring]
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        return Box(min(xs), min(ys), max(xs), max(ys))

    def rings(self) -> list[list[tuple[float, float]]]:
        """Outer rings of the polygon file."""
        assert self.polygon is not None
        try:
            document = json.loads(self.polygon.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"city.polygon: {self.polygon} is not a readable GeoJSON file ({error})") from error
        features = document.get("features") or [document]
        rings = []
        for feature in features:
            geometry = feature.get("geometry", feature)
            if geometry.get("type") == "Polygon":
                rings.append([(float(p[0]), float(p[1])) for p in geometry["coordinates"][0]])
            elif geometry.get("type") == "MultiPolygon":
                rings += [[(float(p[0]), float(p[1])) for p in part[0]] for part in geometry["coordinates"]]
        if not rings:
            raise ConfigError(f"city.polygon: {self.polygon} holds no Polygon or MultiPolygon")
        return rings


class TilesConfig(Section):
    size_m: int = Field(512, gt=0, description="side of a tile; a multiple of twice geometry.pitch_m")
    shift_m: int = Field(0, ge=0, description="moves the tile grid; used by the border measurement only")


class ViewSource(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name of the view in every product")
    path: Path = Field(description="image with RPC tags in sensor geometry, any GDAL format")
    mask: Path | None = Field(None, description="raster of the image's size; not 0 means: don't use (cloud, water)")


class OrthoSource(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    path: Path = Field(description="orthophoto, any GDAL raster with a CRS")
    gsd_m: float | None = Field(None, gt=0, description="cell size in the AOI; default: the file's, rounded to 0.05")


class RasterSource(Section):
    path: Path = Field(description="height raster, any GDAL format with a CRS, or LiDAR (.laz, .las)")
    vertical: Vertical | None = Field(None, description="its vertical reference; default: the city's")
    crs: str | None = Field(None, description="CRS to assume when the file names none")


class SourcesConfig(Section):
    views: tuple[ViewSource, ...] = Field((), description="satellite views; at least 2 for heights")
    ortho: tuple[OrthoSource, ...] = Field((), description="aerial orthophotos")
    terrain: RasterSource | None = Field(None, description="coarse bare-earth heights")
    reference: RasterSource | None = Field(None, description="true surface heights to score against")


class IngestConfig(Section):
    halo_m: float | None = Field(None, ge=0, description="ground around a tile's core in its AOI; default: enough")
    pointing_allowance_px: float = Field(8.0, ge=0, description="how far an RPC may point wrong")


class SurveyConfig(Section):
    sample_gsd_m: float = Field(4.0, gt=0, description="cell size at which radiometry is compared between views")


class DsmConfig(Section):
    gsd_m: float = Field(0.5, gt=0, description="cell size of the height model")
    matching_halo_m: float = Field(16.0, ge=0, description="ground beyond the output that warms up the matching")


class GeometryConfig(Section):
    pitch_m: float = Field(1.0, gt=0, description="node spacing of the field; an integer multiple of dsm.gsd_m")
    blend_m: float = Field(8.0, gt=0, description="width over which neighbouring divisions are blended")


class TextureConfig(Section):
    max_off_nadir_deg: float = Field(30.0, gt=0, lt=60, description="largest off-nadir angle that is textured from")


class MergeConfig(Section):
    overview_budget_mb: float = Field(20.0, gt=0, description="largest size of city.glb")


class EvaluateConfig(Section):
    points_per_m2: float = Field(4.0, gt=0, description="sampling density of the mesh score")


class ReportConfig(Section):
    width_px: int = Field(1200, gt=0, description="width of the large pictures")


class PackConfig(Section):
    divisions: bool = Field(True, description="fit the four divisions of a tile in one job")
    tiles: int = Field(1, ge=1, description="how many tiles of a stage one job serves")


class WorkflowConfig(Section):
    pack: PackConfig = PackConfig()
    on_code_change: Literal["rerun", "warn"] = Field(
        "rerun", description="whether jobs rerun when the code of their stage changed"
    )


class SynthConfig(Section):
    """A synthetic city instead of real sources."""

    margin_m: float = Field(150.0, gt=0, description="ground rendered beyond the city's bounds")


class Config(Section):
    """The whole configuration of one city."""

    city: CityConfig
    seed: int = Field(0, ge=0, description="every random draw derives from it")
    tiles: TilesConfig = TilesConfig()
    synth: SynthConfig | None = Field(None, description="make the sources from a synthetic city")
    sources: SourcesConfig = SourcesConfig()
    survey: SurveyConfig = SurveyConfig()
    ingest: IngestConfig = IngestConfig()
    dsm: DsmConfig = DsmConfig()
    geometry: GeometryConfig = GeometryConfig()
    texture: TextureConfig = TextureConfig()
    merge: MergeConfig = MergeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    workflow: WorkflowConfig = WorkflowConfig()
