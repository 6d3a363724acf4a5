"""The task `heights`: height above ground from one RGB window, by plain regression. A baseline for what comes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from cityweave.config import Section
from cityweave.errors import DataError
from cityweave.io.weights import fill_model, load_tensors
from cityweave.train.data import Sampler, WindowData, Windows, check_windows, lattice
from cityweave.train.loop import Batch
from cityweave.train.models.height_unet import HeightUNet
from cityweave.train.packs import TrainingData, make_data, open_data
from cityweave.train.settings import TrainSettings

__all__ = ["HeightSettings", "HeightTask", "load_height_unet", "make_data", "open_data"]

KIND = "height_unet"


class HeightModel(Section):
    width: int = Field(20, ge=2, le=256, description="channels of the first level; the others have 2, 3 and 4 times")
    fold: Literal[2, 4] = Field(2, description="pixels on a side that are one cell of the first level")
    start: Path | None = Field(None, description="weights to go on from, a .safetensors file; default: drawn anew")


class HeightLoss(Section):
    """Weights of the parts."""

    metres: float = Field(1.0, ge=0, description="mean difference in metres")
    log: float = Field(1.0, ge=0, description="mean difference of log(1 + height), in which low things count, too")


class HeightSettings(TrainSettings):
    model: HeightModel = HeightModel()
    loss: HeightLoss = HeightLoss()
    data: WindowData


class HeightTask:
    watch = "mae_m"

    def __init__(self, settings: HeightSettings) -> None:
        self.settings = settings
        self.data: TrainingData = open_data(settings.data)
        self._sampler = Sampler(self.data.train, settings.data.window_px, settings.data.change)
        check_windows(self.data.validation, settings.data.window_px)
        start = settings.model.start
        self._start_m: float = load_tensors(start)[1]["start_m"] if start else self.data.mean_height_m

    def model(self) -> HeightUNet:
        chosen = self.settings.model
        model = HeightUNet(chosen.width, self._start_m, chosen.fold)
        if chosen.start:
            fill_model(model, load_tensors(chosen.start)[0], chosen.start)
        laid_out: HeightUNet = model.to(memory_format=torch.channels_last)
        return laid_out

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        windows = self._sampler.draw(rng, size)
        return {name: torch.from_numpy(values) for name, values in vars(windows).items()}

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        predicted, true, valid = model(batch["rgb"]), batch["height_m"], batch["valid"]
        known = valid.sum().clamp(min=1.0)
        metres = ((predicted - true).abs() * valid).sum() / known
        logs = ((torch.log1p(predicted) - torch.log1p(true.clamp(min=0))).abs() * valid).sum() / known
        return {"metres": self.settings.loss.metres * metres, "log": self.settings.loss.log * logs}

    def validate(self, model: torch.nn.Module, device: str) -> dict[str, float]:
        errors, truth = [], []
        for windows in self._lattice():
            predicted = model(torch.from_numpy(windows.rgb).to(device)).cpu().numpy()
            known = windows.valid > 0
            errors.append((predicted - windows.height_m)[known])
            truth.append(windows.height_m[known])
        return height_figures(np.concatenate(errors).astype(np.float64), np.concatenate(truth))

    def baselines(self) -> dict[str, dict[str, float]]:
        """The same figures for saying 0 everywhere, and for saying the training cities' mean everywhere."""
        return figures_without_a_network(self._lattice(), self.data.mean_height_m)

    def card(self) -> dict[str, Any]:
        """What it takes to build the network again and to use it."""
        return {
            "kind": KIND,
            "width": self.settings.model.width,
            "fold": self.settings.model.fold,
            "start_m": self._start_m,
            "gsd_m": self.data.gsd_m,
            "colours": "red, green, blue; black -1, white 1",
        }

    def _lattice(self):  # type: ignore[no-untyped-def]
        d = self.settings.data
        return lattice(self.data.validation, d.window_px, d.validation_windows, self.settings.loop.batch)


def height_figures(errors: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of predicted minus true heights, in metres; `bias` is their median."""
    tall = truth > 2.0
    return {
        "mae_m": float(np.abs(errors).mean()),
        "rmse_m": float(np.sqrt((errors**2).mean())),
        "bias_m": float(np.median(errors)),
        "mae_above_2m_m": float(np.abs(errors[tall]).mean()) if tall.any() else 0.0,
    }


def figures_without_a_network(lattice: Iterable[Windows], mean_m: float) -> dict[str, dict[str, float]]:
    truth = np.concatenate([w.height_m[w.valid > 0] for w in lattice]).astype(np.float64)
    return {"flat_ground": height_figures(-truth, truth), "mean_height": height_figures(mean_m - truth, truth)}


def load_height_unet(path: Path) -> tuple[HeightUNet, dict[str, Any]]:
    """A trained network, ready to predict, and its card."""
    tensors, card = load_tensors(path)
    if card.get("kind") != KIND:
        raise DataError(f"{path} holds weights of {card.get('kind', 'an unknown network')!r}; accepted: {KIND!r}")
    model = HeightUNet(card["width"], card["start_m"], card.get("fold", 2))
    fill_model(model, tensors, path)
    return model.eval(), card
