"""Windows out of cities: drawn at random for training, on a fixed lattice for validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cityweave.errors import ConfigError
from cityweave.train.packs import Pack

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
        if self._change.turn:
            quarters, mirrored = int(rng.integers(4)), bool(rng.integers(2))
            rgb, height, valid = (_turned(a, quarters, mirrored) for a in (rgb, height, valid))
        contrast = 1 + self._change.contrast * rng.uniform(-1, 1)
        brightness = self._change.brightness * rng.uniform(-1, 1)
        noise = self._change.noise * rng.standard_normal(rgb.shape, dtype=np.float32)
        return (rgb * np.float32(contrast) + np.float32(brightness) + noise).astype(np.float32), height, valid


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
