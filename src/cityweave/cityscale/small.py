"""The backbone `small`: an autoencoder to a quarter of the side, and a U-Net of its latents. Both are trained by us."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cityweave.cityscale.weights import SMALL_DESIGN

KIND = "small"
DEPTHS = (1, 2, 3, 4)  # channels of the U-Net's levels, in widths
REACHES = (1, 2, 4)  # of the kernels at the coarsest level, in its cells of 16 m: a tower's shadow is 200 m long
TIME_CHANNELS = 64


def _groups(channels: int) -> int:
    return next(n for n in (8, 4, 2, 1) if channels % n == 0)


class _Block(nn.Module):
    """Two convolutions beside a way around them; a time, if there is one, shifts and stretches between them."""

    def __init__(self, inputs: int, outputs: int, time: int = 0, reach: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=reach, dilation=reach)
        self.norm = nn.GroupNorm(_groups(outputs), outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=reach, dilation=reach)
        self.time = nn.Linear(time, 2 * outputs) if time else None
        self.around = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        y = self.norm(self.first(functional.silu(x)))
        if self.time is not None:
            stretch, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + stretch) + shift
        summed: torch.Tensor = self.around(x) + self.second(functional.silu(y))
        return summed


class Autoencoder(nn.Module):
    """[b, 3, y, x] in -1..1 to the mean and log variance of [b, channels, y/4, x/4], and back."""

    def __init__(self, width: int = 32, channels: int = 8) -> None:
        super().__init__()
        wide = 2 * width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            _Block(width, width),
            nn.Conv2d(width, wide, 2, stride=2),
            _Block(wide, wide),
            nn.Conv2d(wide, 2 * channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, wide, 3, padding=1),
            _Block(wide, wide),
            nn.Conv2d(wide, 4 * width, 1),
            nn.PixelShuffle(2),
            _Block(width, width),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encoder(picture).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        picture: torch.Tensor = self.decoder(latent)
        return picture


class LatentUNet(nn.Module):
    """The picture's latent beside a noisy one, and a time, to a velocity and the decoder's features."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        sizes = [width * depth for depth in DEPTHS]
        wide = TIME_CHANNELS
        self.time = nn.Sequential(nn.Linear(TIME_CHANNELS, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        self.stem = nn.Conv2d(2 * channels, sizes[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(size, size, wide) for size in sizes)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(sizes))
        self.far = nn.ModuleList(_Far(sizes[-1]) for _ in REACHES)
        self.middle = nn.ModuleList(_Block(sizes[-1], sizes[-1], wide, reach) for reach in REACHES)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(_Block(2 * size, size, wide) for size in sizes[:-1])
        self.out = nn.Conv2d(sizes[0], channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, seen: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        at = self.time(_waves(time))
        x = self.stem(torch.cat([seen, noisy], dim=1))
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.shrink[level - 1](x), at)
            kept.append(x)
        for far, block in zip(self.far, self.middle, strict=True):
            x = block(far(x), at)
        features = [x]
        for level in reversed(range(len(self.up))):
            grown = functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([grown, kept[level]], dim=1), at)
            features.append(x)
        return self.out(functional.silu(x)), features


class _Far(nn.Module):
    """What is told from afar: every cell of the coarsest level attends to all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_groups(channels), channels)
        self.ask = nn.Conv2d(channels, 3 * channels, 1)
        self.answer = nn.Conv2d(channels, channels, 1)
        self.heads = max(1, channels // 32)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, rows, cols = x.shape
        parts = self.ask(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, rows * cols).transpose(3, 4)
        query, key, value = parts.unbind(dim=1)
        weight = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]), dim=-1)
        mixed = (weight @ value).transpose(2, 3).reshape(b, c, rows, cols)
        summed: torch.Tensor = x + self.answer(mixed)
        return summed


def _waves(time: torch.Tensor) -> torch.Tensor:
    steps = torch.arange(TIME_CHANNELS // 2, device=time.device, dtype=torch.float32)
    phase = 1000 * time[:, None] * torch.exp(-math.log(10_000) * steps / (TIME_CHANNELS // 2))
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class SmallBackbone(nn.Module):
    latent_px, multiple_px = 4, 32

    def __init__(self, width: int = 48, vae_width: int = 32, channels: int = 8) -> None:
        super().__init__()
        self.vae = Autoencoder(vae_width, channels).requires_grad_(False)
        self.unet = LatentUNet(width, channels)
        self.latent_channels = channels
        self.feature_channels = tuple(width * depth for depth in reversed(DEPTHS))
        self._sizes = {"width": width, "vae_width": vae_width, "channels": channels}

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(picture)[0]

    def encode_relative(self, relative: torch.Tensor) -> torch.Tensor:
        """As roots: what is low keeps its detail beside what is high."""
        return self.encode(as_picture(relative))

    def decode_relative(self, latent: torch.Tensor) -> torch.Tensor:
        return from_picture(self.vae.decode(latent).float())

    def legs(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cos(time * (math.pi / 2)), torch.sin(time * (math.pi / 2))

    def velocity(
        self, seen: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        said: tuple[torch.Tensor, list[torch.Tensor]] = self.unet(seen, noisy, time)
        return said

    def frozen(self) -> nn.Module:
        return self.vae

    def card(self) -> dict[str, Any]:
        return {"backbone": KIND, "design": SMALL_DESIGN, **self._sizes}


def as_picture(relative: torch.Tensor) -> torch.Tensor:
    """[b, y, x] relative heights as a grey picture in -1..1."""
    grey = 2 * relative.clamp(min=0).sqrt() - 1
    return grey[:, None].expand(-1, 3, -1, -1)


def from_picture(picture: torch.Tensor) -> torch.Tensor:
    root = (picture.mean(dim=1) + 1) / 2
    return root.clamp(min=0) ** 2
