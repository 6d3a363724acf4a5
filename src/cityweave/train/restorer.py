"""The task `restorer`: from a rendered picture of a textured city to what is really there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from cityweave.config import Section
from cityweave.errors import ConfigError
from cityweave.evaluate.stlpips import st_lpips
from cityweave.io.weights import fill_model, load_tensors
from cityweave.texture.restorer_small import KIND, SmallRestorer
from cityweave.train.loop import Batch
from cityweave.train.pairs import CityPairs, PairData, make_data, open_data
from cityweave.train.settings import TrainSettings

__all__ = ["RestorerSettings", "RestorerTask", "make_data", "open_data"]

DRAWN, NORMAL_X = 3, 6  # layers of what the network reads
_LEAST_DRAWN, _TRIES = 0.7, 8


class RestorerModel(Section):
    kind: Literal["small", "flux"] = Field("small", description="small: a compact network; flux: FLUX.1-schnell")
    width: int = Field(32, ge=4, le=128, multiple_of=4, description="small: channels of the first level")
    base: str | None = Field(None, description="flux: a folder with vae/ and transformer/, or a hub id")
    rank: int | None = Field(
        16, ge=1, description="flux: of the matrices added to its layers; null: the whole transformer is trained"
    )
    start: Path | None = Field(None, description="weights to go on from, a .safetensors file; default: drawn anew")

    @model_validator(mode="after")
    def _has_its_base(self) -> RestorerModel:
        if (self.kind == "flux") != (self.base is not None):
            raise ValueError("base names what flux begins with: accepted with kind: flux, and only with it")
        return self


class RestorerLoss(Section):
    """Weights of the parts."""

    colour: float = Field(1.0, ge=0, description="mean difference of colours (Charbonnier)")
    charbonnier: float = Field(
        0.1, gt=0, description="differences below it, black to white being 2, count as their squares"
    )
    looks: float = Field(0.3, ge=0, description="ST-LPIPS")
    looked_at: int = Field(3, ge=1, description="windows of a batch that ST-LPIPS is taken of; it is the costly part")


class RestorerData(PairData):
    brightness: float = Field(0.1, ge=0, description="how far a window is made lighter or darker; black to white is 2")
    contrast: float = Field(0.15, ge=0, lt=1, description="how far contrast is changed, relative")


class RestorerSettings(TrainSettings):
    model: RestorerModel = RestorerModel()
    loss: RestorerLoss = RestorerLoss()
    data: RestorerData


class RestorerTask:
    watch = "loss"

    def __init__(self, settings: RestorerSettings) -> None:
        self.settings = settings
        self.data = open_data(settings.data)
        self._looks = st_lpips()

    def model(self) -> torch.nn.Module:
        model: Any = self._flux() if self.settings.model.kind == "flux" else SmallRestorer(self.settings.model.width)
        if start := self.settings.model.start:
            tensors, card = load_tensors(start)
            if card.get("kind") != self.card()["kind"]:
                raise ConfigError(f"model.start: {start} holds {card.get('kind')!r}; accepted: {self.card()['kind']!r}")
            fill_model(model, tensors, start)
        laid_out: torch.nn.Module = model.to(memory_format=torch.channels_last)  # twice as fast on a CPU
        return laid_out

    def _flux(self) -> torch.nn.Module:
        from cityweave.texture.restorer_flux import FluxBase, FluxRestorer

        chosen, mixed = self.settings.model, self.settings.loop.precision == "bf16"
        assert chosen.base is not None
        base = FluxBase(chosen.base, torch.bfloat16 if mixed and chosen.rank else torch.float32)
        base.transformer.enable_gradient_checkpointing()
        return FluxRestorer(base, chosen.rank)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        drawn = [self._window(rng) for _ in range(size)]
        inputs, truth = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return {"inputs": inputs.to(memory_format=torch.channels_last), "truth": truth}

    def _window(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        data = self.settings.data
        side = data.window_px
        for _ in range(_TRIES):
            city = self.data.train[rng.integers(len(self.data.train))]
            view = int(rng.integers(len(city.inputs)))
            top, left = (int(rng.integers(0, n - side + 1)) for n in city.inputs.shape[2:])
            place = (view, slice(None), slice(top, top + side), slice(left, left + side))
            if city.inputs[place][DRAWN].mean(dtype=np.float32) >= _LEAST_DRAWN:
                break
        inputs, truth = city.inputs[place].astype(np.float32), _colours(city.truth[place])
        if rng.integers(2):
            inputs, truth = inputs[..., ::-1].copy(), truth[..., ::-1].copy()
            inputs[NORMAL_X] *= -1
        contrast = np.float32(1 + data.contrast * rng.uniform(-1, 1))
        brightness = np.float32(data.brightness * rng.uniform(-1, 1))
        inputs[:3] = ((inputs[:3] + 1) * contrast - 1 + brightness) * inputs[DRAWN]
        return inputs, (truth + 1) * contrast - 1 + brightness

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        drawn = batch["inputs"][:, DRAWN : DRAWN + 1]
        restored, truth = model(batch["inputs"]) * drawn, batch["truth"] * drawn
        weights, few = self.settings.loss, self.settings.loss.looked_at
        parts = {"colour": weights.colour * self._unlike(restored.float(), truth)}
        if weights.looks:
            parts["looks"] = weights.looks * self._looks.to(str(truth.device))(restored[:few], truth[:few]).mean()
        return parts

    def _unlike(self, restored: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Charbonnier's distance, 0 for equal pictures."""
        small = self.settings.loss.charbonnier
        return torch.sqrt((restored - truth) ** 2 + small**2).mean() - small

    def validate(self, model: torch.nn.Module, device: str) -> dict[str, float]:
        return self._figures(lambda inputs: model(inputs.to(device)).cpu())

    def baselines(self) -> dict[str, dict[str, float]]:
        """The same figures for the picture as it was rendered."""
        return {"rendered": self._figures(lambda inputs: inputs[:, :3])}

    @torch.no_grad()
    def _figures(self, restored_of: Any) -> dict[str, float]:
        psnrs, looks, losses = [], [], []
        for city, view in self._validation_views():
            inputs = torch.from_numpy(city.inputs[view][None].astype(np.float32))
            drawn = inputs[:, DRAWN : DRAWN + 1]
            truth = torch.from_numpy(_colours(city.truth[view]))[None] * drawn
            restored = restored_of(inputs).float().clamp(-1, 1) * drawn
            error = float(((restored - truth) ** 2).sum() / (3 * drawn.sum()))
            psnrs.append(10 * np.log10(4 / error))
            looks.append(float(self._looks(restored, truth)))
            colour = float(self._unlike(restored, truth))
            losses.append(self.settings.loss.colour * colour + self.settings.loss.looks * looks[-1])
        return {"psnr_db": float(np.mean(psnrs)), "st_lpips": float(np.mean(looks)), "loss": float(np.mean(losses))}

    def _validation_views(self) -> list[tuple[CityPairs, int]]:
        every = [(city, view) for city in self.data.validation for view in range(len(city.inputs))]
        most = min(self.settings.data.validation_views, len(every))
        return [every[index * len(every) // most] for index in range(most)]

    def card(self) -> dict[str, Any]:
        model, pixel_m = self.settings.model, self.settings.data.pixel_m
        if model.kind == "flux":
            return {"kind": "flux_restorer", "rank": model.rank, "base": model.base, "pixel_m": pixel_m}
        return {"kind": KIND, "width": model.width, "pixel_m": pixel_m}


def _colours(truth: np.ndarray) -> np.ndarray:
    return (truth.astype(np.float32) / np.float32(127.5)) - np.float32(1)
