"""The folder that a recipe is made into, once: whole arrays of each city, read through the page cache.

data.json              recipe, cities of each split, checksums
{split}/{city}/        rgb.npy (3, y, x), height_m.npy (y, x), valid.npy (y, x), pack.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.errors import ConfigError, DataError
from cityweave.manifest import content_hash, remove, write_json
from cityweave.train.cities import MIN_SHARE, Source, sources
from cityweave.train.recipe import DataSettings
from cityweave.train.settings import differences, digest_of

FORMAT = 1
SPLITS = ("train", "validation")
INDEX, CARD = "data.json", "pack.json"
ARRAYS = ("rgb", "height_m", "valid")


@dataclass(frozen=True)
class Pack:
    """One city. Arrays are mapped, not loaded: a window costs what it holds."""

    name: str
    weight: float
    rgb: np.ndarray  # (3, y, x)
    height_m: np.ndarray  # (y, x)
    valid: np.ndarray  # (y, x)
    white: float
    mean_height_m: float
    highest_m: float

    @property
    def shape(self) -> tuple[int, int]:
        return (self.height_m.shape[0], self.height_m.shape[1])


@dataclass(frozen=True)
class TrainingData:
    digest: str
    gsd_m: float
    train: list[Pack]
    validation: list[Pack]

    @property
    def mean_height_m(self) -> float:
        """Over the training ground, as often as it is drawn."""
        weights = np.array([pack.weight * pack.valid.size for pack in self.train])
        return float(np.average([pack.mean_height_m for pack in self.train], weights=weights))


def _recipe(settings: DataSettings) -> dict[str, Any]:
    """What the arrays depend on; how often a city is drawn may change later."""
    values = settings.model_dump(mode="json", include={"gsd_m", *SPLITS})
    for split in SPLITS:
        for groups in values[split].values():
            for group in groups:
                del group["weight"]
    return _without_empty(values)


def _without_empty(recipe: dict[str, Any]) -> dict[str, Any]:
    """Data stay what they are when another kind of cities can be named."""
    splits = {split: {kind: groups for kind, groups in recipe[split].items() if groups} for split in SPLITS}
    return recipe | splits


def _weight(settings: DataSettings, split: str, group: list[Any]) -> float:
    kind, number = group
    return float(getattr(getattr(settings, split), kind)[number].weight)


def make_data(settings: DataSettings) -> Path:
    """Make what isn't there yet; a folder with another recipe is refused."""
    if (settings.folder / INDEX).is_file():
        _check_recipe(settings.folder, settings)
    return write_packs(settings, {split: sources(settings, split) for split in SPLITS})


def write_packs(settings: DataSettings, cities: Mapping[str, Iterable[Source]]) -> Path:
    folder = settings.folder
    index = folder / INDEX
    cards: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
        cards[split] = [card for source in _each_once(cities[split], split) if (card := _make(folder / split, source))]
        if not cards[split]:
            raise DataError(f"data.{split}: no city has both a picture and heights")
        known = {card["name"] for card in cards[split]}
        for left in (folder / split).iterdir():
            if left.name not in known:
                remove(left)
    write_json(index, {"format": FORMAT, "recipe": _recipe(settings), **cards})
    return index


def _each_once(cities: Iterable[Source], split: str) -> Iterator[Source]:
    names: set[str] = set()
    for source in cities:
        if source.name in names:
            raise ConfigError(f"data.{split} holds {source.name} twice; accepted: seeds, models and runs once each")
        names.add(source.name)
        yield source


def _make(folder: Path, source: Source) -> dict[str, Any] | None:
    final = folder / source.name
    if final.is_dir():
        card: dict[str, Any] = json.loads((final / CARD).read_text())
        if (
            card["recipe"] == source.recipe
            and card["group"] == list(source.group)
            and not _damage(final, card, thorough=True)
        ):
            return card
        remove(final)
    city = source.make()
    share = float(city.valid.mean())
    if share < MIN_SHARE:
        print(f"{source.name}: picture and heights are known for {share:.1%} of it; left out")
        return None
    aside = folder / f".{source.name}.{os.getpid()}.tmp"
    remove(aside)
    aside.mkdir()
    for name in ARRAYS:
        np.save(aside / f"{name}.npy", getattr(city, name), allow_pickle=False)
    files = {
        f"{name}.npy": {"bytes": path.stat().st_size, "sha256": content_hash(path)}
        for name in ARRAYS
        if (path := aside / f"{name}.npy")
    }
    heights = city.height_m[city.valid].astype(np.float64)
    card = {
        "name": source.name,
        "group": list(source.group),
        "recipe": source.recipe,
        "files": files,
        "white": city.white,
        "valid_share": round(share, 6),
        "mean_height_m": round(float(heights.mean()), 6),
        "highest_m": round(float(heights.max()), 3),
    }
    write_json(aside / CARD, card)
    aside.rename(final)
    print(f"{source.name}: {share:.0%} known, mean {card['mean_height_m']:.2f} m, highest {card['highest_m']:.1f} m")
    return card


def _damage(folder: Path, card: dict[str, Any], thorough: bool) -> str | None:
    for name, facts in card["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{path} is gone"
        if path.stat().st_size != facts["bytes"]:
            return f"{path} has {path.stat().st_size} bytes, not {facts['bytes']}"
        if thorough and content_hash(path) != facts["sha256"]:
            return f"{path} has another checksum"
    return None


def _check_recipe(folder: Path, settings: DataSettings) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no training data ({error}); make them: cityweave train data") from None
    if index.get("format") != FORMAT:
        raise DataError(f"{folder}: format {index.get('format')} of training data; accepted: {FORMAT}; make them anew")
    if changed := differences(_without_empty(index["recipe"]), _recipe(settings), "data"):
        raise ConfigError(
            f"{folder} was made of another recipe ({'; '.join(changed[:5])}); accepted: the same one, or another "
            "data.folder"
        )
    return index


def open_data(settings: DataSettings, *, thorough: bool = False) -> TrainingData:
    """`thorough` compares checksums, which reads everything: once before a training is started, not in every run."""
    folder = settings.folder
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder} holds no training data; make them: cityweave train data --config ...")
    index = _check_recipe(folder, settings)
    packs: dict[str, list[Pack]] = {}
    for split in SPLITS:
        for card in index[split]:
            place = folder / split / card["name"]
            if wrong := _damage(place, card, thorough):
                raise DataError(f"{wrong}; make it again: remove {place}, then cityweave train data")
        packs[split] = [
            _open(folder / split / card["name"], card, _weight(settings, split, card["group"])) for card in index[split]
        ]
    return TrainingData(digest_of(index), settings.gsd_m, packs["train"], packs["validation"])


def _open(folder: Path, card: dict[str, Any], weight: float) -> Pack:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    return Pack(
        card["name"],
        weight,
        **arrays,
        white=card["white"],
        mean_height_m=card["mean_height_m"],
        highest_m=card["highest_m"],
    )
