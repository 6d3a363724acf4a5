"""The configuration: one frozen model per stage, units in the names and descriptions.

Paths are relative to the folder in which Snakemake runs. What several sections must agree on is checked in
`plan.py`. `config/schema.json` is generated from here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
            rings = _outer_rings(json.loads(self.polygon.read_text()))
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ConfigError(f"city.polygon: {self.polygon} is not a readable GeoJSON file ({error})") from error
        if any(len(ring) < 3 for ring in rings):
            raise ConfigError(f"city.polygon: {self.polygon} has a ring of under 3 points; a closed ring is accepted")
        if not rings:
            raise ConfigError(f"city.polygon: {self.polygon} holds no Polygon or MultiPolygon")
        return rings


def _outer_rings(document: Any) -> list[list[tuple[float, float]]]:
    polygons: list[Any] = []
    for feature in document.get("features") or [document]:
        geometry = feature.get("geometry", feature) or {}
        if geometry.get("type") == "Polygon":
            polygons.append(geometry["coordinates"])
        elif geometry.get("type") == "MultiPolygon":
            polygons += geometry["coordinates"]
    return [[(float(p[0]), float(p[1])) for p in rings[0]] for rings in polygons]


class TilesConfig(Section):
    size_m: int = Field(512, gt=0, description="side of a tile; a multiple of twice geometry.pitch_m")
    shift_m: int = Field(
        0, ge=0, description="moves the tile grid, 'half' by half a tile; used by the border measurement only"
    )

    @model_validator(mode="before")
    @classmethod
    def _half(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("shift_m") == "half":
            size_m = values.get("size_m", cls.model_fields["size_m"].default)
            return values | {"shift_m": size_m // 2}
        return values


class ViewSource(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name of the view in every product")
    path: Path = Field(description="image with an RPC, in sensor geometry, any GDAL format")
    rpc: Path | None = Field(
        None,
        description="file of the RPC: .RPB, _RPC.TXT, DIMAP .XML or .geom; default: the image's tags, or beside it",
    )
    crop_px: tuple[int, int] | None = Field(
        None, description="column and row of the picture that the RPC speaks of at which the image starts"
    )
    mask: Path | None = Field(None, description="raster of the image's size; not 0 means: don't use (cloud, water)")


class OrthoSource(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    path: Path = Field(description="orthophoto, any GDAL raster with a CRS")
    gsd_m: float | None = Field(None, gt=0, description="cell size in the AOI; default: the file's, rounded to 0.05")
    crs: str | None = Field(None, description="CRS to assume when the file names none")


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
    pointing_allowance_px: float = Field(
        8.0, ge=0, description="how far an RPC may point wrong: widens crops, bounds the search for ties"
    )


class PointingConfig(Section):
    """How RPCs that disagree are corrected, from ties between the views."""

    model: Literal["shift", "affine", "none"] = Field(
        "shift", description="what is corrected per view, in the image; none: RPCs are taken as they are"
    )
    least_ties: int = Field(12, ge=6, description="ties that a pair of views needs to count")
    apply_from_px: float = Field(
        0.2, ge=0, description="smaller corrections are not applied: ties of different dates are no better"
    )


class SurveyConfig(Section):
    pointing: PointingConfig = PointingConfig()
    exposure: Literal["solved", "none"] = Field(
        "solved", description="views brought to the brightness of one of them; none: taken as they are"
    )
    sample_gsd_m: float = Field(4.0, gt=0, description="cell size at which radiometry is compared between views")


class CityscaleConfig(Section):
    """Heights above ground from one orthophoto."""

    ortho: str | None = Field(None, description="name of the orthophoto; needed where there are several")
    weights: Path | None = Field(
        None, description="what cityweave train cityscale wrote; default: ours, trained on synthetic cities"
    )
    window_m: float = Field(256.0, ge=32, description="side of a window; the next one begins at its middle")
    samples: int = Field(1, ge=1, le=32, description="predictions of a window, each from noise of its own; their mean")
    sun_azimuth_deg: float | None = Field(
        None,
        ge=0,
        lt=360,
        description="direction from the city to the sun in the orthophoto; default: south or north, by the latitude",
    )
    sun_elevation_deg: float | None = Field(
        None,
        ge=10,
        le=80,
        description="height of the sun over the horizon: with it buildings get as high as their shadows are long",
    )

    @model_validator(mode="after")
    def _a_whole_direction(self) -> CityscaleConfig:
        if self.sun_elevation_deg is not None and self.sun_azimuth_deg is None:
            raise ValueError("sun_elevation_deg needs sun_azimuth_deg; accepted: both, the azimuth alone, or neither")
        return self


class DsmConfig(Section):
    method: Literal["stereo", "cityscale", "fused"] = Field(
        "stereo",
        description="stereo: of at least 2 views; cityscale: of one orthophoto, by a network; fused: stereo, and where "
        "it measures nothing, the network",
    )
    terrain: Literal["estimated", "given", "flat"] | None = Field(
        None,
        description="what predicted heights stand on: sources.terrain, or flat ground at flat_m; default: given, and "
        "with fused estimated from stereo",
    )
    flat_m: float | None = Field(None, description="height of the ground, with terrain: flat")
    trust_m: float = Field(
        1.0, gt=0, description="fused: stereo up to this standard deviation says how far predictions are off"
    )
    align_m: float = Field(64.0, gt=0, description="fused: spacing at which predictions are brought to stereo's scale")
    most_lean: float = Field(
        0.3,
        ge=0,
        le=1,
        description="fused: how far roofs may lean in the orthophoto, metres east or north per metre up; measured "
        "heights tell how far they do",
    )
    gsd_m: float = Field(0.5, gt=0, description="cell size of the height model")
    matching_halo_m: float = Field(16.0, ge=0, description="ground beyond the output that warms up the matching")
    occluder_reach_m: float = Field(
        32.0, ge=0, description="ground beyond that whose buildings may hide some of it; from 3 views on"
    )
    memory_mb: float = Field(
        2000.0, gt=0, description="most that matching may take; a tile that needs more is matched in blocks"
    )
    step_m: float = Field(0.5, gt=0, description="height step of the fine sweep; the result is finer")
    coarse_gsd_m: float = Field(1.0, gt=0, description="cell size of the sweep that finds where to search")
    coarse_step_m: float = Field(1.0, gt=0, description="height step of that sweep")
    range_reach_m: float = Field(2.0, ge=0, description="how far around a cell coarse heights widen its search")
    range_margin_m: float = Field(4.0, gt=0, description="search above and below those heights")
    upsample: int = Field(4, ge=1, le=8, description="samples per pixel and axis before census")
    census_spacing: int = Field(
        2, ge=1, le=16, description="samples between neighbours of the 9 x 7 census window; twice that below 4 views"
    )
    pair_share: float = Field(0.3, gt=0, le=1, description="best share of the view pairs that counts at first")
    visible_pair_share: float = Field(0.3, gt=0, le=1, description="the same among views known to see the point")
    p1: float = Field(0.08, gt=0, le=1, description="cost of one height step, as a share of the census bits")
    p2: float = Field(2.0, gt=0, le=4, description="cost of a jump with two views; falls with the root of their number")
    p2_contrast: float = Field(
        20.0, gt=0, description="grey-level step (of 255) at which a jump costs 1/e; 3 x below 4 views"
    )
    p2_floor: float = Field(0.1, gt=0, le=1, description="share of p2 that a jump costs at the strongest edge")
    coarse_p2: float = Field(
        0.5, gt=0, le=4, description="p2 of the coarse sweep, 2 x below 4 views: low misses nothing"
    )
    visibility_rounds: int = Field(2, ge=0, le=4, description="repeats of the sweep with views that see the surface")
    visibility_tolerance_m: float = Field(1.0, ge=0, description="a point this far below a line of sight still counts")
    occluder_share: float = Field(
        0.7, ge=0, le=1, description="a cell hides others once this share of the views that should see it agrees"
    )
    component_jump_m: float = Field(2.0, gt=0, description="height difference that separates patches")
    min_component_cells: int = Field(40, ge=0, description="smaller patches are taken for mismatches")
    smooth_radius_cells: int = Field(
        1, ge=0, le=5, description="half side of the median window; wider by one for every view short of 4"
    )
    smooth_band_m: float = Field(
        1.0, gt=0, description="heights this close to the median are averaged; at least a pixel of parallax"
    )
    agree_share: float = Field(0.34, gt=0, lt=0.5, description="share of unlike census bits up to which views agree")
    min_margin: float = Field(
        0.12, ge=0, le=1, description="how much worse the second-best height must be, against what is usual in the tile"
    )
    small_hole_cells: int = Field(40, ge=0, description="holes up to here take the median around them")
    ground_window_m: float = Field(140.0, gt=0, description="wider than the largest building without a courtyard")
    ground_slope: float = Field(0.3, gt=0, description="steepest ground, metres up per metre")
    ground_step_m: float = Field(1.0, gt=0, description="what rises less above the ground around belongs to it")


class PublishedConfig(Section):
    """The published fit, as stated in the paper; read by the solvers flexicubes and full_sdf."""

    steps: int = Field(2000, gt=0, description="of Adam, for each division")
    lr: float = Field(0.01, gt=0, description="in the paper's coordinates, where a division spans -1 to 1")
    unit_m: float | None = Field(None, gt=0, description="metres to one of those units; default: half a division")
    data: Literal["height", "chamfer"] = Field(
        "height", description="what draws the surface: the height map, or distances to points both ways"
    )
    laplacian: float = Field(0.5, ge=0, description="weight of the mesh's Laplacian")
    normal_tv: float = Field(0.01, ge=0, description="weight of changes of the rendered normals")
    regulariser: float = Field(0.1, ge=0, description="weight of what keeps FlexiCubes' cells regular")


Solver = Literal["direct", "flexicubes", "full_sdf", "marching_cubes", "grid"]


class GeometryConfig(Section):
    solver: Solver = Field(
        "direct",
        description=(
            "direct closes the city without seams; the others are for comparison and leave it open: flexicubes the "
            "published method, full_sdf the same without monotony in z, marching_cubes and grid of the heights as is"
        ),
    )
    reading: Literal["nodes", "centred"] = Field(
        "nodes", description="neighbours of a point of the field: lattice nodes (sharp walls), or offsets about it"
    )
    pitch_m: float = Field(1.0, gt=0, description="node spacing of the field; an integer multiple of dsm.gsd_m")
    softness_m: float = Field(0.5, gt=0, description="height over which a node's curve changes sign")
    beta: float = Field(2.0, gt=0, description="how strongly the nearest node outweighs the others")
    blend_m: float = Field(8.0, gt=0, description="width over which neighbouring divisions are blended")
    steps: int = Field(60, gt=0, description="most steps of the optimiser")
    lr_m: float = Field(0.4, gt=0, description="largest step of a node's height")
    tv: float = Field(0.1, ge=0, description="weight of height differences between nodes, in pixels per metre")
    laplacian: float = Field(0.02, ge=0, description="weight of the squared Laplacian, in pixels per metre")
    normal_tv: float = Field(0.5, ge=0, description="weight of changes of the normal, in pixels x metres")
    cell_m: float | None = Field(None, gt=0, description="vertex spacing before simplification; default: pitch_m")
    published: PublishedConfig = PublishedConfig()
    triangles_per_m2: float | None = Field(
        None, gt=0, description="what solvers other than direct simplify to; default: their meshes stay as they are"
    )
    wall_jump_m: float = Field(1.5, gt=0, description="a smaller step between two points is a slope, not a wall")
    wall_slope_deg: float = Field(65.0, gt=45, lt=90, description="steeper than any roof")
    level_errors_m: tuple[float, ...] = Field(
        (0.05, 0.6), min_length=1, max_length=4, description="largest error of each level of detail, finest first"
    )

    @property
    def resolution_m(self) -> float:
        return self.cell_m or self.pitch_m

    @property
    def ramp_nodes(self) -> int:
        """Half the width of the blend, in nodes."""
        return round(self.blend_m / self.pitch_m / 2)

    @model_validator(mode="after")
    def _consistent(self) -> GeometryConfig:
        accepted = {"pitch_m": self.pitch_m, "half of it": self.pitch_m / 2}
        if self.solver != "direct":
            accepted["twice it"] = 2 * self.pitch_m
        if self.resolution_m not in accepted.values():
            values = ", ".join(f"{name} ({value:g})" for name, value in accepted.items())
            raise ValueError(f"cell_m is {self.resolution_m:g}; accepted with solver {self.solver}: {values}")
        if self.triangles_per_m2 is not None and self.solver == "direct":
            raise ValueError("triangles_per_m2 is for other solvers; direct simplifies by level_errors_m")
        if self.blend_m < 8 * self.pitch_m:
            raise ValueError(f"blend_m is {self.blend_m:g}; at least 8 pitches ({8 * self.pitch_m:g} m) are needed")
        if list(self.level_errors_m) != sorted(self.level_errors_m) or self.level_errors_m[0] < 0:
            raise ValueError(f"level_errors_m must rise from 0 or more, got {list(self.level_errors_m)}")
        return self


class RefineConfig(Section):
    """Views that no satellite took: rendered from the textured city, restored, and given back to its texture."""

    rounds: int = Field(0, ge=0, le=4, description="how often; 0 leaves the texture as the satellites' views make it")
    restorer: Literal["small", "flux", "none"] = Field(
        "small", description="what restores a picture; none: it stays as rendered, to tell what restoring is worth"
    )
    model: str | None = Field(None, description="of the restorer flux, FLUX.1-schnell: a folder or a hub id")
    weights: Path | None = Field(
        None, description="what cityweave train restorer wrote; default: small ours, flux the model as it is"
    )
    grid: Literal["aims", "cameras"] = Field(
        "aims", description="what stands on the city-wide grid; cameras: as published"
    )
    spacing_m: float = Field(150.0, gt=10, description="of that grid; there is a view in every heading from each node")
    height_m: float = Field(450.0, gt=50, description="of the camera above the point it aims at")
    pitch_deg: float = Field(45.0, ge=20, le=90, description="angle between a view's axis and the horizon")
    headings_deg: tuple[float, ...] = Field((0.0, 90.0, 180.0, 270.0), min_length=1, description="where the views look")
    reach_m: float = Field(180.0, gt=10, description="how far from the point aimed at a view counts")
    size_px: int = Field(1024, ge=64, le=4096, multiple_of=16, description="side of a view")
    most_views: int = Field(24, ge=1, description="views a tile may own; those that show most of the city stay")
    weight: float = Field(0.06, gt=0, description="what a restored pixel counts beside a satellite's")
    prior_px: float = Field(0.04, gt=0, description="as texture.prior_px, where restored views say more than it does")
    generated: bool = Field(True, description="whether what no satellite saw takes the restored colour")

    @model_validator(mode="after")
    def _has_its_model(self) -> RefineConfig:
        if (self.restorer == "flux") != (self.model is not None):
            raise ValueError("model names what the restorer flux is made of: accepted with it, and only with it")
        return self


class TextureConfig(Section):
    max_off_nadir_deg: float = Field(30.0, gt=0, lt=60, description="largest off-nadir angle that is textured from")
    max_views: int = Field(16, ge=1, le=252, description="views a tile is textured from; the best that see it")
    top_texel_m: float = Field(0.25, gt=0, description="texel size of roofs and ground")
    facade_texel_m: float = Field(0.4, gt=0, description="texel size of walls on the finest level; doubled per level")
    padding_px: int = Field(2, ge=1, le=16, description="texels between a chart and its rectangle's edge")
    steep_deg: float = Field(
        65.0, gt=30, lt=89, description="slope from which a face is a wall with a chart of its own"
    )
    visibility_bias_m: float = Field(0.4, gt=0, description="how far behind the nearest surface a texel is still seen")
    view_power: float = Field(2.0, ge=0, description="preference for the view that sees a face best; 0: plain mean")
    robust_floor: float = Field(6.0, gt=0, description="disagreement of views, in 0..255, that counts as noise")
    sharpen_steps: int = Field(4, ge=0, le=50, description="steps towards texels from which the views' pixels follow")
    blur_px: float = Field(0.4, ge=0, le=2, description="sigma of the blur that the views' optics are taken to have")
    prior_px: float = Field(0.1, gt=0, description="how many pixels of views the fused colour is worth in those steps")
    tint: bool = Field(
        True, description="colour what panchromatic views alone saw by an RGB orthophoto, if there is one"
    )
    refine: RefineConfig = RefineConfig()


class MergeSlurmConfig(Section):
    """What each worker asks SLURM for, when merge.cluster is slurm."""

    partition: str | None = Field(None, description="partition of the workers; default: the cluster's own")
    account: str | None = Field(None, description="account that pays for them, where the cluster wants one")
    memory_mb: int = Field(4000, ge=500, description="memory of a worker, megabytes")
    runtime_min: int = Field(120, ge=1, description="time of a worker, minutes; one that is over is asked for again")
    local_dir: str = Field("/tmp", description="folder on the node for a worker's own files")
    interface: str | None = Field(None, description="network between nodes, such as ib0; default: the host name's")
    extra: tuple[str, ...] = Field((), description="further options of sbatch, such as --qos=long")


class MergeConfig(Section):
    overview_budget_mb: float = Field(20.0, gt=0, description="largest size of city.glb")
    jpeg_quality: int = Field(85, ge=1, le=95, description="quality of the pictures in the GLBs")
    # Where it is done: no part of the result (plan.stage_params).
    workers: int = Field(4, ge=1, description="processes that merge; locally no more than the job has cores")
    cluster: Literal["local", "slurm"] = Field(
        "local", description="workers beside the merge job on its node, or SLURM jobs on any node"
    )
    slurm: MergeSlurmConfig = MergeSlurmConfig()


class EvaluateConfig(Section):
    points_per_m2: float = Field(4.0, gt=0, description="sampling density of the mesh score")


class ReportConfig(Section):
    width_px: int = Field(1200, gt=0, description="width of the large pictures")


class PackConfig(Section):
    divisions: bool = Field(True, description="fit the four divisions of a tile in one job")
    tiles: int = Field(1, ge=1, description="how many tiles of a stage one job serves")
    at_once: int = Field(
        1, ge=1, le=64, description="how many of them are cut out, or have their heights measured, at the same time"
    )


AdoptedStage = Literal["synth", "survey", "ingest", "cityscale", "dsm", "geometry", "texture", "merge"]


class AdoptConfig(Section):
    """Results that another run of the same city has already."""

    run: Path = Field(description="folder of that run, such as results/demo")
    stages: tuple[AdoptedStage, ...] = Field(
        description="whose results are taken over instead of computed; their parameters must be the same in both runs"
    )


class WorkflowConfig(Section):
    pack: PackConfig = PackConfig()
    cores_per_tile: int = Field(
        1, ge=1, le=64, description="cores for heights and texture of a tile; more pay where there are fewer tiles"
    )
    results: Path = Field(Path("results"), description="folder under which the city's own is made")
    adopt: AdoptConfig | None = Field(None, description="take stages over from another run, by hard link")
    on_code_change: Literal["rerun", "warn"] = Field(
        "rerun", description="whether jobs rerun when the code of their stage changed"
    )


class SynthView(Section):
    """One picture a satellite takes of the synthetic city."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name of the view in every product")
    off_nadir_deg: float = Field(ge=0, le=35, description="angle at the satellite between straight down and the city")
    azimuth_deg: float = Field(ge=0, lt=360, description="direction from the city to the satellite, from north by east")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?$", description="acquisition, UTC")
    sun_azimuth_deg: float = Field(ge=0, lt=360, description="direction from the city to the sun")
    sun_elevation_deg: float = Field(ge=10, le=90, description="height of the sun over the horizon")


