"""Training data of the restorer: pictures of textured synthetic cities beside what is really there.

data.json                      recipe, cities of each split, checksums
{split}/{city}/                inputs.npy (views, 10, y, x) float16, truth.npy (views, 3, y, x) uint8, pack.json
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from cityweave.cameras import Pinhole
from cityweave.config import Section
from cityweave.errors import ConfigError, DataError
from cityweave.evaluate.city import City
from cityweave.evaluate.views import tiles_in_view
from cityweave.manifest import Manifest, Run, content_hash, remove, write_json
from cityweave.render.textured import render
from cityweave.synth import sensor, views
from cityweave.synth.job import Studio
from cityweave.texture.restorer import Rendered
from cityweave.texture.restorer_small import inputs_of
from cityweave.train.settings import differences, digest_of

FORMAT = 1
SPLITS = ("train", "validation")
INDEX, CARD = "data.json", "pack.json"
ARRAYS = ("inputs", "truth")
CODE_VIEWS = 204
_SAMPLES = 2


class PairData(Section):
    """Views of textured cities, rendered once into a folder by `cityweave train data --task restorer`."""

    folder: Path = Field(description="where the data are made, once")
    train: tuple[Path, ...] = Field(min_length=1, description="runs of synthetic cities, their textures done")
    validation: tuple[Path, ...] = Field(min_length=1, description="runs that training never sees")
    views: int = Field(32, ge=1, description="of each city")
    size_px: int = Field(384, ge=64, multiple_of=16, description="side of a view")
    pixel_m: float = Field(0.35, gt=0, description="of a pixel at the ground")
    height_m: tuple[float, float] = Field((400.0, 600.0), description="of the cameras above the ground")
    pitch_deg: tuple[float, float] = Field((45.0, 60.0), description="angle between a view's axis and the horizon")
    window_px: int = Field(128, ge=16, multiple_of=16, description="side of what the network is shown at once")
    validation_views: int = Field(16, ge=1, description="at most, spread over the validation cities")

    @model_validator(mode="after")
    def _apart(self) -> PairData:
        if shared := sorted(set(self.train) & set(self.validation)):
            raise ValueError(f"{', '.join(map(str, shared))} is in train and in validation")
        if self.window_px > self.size_px:
            raise ValueError(f"window_px {self.window_px} is more than size_px {self.size_px}")
        return self


@dataclass(frozen=True)
class CityPairs:
    """Mapped, not loaded."""

    name: str
    inputs: np.ndarray  # (views, 10, y, x) float16
    truth: np.ndarray  # (views, 3, y, x) uint8


@dataclass(frozen=True)
class Pairs:
    digest: str
    train: list[CityPairs]
    validation: list[CityPairs]


def make_data(settings: PairData) -> Path:
    """Make what isn't there yet; a folder with another recipe is refused."""
    cards: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        (settings.folder / split).mkdir(parents=True, exist_ok=True)
        cards[split] = [_make(settings, split, path) for path in getattr(settings, split)]
        names = [card["name"] for card in cards[split]]
        if len(set(names)) < len(names):
            raise ConfigError(f"data.{split}: two runs have the same city name; accepted: names of their own")
    index = settings.folder / INDEX
    write_json(index, {"format": FORMAT, "recipe": _recipe(settings), **cards})
    return index


def open_data(settings: PairData, *, thorough: bool = False) -> Pairs:
    """`thorough` compares checksums, which reads everything."""
    folder = settings.folder
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no training data ({error}); make them: cityweave train data --task restorer --config ..."
        ) from None
    if changed := differences(index["recipe"], _recipe(settings), "data"):
        raise ConfigError(
            f"{folder} was made of another recipe ({'; '.join(changed[:5])}); accepted: the same one, or another "
            "data.folder"
        )
    found = {split: [_open(folder / split, card, thorough) for card in index[split]] for split in SPLITS}
    return Pairs(digest_of(index), found["train"], found["validation"])


def _recipe(settings: PairData) -> dict[str, Any]:
    """What the arrays depend on, beside the runs' textures: those are in the cities' cards."""
    return settings.model_dump(mode="json", include={"views", "size_px", "pixel_m", "height_m", "pitch_deg"})


