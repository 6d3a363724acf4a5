"""What a set of training data is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cityweave.config import BoundsM, Section
from cityweave.synth.styles import STYLES

Range = tuple[float, float]


class SyntheticCities(Section):
    """Cities of the procedural generator, each drawn from its seed; ranges are drawn from evenly."""

    first_seed: int = Field(ge=0, description="the cities are those of this seed and the ones after it")
    count: int = Field(ge=1, description="how many")
    side_m: int = Field(384, ge=64, le=4096, multiple_of=2, description="side of a city's square")
    styles: tuple[str, ...] = Field(("mixed",), min_length=1, description="kinds of cities, in turn")
    sun_azimuth_deg: Range = Field((100.0, 260.0), description="from")
    sun_elevation_deg: Range = Field((30.0, 70.0), description="above the horizon")
    off_nadir_deg: Range = Field((0.0, 12.0), description="how far roofs lean; 0 is a true orthophoto")
    gain: Range = Field((0.85, 1.15), description="brightness of the picture")
    relief_m: Range = Field((4.0, 40.0), description="about how far hills rise")
    max_height_m: Range = Field((25.0, 120.0), description="tallest building that may be built")
    weight: float = Field(1.0, ge=0, description="how often they are drawn, relative to their ground")

    @field_validator("styles")
    @classmethod
    def _known(cls, styles: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [style for style in styles if style not in STYLES]:
            raise ValueError(f"there is no style {', '.join(unknown)}; accepted: {', '.join(STYLES)}")
        return styles

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.count)


class ModelCities(Section):
    """A city model in a file, photographed as the synthetic cities are: real buildings under made-up roofs."""

    model: Path = Field(description="CityJSON, OBJ or GLB")
    crs: str = Field(description="projected CRS in metres that it is photographed in")
    bounds_m: BoundsM = Field(description="xmin, ymin, xmax, ymax of what is shown")
    seed: int = Field(ge=0, description="of colours and light")
    sun_azimuth_deg: float = Field(150.0, description="from")
    sun_elevation_deg: float = Field(50.0, gt=5, le=90, description="above the horizon")
    off_nadir_deg: float = Field(0.0, ge=0, le=30, description="how far roofs lean; 0 is a true orthophoto")
    weight: float = Field(1.0, ge=0, description="how often it is drawn, relative to its ground")


class RunCities(Section):
    """The AOI stores of a run: an orthophoto, reference heights and terrain of each of its tiles."""

    run: Path = Field(description="such as results/mycity; its ingest is done")
    ortho: str | None = Field(None, description="name of the orthophoto; needed where there are several")
    weight: float = Field(1.0, ge=0, description="how often it is drawn, relative to its ground")


class PictureCity(Section):
    """One picture with heights: of the surface and the ground, or above the ground."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    picture: Path
    above: Path | None = Field(None, description="heights above ground")
    surface: Path | None = Field(None, description="heights of the surface, where `above` isn't there")
    ground: Path | None = Field(None, description="heights of the ground; default: estimated from the surface")
    crs: str | None = Field(None, description="CRS to assume when the files name none")
    weight: float = Field(1.0, ge=0, description="how often it is drawn, relative to its ground")

    @model_validator(mode="after")
    def _one_of_both(self) -> PictureCity:
        if (self.above is None) == (self.surface is None):
            raise ValueError("exactly one of above and surface is needed")
        return self


class PublicCities(Section):
    """A public training set as it is handed out, below one folder; what is called what: docs/data.md."""

    layout: Literal["geonrw", "swisstopo", "ign_lidar_hd", "dfc2019"]
    folder: Path
    picture_gsd_m: float = Field(0.3, gt=0, description="of pictures without a place on earth, as those of dfc2019")
    weight: float = Field(1.0, ge=0, description="how often it is drawn, relative to its ground")


class Cities(Section):
    synthetic: tuple[SyntheticCities, ...] = ()
    models: tuple[ModelCities, ...] = ()
    runs: tuple[RunCities, ...] = ()
    pictures: tuple[PictureCity, ...] = ()
    public: tuple[PublicCities, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Cities:
        if not (self.synthetic or self.models or self.runs or self.pictures or self.public):
            raise ValueError(
                "no city; accepted: `synthetic` cities, `models`, `runs`, `pictures`, `public` sets, or several of them"
            )
        return self


class DataSettings(Section):
    """Training and validation cities, made once into a folder by `cityweave train data`."""

    folder: Path = Field(description="where the data are made, once")
    gsd_m: float = Field(0.5, gt=0, description="cell of pictures and heights")
    train: Cities
    validation: Cities = Field(description="cities that training never sees")

    @model_validator(mode="after")
    def _apart(self) -> DataSettings:
        ours, theirs = _seeds(self.train), _seeds(self.validation)
        if shared := sorted(ours & theirs):
            raise ValueError(f"seeds {shared[:5]} are in train and in validation; accepted: seeds of their own")
        runs = {c.run for c in self.train.runs} & {c.run for c in self.validation.runs}
        if runs:
            raise ValueError(f"{', '.join(map(str, sorted(runs)))} is in train and in validation")
        for told in (_folders, _pictures, _crops):
            if both := told(self.train) & told(self.validation):
                raise ValueError(f"{', '.join(map(str, sorted(both)))} is in train and in validation")
        return self


def _folders(cities: Cities) -> set[Path]:
    return {entry.folder for entry in cities.public}


def _pictures(cities: Cities) -> set[Path]:
    return {entry.picture for entry in cities.pictures}


def _crops(cities: Cities) -> set[tuple[Path, tuple[float, ...]]]:
    return {(entry.model, entry.bounds_m) for entry in cities.models}


def _seeds(cities: Cities) -> set[int]:
    return {seed for group in cities.synthetic for seed in group.seeds}
