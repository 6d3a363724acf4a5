"""Stages with a GPU path, as `bench/gpu.sh` compares them: input made up on the spot, the core on either device."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Twin:
    """One stage's numeric core on both devices: `make` builds its input, `cpu` and `gpu` return comparable arrays."""

    stage: str
    make: Callable[[], Any]
    cpu: Callable[[Any], np.ndarray]
    gpu: Callable[[Any], np.ndarray]  # copies to the device and back included
    bytes: float  # that the device must move at least
    operations: float  # float32, that it must compute at least
    tolerance: float  # largest difference between the twins


NODES, STEPS = 256, 60  # the published size of a division; the steps of the fit
PHASES = [(x, y) for y in (-0.375, -0.125, 0.125, 0.375) for x in (-0.375, -0.125, 0.125, 0.375)]
BETA, EPSILON = 2.0, 0.25  # as in geometry/field.py, which needs numba


def _division() -> tuple[np.ndarray, ...]:
    """A rolling ground with blocks on it, as `direct` hands it on: padded nodes, targets and weights by phase."""
    draw = np.random.default_rng(1)
    y, x = np.mgrid[0:NODES, 0:NODES].astype(np.float64)
    ground = 700 + 3 * np.sin(x / 40) + 2 * np.cos(y / 25)
    for west, south, height in draw.uniform((0, 0, 3), (NODES, NODES, 40), (120, 3)):
        inside = (x >= west) & (x < west + 12) & (y >= south) & (y < south + 8)
        ground = np.where(inside, ground + height, ground)
    target = ground[None] + draw.normal(0, 0.2, (len(PHASES), NODES, NODES))
    tables = []
    for dx, dy in PHASES:
        apart = [np.hypot(dx - i, dy - j) for j, i in itertools.product((-1, 0, 1), repeat=2)]
        weights = np.exp(BETA / (np.array(apart) + EPSILON) - BETA / EPSILON)
        tables.append(weights / weights.sum())
    return np.pad(ground, 2, mode="edge"), target, np.ones_like(target), np.array(tables), np.array(PHASES)


def _fitted(arrays: tuple[np.ndarray, ...], device: str) -> np.ndarray:
    from cityweave.geometry.direct_torch import solve

    start, target, weight, tables, off = arrays
    h = start.copy()
    solve(h, target, weight, tables, off, (0.5, False, 2.0, STEPS, 0.4, 0.4, 0.08, 2.0, 1.5, 0.0), device)
    return h


_PIXEL_STEPS = len(PHASES) * NODES * NODES * STEPS
FIT = Twin(
    "fit",
    _division,
    lambda arrays: _fitted(arrays, "cpu"),
    lambda arrays: _fitted(arrays, "cuda"),
    bytes=_PIXEL_STEPS * 4 * 4,  # root, target and weight in, root out
    operations=_PIXEL_STEPS * 9 * 20,
    tolerance=0.5,  # nodes beside a wall may end a little apart; elsewhere it is millimetres
)
TWINS: tuple[Twin, ...] = (FIT,)
