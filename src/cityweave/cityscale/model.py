"""Backbone and head as one: a picture to metres above ground, and how far they may be off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cityweave.cityscale.backbone import Denoised, denoise
from cityweave.cityscale.heads import HEADS
from cityweave.cityscale.weights import KIND
from cityweave.errors import DataError
from cityweave.io.weights import fill_model, load_tensors

LEAST_SCALE_M = 3.0  # of a window without buildings: trees and cars are no skyline
SCALE_QUANTILE = 0.999
FIXED_RANGE_M = 250.0  # of the variant without a head
LEAST_SPREAD_M, MOST_SPREAD_M = 0.05, 60.0


@dataclass(frozen=True)
class Heights:
    denoised: Denoised
    relative: torch.Tensor  # [b, y, x]
    metres: torch.Tensor  # [b, y, x] above ground
    spread: torch.Tensor  # [b, y, x] mean difference from the truth that is to be expected, metres


class CityScale(nn.Module):
    """`attached`: what the head finds wrong in metres is taught to the backbone, too."""

    def __init__(self, backbone: Any, head: str, start_m: float, attached: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.head_name = head
        self.start_m = FIXED_RANGE_M if head == "fixed" else start_m
        self.attached = attached
        self.head = HEADS[head](backbone.feature_channels, backbone.latent_channels)
        finest = backbone.feature_channels[-1]
        self.spread = nn.Sequential(nn.Conv2d(finest, 32, 1), nn.SiLU(), nn.Conv2d(32, 1, 1))

    def scale_of(self, height_m: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """[b] what a window's heights are divided by."""
        if self.head_name == "fixed":
            return torch.full((len(height_m),), FIXED_RANGE_M, device=height_m.device)
        flat = (height_m * valid).flatten(1)
        rank = max(1, math.ceil(flat.shape[1] * (1 - SCALE_QUANTILE)))
        return flat.topk(rank, dim=1).values[:, -1].clamp(min=LEAST_SCALE_M)

    def forward(self, seen: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> Heights:
        """The picture's latent and a noisy one; at time 1 that is noise alone."""
        denoised = denoise(self.backbone, seen, noisy, time)
        clean, features = denoised.clean, denoised.features
        if not self.attached:
            clean, features = clean.detach(), [level.detach() for level in features]
        relative = self.backbone.decode_relative(clean)
        size = relative.shape[1:]
        log_scale = self.head(features, torch.cat([seen, clean], dim=1)) + math.log(self.start_m)
        metres = relative * torch.exp(_enlarged(log_scale, size))
        return Heights(denoised, relative, metres, self._spread(features[-1].detach(), metres.detach(), size))

    def predict(self, picture: torch.Tensor, noise: torch.Tensor) -> Heights:
        """[b, 3, y, x] in -1..1, sides multiples of `multiple_px`, with noise as large as its latent: one step."""
        heights: Heights = self(self.backbone.encode(picture), noise, torch.ones(len(picture), device=picture.device))
        return heights

    def _spread(self, features: torch.Tensor, metres: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """A share of the height and something beside: an empty field is known better than a roof."""
        said = functional.interpolate(self.spread(features).float(), size=size, mode="bilinear")[:, 0]
        return (torch.exp(said.clamp(-6, 6)) * (0.3 + 0.1 * metres)).clamp(LEAST_SPREAD_M, MOST_SPREAD_M)

    def card(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {
            "kind": KIND,
            "head": self.head_name,
            "attached": self.attached,
            "start_m": self.start_m,
            "multiple_px": self.backbone.multiple_px,
            **self.backbone.card(),
        }


def _enlarged(values: torch.Tensor, size: torch.Size) -> torch.Tensor:
    if values.shape[1:] == (1, 1):
        return values
    return functional.interpolate(values[:, None], size=size, mode="bilinear")[:, 0]


def build(card: Mapping[str, Any]) -> CityScale:
    """The network that a card tells of, with weights yet to be filled in."""
    if card["backbone"] == "small":
        from cityweave.cityscale.small import SmallBackbone

        backbone: Any = SmallBackbone(card["width"], card["vae_width"], card["channels"])
    else:
        from cityweave.cityscale.marigold import MarigoldBackbone

        backbone = MarigoldBackbone.of_card(card)
    return CityScale(backbone, card["head"], card["start_m"], card["attached"])


def load(path: Path) -> tuple[CityScale, dict[str, Any]]:
    """A trained network, ready to predict, and its card."""
    tensors, card = load_tensors(path)
    if card.get("kind") != KIND:
        raise DataError(f"{path} holds weights of {card.get('kind', 'an unknown network')!r}; accepted: {KIND!r}")
    model = build(card)
    fill_model(model, tensors, path)
    return model.eval(), card
