"""Windows out of cities: drawn at random for training, on a fixed lattice for validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from cityweave.errors import ConfigError
from cityweave.train.packs import Pack
from cityweave.train.recipe import DataSettings

TRIES = 8  # draws of a place before one that is hardly known is taken


@dataclass(frozen=True)
class Windows:
    """A batch. Colours are about 0: black -1, white 1."""

    rgb: np.ndarray  # [b, 3, y, x] float32
    height_m: np.ndarray  # [b, y, x] float32
    valid: np.ndarray  # [b, y, x] float32, 1 where both are known


@dataclass(frozen=True)
class Change:
    """How far a drawn window is changed: brightness and contrast relative, each at most so much."""

    brightness: float = 0.2
    contrast: float = 0.2
    noise: float = 0.01
    turn: bool = True
    mirror: bool = True
    tint: float = 0.0
    saturation: float = 0.0
    gamma: float = 0.0

    def colours(self, rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[3, y, x] as another sensor, haze or season may show it."""
        if self.gamma:
            rgb = 2 * np.clip((rgb + 1) / 2, 0, 1) ** np.float32(np.exp(self.gamma * rng.uniform(-1, 1))) - 1
        if self.saturation:
            grey = rgb.mean(axis=0, keepdims=True)
            rgb = grey + np.float32(1 + self.saturation * rng.uniform(-1, 1)) * (rgb - grey)
        contrast = 1 + self.contrast * rng.uniform(-1, 1)
        brightness = self.brightness * rng.uniform(-1, 1)
        if self.tint:
            gains = 1 + self.tint * rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32)
            rgb = (rgb + 1) * gains - 1
        noise = self.noise * rng.standard_normal(rgb.shape, dtype=np.float32)
        return (rgb * np.float32(contrast) + np.float32(brightness) + noise).astype(np.float32)


class WindowData(DataSettings):
    """Windows of a picture, drawn and changed."""

    window_px: int = Field(128, ge=16, multiple_of=16, description="side of a window")
    validation_windows: int = Field(128, ge=1, description="at most, spread over the validation cities")
    brightness: float = Field(0.2, ge=0, description="how far a window is made lighter or darker; black to white is 2")
    contrast: float = Field(0.2, ge=0, lt=1, description="how far contrast is changed, relative")
    noise: float = Field(0.01, ge=0, description="standard deviation of noise that is added")
    turn: bool = Field(True, description="turn by quarters: the sun may stand anywhere then")
    mirror: bool = Field(True, description="swap left and right: the sun stays in the south if it was there")
    tint: float = Field(0.0, ge=0, lt=1, description="how far each colour is strengthened or weakened, relative")
    saturation: float = Field(0.0, ge=0, le=1, description="how far colours are brought nearer to grey or away from it")
    gamma: float = Field(0.0, ge=0, le=1, description="logarithm of how far dark and light are bent")

    @property
    def change(self) -> Change:
        return Change(**{name: getattr(self, name) for name in Change.__dataclass_fields__})


def check_windows(packs: Sequence[Pack], window_px: int) -> None:
    small = [f"{pack.name} ({pack.shape[1]} x {pack.shape[0]} px)" for pack in packs if min(pack.shape) < window_px]
    if small:
        raise ConfigError(f"a window of {window_px} px doesn't fit into {', '.join(small[:3])}; accepted: smaller ones")


class Sampler:
    """Random places of random cities, a city as often as its weight and its ground say."""

    def __init__(self, packs: Sequence[Pack], window_px: int, change: Change) -> None:
        check_windows(packs, window_px)
        self._packs = packs
        self._window_px = window_px
        self._change = change
        weights = np.array([pack.weight * pack.valid.size for pack in packs], np.float64)
        if weights.sum() <= 0:
            raise ConfigError("every training city has weight 0; accepted: one with a weight above")
        self._chances = weights / weights.sum()

    def draw(self, rng: np.random.Generator, size: int) -> Windows:
        drawn = [self._one(rng) for _ in range(size)]
        return Windows(*(np.stack(part) for part in zip(*drawn, strict=True)))

    def _one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pack = self._packs[rng.choice(len(self._packs), p=self._chances)]
        side = self._window_px
        for _ in range(TRIES):
            top, left = (int(rng.integers(0, n - side + 1)) for n in pack.shape)
            if pack.valid[top : top + side, left : left + side].mean() >= 0.5:
                break
        rgb, height, valid = cut(pack, top, left, side)
        quarters = int(rng.integers(4)) if self._change.turn else 0
        mirrored = bool(rng.integers(2)) if self._change.mirror else False
        rgb, height, valid = (_turned(a, quarters, mirrored) for a in (rgb, height, valid))
        return self._change.colours(rgb, rng), height, valid


def cut(pack: Pack, top: int, left: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    window = (slice(top, top + side), slice(left, left + side))
    rgb = np.asarray(pack.rgb[:, *window], np.float32) * np.float32(2 / pack.white) - np.float32(1)
    return rgb, np.asarray(pack.height_m[window], np.float32), np.asarray(pack.valid[window], np.float32)


def _turned(values: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    values = np.rot90(values, quarters, axes=(-2, -1))
    return np.ascontiguousarray(values[..., ::-1] if mirrored else values)


def lattice(packs: Sequence[Pack], window_px: int, most: int, size: int) -> Iterator[Windows]:
    """Batches of windows side by side, at most so many, spread evenly over all cities: the same every time."""
    check_windows(packs, window_px)
    places = [
        (pack, top, left)
        for pack in packs
        for top in range(0, pack.shape[0] - window_px + 1, window_px)
        for left in range(0, pack.shape[1] - window_px + 1, window_px)
    ]
    if len(places) > most:
        places = [places[index * len(places) // most] for index in range(most)]
    for start in range(0, len(places), size):
        parts = [cut(pack, top, left, window_px) for pack, top, left in places[start : start + size]]
        yield Windows(*(np.stack(part) for part in zip(*parts, strict=True)))
