"""A small plain U-Net from RGB to height above ground."""

from __future__ import annotations

import math

import torch
from torch import nn

MAX_LOG_HEIGHT = math.log1p(600.0)
DEPTHS = (1, 2, 3, 4)  # channels of the levels, in widths
REACHES = (2, 4)  # of further kernels at the coarsest level, in its cells: shadows are long
GAIN = 10.0  # of the last layer: logarithms reach to 6, weights grow slowly


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, convolutions: int, reach: int = 1) -> None:
        layers: list[nn.Module] = []
        for number in range(convolutions):
            kernel = nn.Conv2d(inputs if number == 0 else outputs, outputs, 3, padding=reach, dilation=reach)
            layers += [kernel, nn.GroupNorm(_groups(outputs), outputs), nn.SiLU()]
        super().__init__(*layers)


def _groups(channels: int) -> int:
    return next(n for n in (8, 4, 2, 1) if channels % n == 0)


class HeightUNet(nn.Module):
    """[b, 3, y, x] colours about 0 to [b, y, x] metres above ground; y and x are multiples of 8 x `fold`.

    The network says log(1 + height), from `start_m` on: its last layer is zero at first, so an untrained network says
    `start_m` everywhere. It works at 1/`fold` of the resolution: with 2 a window costs a quarter.
    """

    def __init__(self, width: int = 20, start_m: float = 4.0, fold: int = 2) -> None:
        super().__init__()
        self.start = math.log1p(start_m)
        sizes = [width * depth for depth in DEPTHS]
        self.stem = nn.Sequential(nn.PixelUnshuffle(fold), nn.Conv2d(3 * fold**2, sizes[0], 3, padding=1))
        self.down = nn.ModuleList(_Block(sizes[max(0, level - 1)], size, 2) for level, size in enumerate(sizes))
        self.far = nn.ModuleList(_Block(sizes[-1], sizes[-1], 1, reach) for reach in REACHES)
        self.up = nn.ModuleList(
            _Block(sizes[level + 1] + sizes[level], sizes[level], 1) for level in reversed(range(len(sizes) - 1))
        )
        self.pool = nn.AvgPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(sizes[0], fold**2, 1)
        self.full = nn.PixelShuffle(fold)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        x = self.stem(rgb)
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            kept.append(x)
        for block in self.far:
            x = x + block(x)
        for block, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([self.grow(x), skip], dim=1))
        log_height = GAIN * self.full(self.head(x)).squeeze(1).float() + self.start
        return torch.expm1(log_height.clamp(-1.0, MAX_LOG_HEIGHT))
