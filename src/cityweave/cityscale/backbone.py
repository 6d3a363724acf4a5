"""What every backbone is: an autoencoder that stays as it is, and a denoiser of latents that is trained.

Latents of relative heights are mixed with noise: at time 1 there is noise alone, and one step from there predicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Denoised:
    velocity: torch.Tensor  # [b, c, y, x] what the network says, where clean and noise are legs of a right angle
    clean: torch.Tensor  # [b, c, y, x] the latent without noise that follows
    features: list[torch.Tensor]  # of the decoder's levels, coarse to fine; the last is as large as the latent


class Backbone(Protocol):
    latent_px: int  # side of a latent's cell
    multiple_px: int  # of which the sides of a picture are multiples
    latent_channels: int
    feature_channels: tuple[int, ...]  # of the decoder's levels, coarse to fine

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """[b, 3, y, x], black -1 and white 1, to [b, c, y / latent_px, x / latent_px]."""

    def encode_relative(self, relative: torch.Tensor) -> torch.Tensor:
        """[b, y, x], ground 0 and about 1 the highest, to a latent."""

    def decode_relative(self, latent: torch.Tensor) -> torch.Tensor:
        """The way back; differentiable."""

    def legs(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[b] times in 0..1 to the shares of clean latent and of noise, whose squares add up to 1."""

    def velocity(
        self, seen: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the network says of a noisy latent beside the picture's, and the features on the way."""

    def frozen(self) -> nn.Module:
        """The part that is never trained here."""

    def card(self) -> dict[str, Any]:
        """What it takes to build it again."""


def noised(
    backbone: Backbone, clean: torch.Tensor, noise: torch.Tensor, time: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The latent at a time between both ends, and the velocity there."""
    a, s = (leg[:, None, None, None] for leg in backbone.legs(time))
    return a * clean + s * noise, a * noise - s * clean


def denoise(backbone: Backbone, seen: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> Denoised:
    velocity, features = backbone.velocity(seen, noisy, time)
    velocity = velocity.float()
    a, s = (leg[:, None, None, None] for leg in backbone.legs(time))
    return Denoised(velocity, a * noisy - s * velocity, features)
