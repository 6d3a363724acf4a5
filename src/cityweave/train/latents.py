"""Windows drawn and encoded once, for many short trainings of the same data: arrays in a folder, read by all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cityweave.cityscale.model import CityScale
from cityweave.manifest import remove
from cityweave.train.data import Sampler, WindowData
from cityweave.train.packs import TrainingData
from cityweave.train.settings import digest_of

CODE_CACHED = 205
ARRAYS = ("seen", "target", "height_m", "valid")
_AT_ONCE = 8


@dataclass(frozen=True)
class Latents:
    arrays: dict[str, np.ndarray]  # each [windows, ...], mapped

    def draw(self, rng: np.random.Generator, size: int) -> dict[str, torch.Tensor]:
        chosen = rng.integers(len(self.arrays["valid"]), size=size)
        drawn = {name: torch.from_numpy(np.stack([array[k] for k in chosen])) for name, array in self.arrays.items()}
        return {name: tensor.float() for name, tensor in drawn.items()}


def cached_latents(settings: Any, data: TrainingData, sampler: Sampler, model: CityScale) -> Latents:
    """Made by whoever comes first; they depend on the data, on what draws them and on what encodes them."""
    weights = {name: float(tensor.double().sum()) for name, tensor in model.backbone.frozen().state_dict().items()}
    drawn = {name: getattr(settings, name) for name in WindowData.model_fields if name not in ("folder", "train")}
    del drawn["validation"], drawn["validation_windows"]
    shares = [(pack.name, pack.weight) for pack in data.train]
    count = settings.cached_windows
    key = digest_of([data.digest, shares, drawn, weights, count, model.head_name == "fixed"])[:12]
    folder = settings.folder / f"latents-{key}"
    if not folder.is_dir():
        _make(folder, sampler, model, count)
    return Latents({name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS})


@torch.no_grad()
def _make(folder: Path, sampler: Sampler, model: CityScale, count: int) -> None:
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    remove(aside)
    aside.mkdir()
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for number in range(0, count, _AT_ONCE):
        rng = np.random.default_rng([CODE_CACHED, number])
        windows = sampler.draw(rng, min(_AT_ONCE, count - number))
        height, valid = torch.from_numpy(windows.height_m), torch.from_numpy(windows.valid)
        relative = height * valid / model.scale_of(height, valid)[:, None, None]
        made = {
            "seen": model.backbone.encode(torch.from_numpy(windows.rgb)),
            "target": model.backbone.encode_relative(relative),
            "height_m": height,
            "valid": valid,
        }
        for name, tensor in made.items():
            parts[name].append(tensor.numpy().astype(np.uint8 if name == "valid" else np.float16))
    for name, arrays in parts.items():
        np.save(aside / f"{name}.npy", np.concatenate(arrays), allow_pickle=False)
    try:
        aside.rename(folder)
    except OSError:  # another run was first
        remove(aside)
