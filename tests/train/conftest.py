"""Data of two tiny cities, made once, and a training of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="make setup EXTRAS=models")

from cityweave.cli import main
from cityweave.train.cities import City, Source
from cityweave.train.packs import SPLITS, write_packs
from cityweave.train.recipe import DataSettings


def boxes(seed: int, side_px: int = 96) -> City:
    """Flat ground and boxes: the higher, the brighter."""
    rng = np.random.default_rng(seed)
    height = np.zeros((side_px, side_px), np.float32)
    for _ in range(12):
        top, left, size = rng.integers(0, side_px - 16), rng.integers(0, side_px - 16), rng.integers(6, 16)
        height[top : top + size, left : left + size] = rng.uniform(3, 30)
    rgb = np.clip(40 + 6 * height + rng.normal(0, 3, (3, side_px, side_px)), 0, 255).astype(np.uint8)
    return City(rgb, height, np.ones(height.shape, bool), 255.0)


@pytest.fixture(scope="session")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A configuration whose data are there."""
    values = {
        "name": "tiny",
        "seed": 3,
        "data": {
            "folder": str(tmp_path_factory.mktemp("data")),
            "window_px": 32,
            "validation_windows": 8,
            "train": {"synthetic": [{"first_seed": 1, "count": 2}]},
            "validation": {"synthetic": [{"first_seed": 9, "count": 1}]},
        },
        "model": {"width": 4},
        "loop": {"steps": 12, "batch": 2, "accumulate": 2, "warmup_steps": 2, "validate_every": 4, "log_every": 3},
        "checkpoints": {"every": 5, "keep": 2},
    }
    recipe = {key: values["data"][key] for key in ("folder", "train", "validation")}
    settings = DataSettings.model_validate(recipe)
    cities = {
        split: [
            Source(f"boxes-{seed}", ("synthetic", 0), {"boxes": seed}, lambda seed=seed: boxes(seed))
            for group in getattr(settings, split).synthetic
            for seed in group.seeds
        ]
        for split in SPLITS
    }
    write_packs(settings, cities)
    return values


@pytest.fixture
def config(values: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def train(config: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """`cityweave train heights` in this process, into tmp_path/training; returns the exit code."""

    def call(*arguments: str, to: str = "training") -> int:
        return main(["train", "heights", "--config", str(config), "--to", str(tmp_path / to), *arguments])

    return call
