"""The task `height_vae`: the autoencoder of the backbone `small`, for pictures and for relative heights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from cityweave.cityscale.model import LEAST_SCALE_M, SCALE_QUANTILE
from cityweave.cityscale.small import Autoencoder, as_picture, from_picture
from cityweave.config import Section
from cityweave.io.weights import fill_model, load_tensors
from cityweave.train.data import Sampler, WindowData, Windows, check_windows, lattice
from cityweave.train.loop import Batch
from cityweave.train.packs import TrainingData, make_data, open_data
from cityweave.train.settings import TrainSettings

__all__ = ["VaeSettings", "VaeTask", "make_data", "open_data"]

KIND = "height_vae"


class VaeModel(Section):
    width: int = Field(32, ge=4, le=256, multiple_of=4, description="channels at half the resolution; twice that below")
    channels: int = Field(8, ge=1, le=64, description="of a latent's cell")
    start: Path | None = Field(None, description="weights to go on from, a .safetensors file; default: drawn anew")


class VaeLoss(Section):
    """Weights of the parts."""

    colours: float = Field(1.0, ge=0, description="mean difference of pictures; black to white is 2")
    heights: float = Field(4.0, ge=0, description="mean difference of relative heights, as pictures")
    narrow: float = Field(1e-4, ge=0, description="how far latents are from being spread as a normal distribution")


class VaeSettings(TrainSettings):
    model: VaeModel = VaeModel()
    loss: VaeLoss = VaeLoss()
    data: WindowData


class VaeTask:
    watch = "loss"

    def __init__(self, settings: VaeSettings) -> None:
        self.settings = settings
        self.data: TrainingData = open_data(settings.data)
        self._sampler = Sampler(self.data.train, settings.data.window_px, settings.data.change)
        check_windows(self.data.validation, settings.data.window_px)

    def model(self) -> torch.nn.Module:
        chosen = self.settings.model
        model: torch.nn.Module = Autoencoder(chosen.width, chosen.channels)
        if chosen.start:
            fill_model(model, load_tensors(chosen.start)[0], chosen.start)
        laid_out: torch.nn.Module = model.to(memory_format=torch.channels_last)
        return laid_out

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Half of the samples are pictures, half relative heights; both are drawn of the same windows."""
        windows = self._sampler.draw(rng, size)
        both = _both(windows)
        cells = self.settings.data.window_px // 4
        noise = rng.standard_normal((2 * size, self.settings.model.channels, cells, cells), dtype=np.float32)
        return {"both": both.contiguous(memory_format=torch.channels_last), "noise": torch.from_numpy(noise)}

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        weights = self.settings.loss
        assert isinstance(model, Autoencoder)
        mean, log_variance = model.encode(batch["both"])
        log_variance = log_variance.float().clamp(-20, 10)
        again = model.decode(mean.float() + torch.exp(0.5 * log_variance) * batch["noise"]).float()
        off = (again - batch["both"]).abs()
        half = len(off) // 2
        narrow = 0.5 * (mean.float() ** 2 + log_variance.exp() - 1 - log_variance).mean()
        return {
            "colours": weights.colours * off[:half].mean(),
            "heights": weights.heights * off[half:].mean(),
            "narrow": weights.narrow * narrow,
        }

    def validate(self, model: torch.nn.Module, device: str) -> dict[str, float]:
        assert isinstance(model, Autoencoder)
        d = self.settings.data
        colours, heights, metres, cells = [], [], [], []
        for windows in lattice(self.data.validation, d.window_px, d.validation_windows, self.settings.loop.batch):
            both, half = _both(windows).to(device), len(windows.rgb)
            mean, _ = model.encode(both)
            again = model.decode(mean)
            off = (again - both).abs()
            colours.append(float(off[:half].mean()))
            heights.append(float(off[half:].mean()))
            scale = torch.from_numpy(_scales(windows))[:, None, None].to(device)
            wrong = (from_picture(again[half:]) - from_picture(both[half:])).abs() * scale
            metres.append(float(wrong.mean()))
            cells.append(float(mean.std()))
        figures = {"colours": np.mean(colours), "heights": np.mean(heights), "latent_std": np.mean(cells)}
        weights = self.settings.loss
        loss = weights.colours * figures["colours"] + weights.heights * figures["heights"]
        return {"loss": float(loss), "metres": float(np.mean(metres))} | {k: float(v) for k, v in figures.items()}

    def baselines(self) -> dict[str, dict[str, float]]:
        return {}

    def card(self) -> dict[str, Any]:
        model = self.settings.model
        return {"kind": KIND, "width": model.width, "channels": model.channels, "gsd_m": self.data.gsd_m}


def _scales(windows: Windows) -> np.ndarray:
    heights = windows.height_m * windows.valid
    scale: np.ndarray = np.maximum(np.quantile(heights, SCALE_QUANTILE, axis=(1, 2)), LEAST_SCALE_M).astype(np.float32)
    return scale


def _both(windows: Windows) -> torch.Tensor:
    relative = windows.height_m * windows.valid / _scales(windows)[:, None, None]
    return torch.cat([torch.from_numpy(windows.rgb), as_picture(torch.from_numpy(relative.astype(np.float32)))])