_SUMMER, _AUTUMN = ("2025-06-18T08:31:00Z", 138.0, 62.0), ("2025-09-07T08:34:00Z", 152.0, 50.0)


def _view(name: str, off_nadir_deg: float, azimuth_deg: float, when: tuple[str, float, float]) -> SynthView:
    return SynthView(
        name=name,
        off_nadir_deg=off_nadir_deg,
        azimuth_deg=azimuth_deg,
        date=when[0],
        sun_azimuth_deg=when[1],
        sun_elevation_deg=when[2],
    )


class SynthConfig(Section):
    """A synthetic city instead of real sources."""

    margin_m: float = Field(150.0, ge=0, description="ground rendered beyond the city's bounds; an even number")
    ground_m: float | None = Field(None, description="height of the river's quays; default: city.heights_m[0] + 10")
    relief_m: float = Field(14.0, ge=0, le=80, description="about how far hills rise above that")
    max_height_m: float = Field(100.0, gt=3, le=220, description="tallest building; at most city.max_building_m")
    model: Path | None = Field(None, description="CityJSON, OBJ or GLB to render instead of the procedural city")
    model_offset_m: tuple[float, float, float] = Field((0, 0, 0), description="added to the model's coordinates")
    gsd_m: float = Field(0.45, gt=0.1, description="pixel of the satellite views, across the line of sight")
    altitude_km: float = Field(620.0, ge=600, description="height of the satellites' orbits")
    views: tuple[SynthView, ...] = Field(
        (
            _view("v01", 4.0, 205.0, _SUMMER),
            _view("v02", 13.0, 20.0, _SUMMER),
            _view("v03", 15.0, 200.0, _SUMMER),
            _view("v04", 17.0, 100.0, _AUTUMN),
            _view("v05", 18.0, 280.0, _AUTUMN),
            _view("v06", 24.0, 330.0, _SUMMER),
            _view("v07", 27.0, 160.0, _AUTUMN),
        ),
        min_length=2,
        description="satellite views",
    )
    supersample: int = Field(2, ge=1, le=4, description="rendered samples per pixel and axis")
    blur_px: float = Field(0.42, ge=0, le=2, description="sigma of the optics' blur")
    pointing_error_px: float = Field(
        0.0, ge=0, description="how far RPCs point wrong: up to so many pixels in column and in row"
    )
    noise_dn: float = Field(2.0, ge=0, description="sensor noise in the dark, of 2047")
    gain_spread: float = Field(0.06, ge=0, lt=0.5, description="how far views differ in brightness, relative")
    ortho_gsd_m: float = Field(0.3, gt=0.05, description="cell of the orthophotos")
    truth_gsd_m: float = Field(0.5, gt=0.05, description="cell of the true height models and masks")
    terrain_gsd_m: float = Field(5.0, gt=0.5, description="cell of the coarse terrain that is handed out")
    terrain_noise_m: float = Field(0.3, ge=0, description="standard deviation of that terrain's error")
    test_heights_m: tuple[float, ...] = Field((200.0, 500.0), description="unseen views: camera above the ground")
    test_headings_deg: tuple[float, ...] = Field((20.0, 110.0, 200.0, 290.0), description="where they look")
    test_street_views: int = Field(0, ge=0, le=64, description="unseen views from 2 m above streets")
    test_size_px: int = Field(640, ge=64, le=4096, description="side of an unseen view")


class Config(Section):
    """The whole configuration of one city."""

    city: CityConfig
    seed: int = Field(0, ge=0, description="every random draw derives from it")
    tiles: TilesConfig = TilesConfig()
    synth: SynthConfig | None = Field(None, description="make the sources from a synthetic city")
    sources: SourcesConfig = SourcesConfig()
    survey: SurveyConfig = SurveyConfig()
    ingest: IngestConfig = IngestConfig()
    cityscale: CityscaleConfig = CityscaleConfig()
    dsm: DsmConfig = DsmConfig()
    geometry: GeometryConfig = GeometryConfig()
    texture: TextureConfig = TextureConfig()
    merge: MergeConfig = MergeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    workflow: WorkflowConfig = WorkflowConfig()
