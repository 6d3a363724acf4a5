"""The task `cityscale`: heights in metres from one picture, by a denoiser of latents and a head for the scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from cityweave.cityscale.backbone import denoise, noised
from cityweave.cityscale.heads import HEADS
from cityweave.cityscale.model import CityScale
from cityweave.cityscale.small import SmallBackbone
from cityweave.cityscale.weights import ANYWHERE, SHIPPED, SOUTH
from cityweave.cityscale.weights import KIND as CITYSCALE
from cityweave.config import Section
from cityweave.errors import ConfigError, DataError
from cityweave.io.weights import fill_model, load_tensors
from cityweave.train.data import Sampler, WindowData, Windows, check_windows, lattice
from cityweave.train.height_vae import KIND as VAE_KIND
from cityweave.train.heights import figures_without_a_network, height_figures
from cityweave.train.latents import Latents, cached_latents
from cityweave.train.loop import Batch
from cityweave.train.packs import TrainingData, make_data, open_data
from cityweave.train.recipe import Cities
from cityweave.train.settings import TrainSettings

__all__ = ["CityScaleSettings", "CityScaleTask", "make_data", "open_data"]

CODE_VALIDATION = 204  # of the noise that validation starts from


class CityScaleModel(Section):
    kind: Literal["small", "marigold"] = Field("small", description="small: ours; marigold: of a folder or hub id")
    width: int = Field(48, ge=8, le=512, multiple_of=8, description="small: channels of the U-Net's first level")
    vae: Path | None = Field(None, description="small: what cityweave train height_vae wrote; default: ours")
    base: str | None = Field(None, description="marigold: a folder with unet/, vae/ and scheduler/, or a hub id")
    head: str = Field("fpn", description="what says the scale: " + ", ".join(HEADS))
    attached: bool = Field(True, description="whether what is wrong in metres is taught to the backbone, too")
    start: Path | None = Field(None, description="weights to go on from, a .safetensors file; default: drawn anew")

    @model_validator(mode="after")
    def _consistent(self) -> CityScaleModel:
        if self.head not in HEADS:
            raise ValueError(f"there is no head {self.head!r}; accepted: {', '.join(HEADS)}")
        if (self.kind == "marigold") != (self.base is not None):
            raise ValueError("base names what marigold begins with: accepted with kind: marigold, and only with it")
        return self


class CityScaleLoss(Section):
    """Weights of the parts."""

    denoising: float = Field(1.0, ge=0, description="squared difference of velocities in the latents")
    metres: float = Field(1.0, ge=0, description="mean difference in metres, in one step from noise")
    log: float = Field(0.0, ge=0, description="mean difference of log(1 + height), in which low things count, too")
    one_step: float = Field(
        0.5, gt=0, le=1, description="share of the windows that are predicted in one step; the rest is denoised only"
    )
    spread: float = Field(0.2, ge=0, description="of the expected error, which is taught to nothing but its own layer")


class CityScaleData(WindowData):
    cached_windows: int | None = Field(
        None, ge=1, description="so many windows are drawn and encoded once; default: fresh ones for every step"
    )


class CityScaleSettings(TrainSettings):
    model: CityScaleModel
    loss: CityScaleLoss = CityScaleLoss()
    data: CityScaleData


class CityScaleTask:
    watch = "mae_m"

    def __init__(self, settings: CityScaleSettings) -> None:
        self.settings = settings
        self.data: TrainingData = open_data(settings.data)
        d = settings.data
        self._sampler = Sampler(self.data.train, d.window_px, d.change)
        check_windows(self.data.validation, d.window_px)
        start = settings.model.start
        if start and (kind := load_tensors(start)[1].get("kind")) != CITYSCALE:
            raise DataError(f"model.start: {start} holds {kind!r}; accepted: {CITYSCALE!r}")
        self._backbone = self._new_backbone()  # what the shapes and the cached latents are taken of
        if d.window_px % self._backbone.multiple_px:
            raise ConfigError(
                f"data.window_px is {d.window_px}; accepted by this backbone: multiples of {self._backbone.multiple_px}"
            )
        self._cache: Latents | None = None
        self._start_m: float = load_tensors(start)[1]["start_m"] if start else max(1.0, self._mean_scale())

    def model(self) -> torch.nn.Module:
        chosen = self.settings.model
        model = CityScale(self._new_backbone(), chosen.head, self._start_m, chosen.attached)
        if chosen.start:
            tensors, card = load_tensors(chosen.start)
            if {**card, **model.card()} != card:
                raise ConfigError(f"model.start: {chosen.start} is of another network than this configuration's")
            fill_model(model, tensors, chosen.start)
        laid_out: torch.nn.Module = model.to(memory_format=torch.channels_last)
        return laid_out

    def _new_backbone(self) -> Any:
        chosen = self.settings.model
        if chosen.kind == "marigold":
            from cityweave.cityscale.marigold import MarigoldBackbone

            assert chosen.base is not None
            return MarigoldBackbone.from_folder(chosen.base)
        source = chosen.vae or chosen.start or SHIPPED
        tensors, card = load_tensors(source)
        if chosen.vae is None:
            of_vae = "backbone.vae."
            tensors = {name.removeprefix(of_vae): t for name, t in tensors.items() if name.startswith(of_vae)}
            card = {"kind": VAE_KIND, "width": card["vae_width"], "channels": card["channels"]}
        if card.get("kind") != VAE_KIND:
            raise DataError(f"model.vae: {chosen.vae} holds {card.get('kind')!r}; accepted: {VAE_KIND!r}")
        backbone = SmallBackbone(chosen.width, card["width"], card["channels"])
        fill_model(backbone.vae, tensors, source)
        return backbone

    def _mean_scale(self) -> float:
        """Geometric mean of the scales of windows, drawn once: where every head starts."""
        windows = self._sampler.draw(np.random.default_rng([0, CODE_VALIDATION]), 64)
        model = CityScale(self._backbone, "mlp_latent", 1.0)
        scales = model.scale_of(torch.from_numpy(windows.height_m), torch.from_numpy(windows.valid))
        return round(float(scales.log().mean().exp()), 3)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        if self.settings.data.cached_windows:
            if self._cache is None:
                head = "fixed" if self.settings.model.head == "fixed" else "mlp_latent"
                scaled = CityScale(self._backbone, head, 1.0)
                self._cache = cached_latents(self.settings.data, self.data, self._sampler, scaled)
            batch = self._cache.draw(rng, size)
        else:
            windows = self._sampler.draw(rng, size)
            batch = {name: torch.from_numpy(values) for name, values in vars(windows).items()}
            batch["rgb"] = batch["rgb"].contiguous(memory_format=torch.channels_last)
        cells = self.settings.data.window_px // self._backbone.latent_px
        noise = rng.standard_normal((size, self._backbone.latent_channels, cells, cells), dtype=np.float32)
        return batch | {
            "noise": torch.from_numpy(noise).contiguous(memory_format=torch.channels_last),
            "time": torch.from_numpy(rng.uniform(0.02, 1.0, size).astype(np.float32)),
            # The share, over many batches.
            "one_step": torch.tensor(max(1, math.floor(self.settings.loss.one_step * size + rng.uniform()))),
        }

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Some windows are predicted in one step from noise alone; the others are denoised from times between."""
        assert isinstance(model, CityScale)
        backbone, weights = model.backbone, self.settings.loss
        height, valid = batch["height_m"].float(), batch["valid"].float()
        seen, target = batch.get("seen"), batch.get("target")
        if seen is None or target is None:
            with torch.no_grad():
                seen = backbone.encode(batch["rgb"]).float()
                relative = height * valid / model.scale_of(height, valid)[:, None, None]
                target = backbone.encode_relative(relative).float()
        seen, target, noise = seen.float(), target.float(), batch["noise"]
        count = int(batch["one_step"])
        far = model(seen[:count], noise[:count], torch.ones(count, device=seen.device))
        off = [(far.denoised.velocity + target[:count]) ** 2]
        if count < len(height):
            time = batch["time"][count:]
            noisy, velocity = noised(backbone, target[count:], noise[count:], time)
            near = denoise(backbone, seen[count:], noisy, time)
            off.append((near.velocity - velocity) ** 2)
        true = height[:count]
        wrong = (far.metres - true).abs()
        wrong_log = (torch.log1p(far.metres) - torch.log1p(true.clamp(min=0))).abs()
        known = valid[:count].sum().clamp(min=1.0)
        unlikely = torch.log(far.spread) + wrong.detach() / far.spread
        return {
            "denoising": weights.denoising * torch.cat(off).mean(),
            "metres": weights.metres * (wrong * valid[:count]).sum() / known,
            "log": weights.log * (wrong_log * valid[:count]).sum() / known,
            "spread": weights.spread * (unlikely * valid[:count]).sum() / known,
        }

    def validate(self, model: torch.nn.Module, device: str) -> dict[str, float]:
        assert isinstance(model, CityScale)
        errors, truth, spreads = [], [], []
        for number, windows in enumerate(self._lattice()):
            noise = self._noise(number, len(windows.rgb))
            heights = model.predict(torch.from_numpy(windows.rgb).to(device), noise.to(device))
            known = windows.valid > 0
            errors.append((heights.metres.float().cpu().numpy() - windows.height_m)[known])
            spreads.append(heights.spread.float().cpu().numpy()[known])
            truth.append(windows.height_m[known])
        off, true = np.concatenate(errors).astype(np.float64), np.concatenate(truth)
        expected = np.concatenate(spreads)
        return height_figures(off, true) | {"expected_mae_m": float(expected.mean())}

    def _noise(self, number: int, count: int) -> torch.Tensor:
        cells = self.settings.data.window_px // self._backbone.latent_px
        rng = np.random.default_rng([CODE_VALIDATION, number])
        drawn = rng.standard_normal((count, self._backbone.latent_channels, cells, cells), dtype=np.float32)
        return torch.from_numpy(drawn)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The same figures for saying 0 everywhere, and for saying the training cities' mean everywhere."""
        return figures_without_a_network(self._lattice(), self.data.mean_height_m)

    def card(self) -> dict[str, Any]:
        chosen, window_px = self.settings.model, self.settings.data.window_px
        model = CityScale(self._backbone, chosen.head, self._start_m, chosen.attached)
        colours = "red, green, blue; black -1, white 1"
        sun = SOUTH if not self.settings.data.turn and _sun_in_the_south(self.settings.data.train) else ANYWHERE
        facts = {"gsd_m": self.data.gsd_m, "window_px": window_px, "colours": colours, "sun": sun}
        highest_m = round(max(pack.highest_m for pack in self.data.train), 2)
        return {**model.card(), **facts, "highest_m": highest_m, "mean_height_m": round(self.data.mean_height_m, 3)}

    def _lattice(self) -> Iterator[Windows]:
        d = self.settings.data
        return lattice(self.data.validation, d.window_px, d.validation_windows, self.settings.loop.batch)


def _sun_in_the_south(cities: Cities) -> bool:
    """Of real pictures nobody has said where it stood."""
    if cities.runs or cities.pictures or cities.public:
        return False
    azimuths = [azimuth for group in cities.synthetic for azimuth in group.sun_azimuth_deg]
    return all(90 <= azimuth <= 270 for azimuth in [*azimuths, *(model.sun_azimuth_deg for model in cities.models)])