def _open(folder: Path, card: dict[str, Any], thorough: bool) -> CityPairs:
    place = folder / card["name"]
    for name in ARRAYS:
        path = place / f"{name}.npy"
        if not path.is_file() or (thorough and content_hash(path) != card["files"][name]):
            raise DataError(f"{path} is gone or damaged; make it again: remove {place}, then cityweave train data")
    arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    return CityPairs(card["name"], **arrays)


def _make(settings: PairData, split: str, path: Path) -> dict[str, Any]:
    run = Run.open(path)
    if run.config.synth is None:
        raise ConfigError(f"{path} is no synthetic city; accepted: runs with a synth section, whose truth is known")
    name = run.config.city.name
    textures = sorted((run.folder / "tiles").glob("*/texture.json"))
    if not textures:
        raise DataError(f"{path} has no textured tile; run it as far as its textures first")
    made_of = digest_of([Manifest.read(texture).values["products"] for texture in textures])
    final = settings.folder / split / name
    recipe = _recipe(settings) | {"textures": made_of, "seed": run.config.seed}
    if (final / CARD).is_file():
        card: dict[str, Any] = json.loads((final / CARD).read_text())
        if card["recipe"] == recipe:
            return card
    aside = final.with_name(f".{name}.{os.getpid()}.tmp")
    remove(aside)
    aside.mkdir()
    pairs = [
        (inputs_of(ours).astype(np.float16), np.moveaxis(truth, 2, 0)) for ours, truth in city_pairs(run, settings)
    ]
    files = {}
    for array, values in zip(ARRAYS, zip(*pairs, strict=True), strict=True):
        np.save(aside / f"{array}.npy", np.stack(values), allow_pickle=False)
        files[array] = content_hash(aside / f"{array}.npy")
    card = {"name": name, "recipe": recipe, "files": files}
    write_json(aside / CARD, card)
    remove(final)
    aside.rename(final)
    print(f"{name}: {len(pairs)} views")
    return card


def city_pairs(run: Run, settings: PairData) -> Iterator[tuple[Rendered, np.ndarray]]:
    """Our picture and the true one (y, x, 3) from cameras drawn from the city's seed."""
    config = run.config
    assert config.synth is not None
    studio = Studio(config, config.synth, run.folder / "sources")
    studio.warm()
    light, origin = studio.sun_of(studio.nadir), np.array(studio.scene.origin_m)
    city = City(run, origin)
    rng = np.random.default_rng([config.seed, CODE_VIEWS])
    for number in range(settings.views):
        camera, away_m = _camera(studio, city, settings, number, rng)
        radiance = views.pinhole_radiance(studio.shaded, light, camera, config.synth.supersample, config.synth.blur_px)
        tiles = tiles_in_view(city, camera, config.city.heights_m)
        frame = render((city.textured(tile) for tile in tiles), camera, _SAMPLES)
        yield Rendered.of(frame, camera, away_m), np.asarray(sensor.to_grey(radiance))


def _camera(
    studio: Studio, city: City, settings: PairData, number: int, rng: np.random.Generator
) -> tuple[Pinhole, float]:
    """Aimed at the inner half of the city, by turns from the four sides; and how far it stands away."""
    box = city.local(city.run.config.city.box)
    x, y = (low + side * rng.uniform(0.25, 0.75) for low, side in ((box.xmin, box.width), (box.ymin, box.height)))
    heading = math.radians(90 * (number % 4) + rng.uniform(-20, 20))
    height_m, pitch = rng.uniform(*settings.height_m), math.radians(rng.uniform(*settings.pitch_deg))
    ground_m = float(studio.scene.ground(np.array([x]), np.array([y]))[0])
    back, away_m = height_m / math.tan(pitch), height_m / math.sin(pitch)
    fov_deg = 2 * math.degrees(math.atan(settings.pixel_m * settings.size_px / 2 / away_m))
    position = np.array([x - math.sin(heading) * back, y - math.cos(heading) * back, ground_m + height_m])
    target = np.array([x, y, ground_m])
    return Pinhole.look_at(position, target, fov_deg, settings.size_px, settings.size_px), away_m
