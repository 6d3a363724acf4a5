"""From a backbone's features to the logarithm of the scale: metres = exp(head) x relative height.

Three families: `mlp*` say one scale for a window, `fpn*` and `bins*` one for every pixel. Their last layers are zero at
first, so that an untrained head says the scale that it starts from, and nothing else, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

BINS = 32
LOG_REACH = 3.0  # bins lie within this of the starting scale's logarithm, both ways


def _silent(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _pooled(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class _OneNumber(nn.Module):
    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.LayerNorm(inputs)]
        for a, b in pairwise([inputs, *hidden]):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers, _silent(nn.Linear(hidden[-1], 1)))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        number: torch.Tensor = self.layers(pooled.float())
        return number[:, :, None]  # [b, 1, 1]: of the whole window


class MlpCoarse(nn.Module):
    """The coarsest level, pooled."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.number = _OneNumber(2 * channels[0], [64])

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        return self.number(_pooled(features[0]))


class MlpLatent(nn.Module):
    """Latents of picture and heights alone, no features: what is said without looking into the network."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.number = _OneNumber(4 * latent, [64, 64])

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        return self.number(_pooled(latents))


class MlpLevels(nn.Module):
    """All levels, pooled each."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.number = _OneNumber(2 * sum(channels), [128, 64])

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        return self.number(torch.cat([_pooled(level) for level in features], dim=1))


class _Fused(nn.Module):
    """Levels brought to one width and added from coarse to fine."""

    def __init__(self, channels: Sequence[int], width: int, weighed: bool = False) -> None:
        super().__init__()
        self.across = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels[1:])
        self.gates = nn.ModuleList(nn.Conv2d(2 * width, 1, 1) for _ in channels[1:]) if weighed else None

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        levels = [functional.silu(self.across[0](features[0]))]
        for number, finer in enumerate(features[1:]):
            own = self.across[number + 1](finer)
            grown = functional.interpolate(levels[-1], size=own.shape[2:], mode="nearest")
            if self.gates is not None:
                gate = torch.sigmoid(self.gates[number](torch.cat([own, grown], dim=1)))
                own, grown = 2 * gate * own, 2 * (1 - gate) * grown
            levels.append(functional.silu(self.smooth[number](own + grown)))
        return levels


class Fpn(nn.Module):
    """A feature pyramid over the decoder's levels; a scale for every cell of the finest."""

    def __init__(self, channels: Sequence[int], latent: int, width: int = 32, weighed: bool = False) -> None:
        super().__init__()
        self.fused = _Fused(channels, width, weighed)
        self.last = _silent(nn.Conv2d(width, 1, 1))

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.last(self.fused(features)[-1])
        return said.float()[:, 0]


class FpnWeighed(Fpn):
    """The same, where each cell weighs what its own level says against what comes from the coarser one."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__(channels, latent, weighed=True)


class Bins(nn.Module):
    """A window's own bins of scale, and for every cell how likely each is; the scale is their mean (as in ZoeDepth)."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.fused = _Fused(channels, 32)
        self.centres = nn.Sequential(
            nn.LayerNorm(2 * channels[0]), nn.Linear(2 * channels[0], 64), nn.SiLU(), _silent(nn.Linear(64, BINS))
        )
        self.chances = _silent(nn.Conv2d(32, BINS, 1))

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        moved = self.centres(_pooled(features[0]).float())
        return _mean_of_bins(self.chances(self.fused(features)[-1]), _spread_bins(moved)[:, :, None, None])


class BinsAttracted(nn.Module):
    """Every cell has bins of its own, which finer and finer levels pull towards what they see."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.fused = _Fused(channels, 32)
        self.start = _silent(nn.Conv2d(32, BINS, 1))
        self.attractors = nn.ModuleList(_silent(nn.Conv2d(32, 4, 1)) for _ in channels[1:])
        self.chances = _silent(nn.Conv2d(32, BINS, 1))

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        levels = self.fused(features)
        centres = _spread_bins(self.start(levels[0]).float())
        for layer, level in zip(self.attractors, levels[1:], strict=True):
            centres = functional.interpolate(centres, size=level.shape[2:], mode="nearest")
            points = LOG_REACH * torch.tanh(layer(level).float())
            for point in points.split(1, dim=1):
                away = point - centres
                centres = centres + away / (1 + 10 * away**2) / points.shape[1]
        return _mean_of_bins(self.chances(levels[-1]), centres)


def _spread_bins(moved: torch.Tensor) -> torch.Tensor:
    """[b, bins, ...] any numbers to rising centres about 0."""
    centres = torch.cumsum(torch.softmax(moved.float(), dim=1), dim=1)
    half = 0.5 / BINS
    return LOG_REACH * (2 * (centres - half) - 1)


def _mean_of_bins(chances: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return (torch.softmax(chances.float(), dim=1) * centres).sum(dim=1)


class NoHead(nn.Module):
    """For heights in a fixed range of metres: there is nothing to add."""

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()

    def forward(self, features: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(latents), 1, 1, device=latents.device)


HEADS: dict[str, Callable[[Sequence[int], int], nn.Module]] = {
    "mlp_latent": MlpLatent,
    "mlp_coarse": MlpCoarse,
    "mlp_levels": MlpLevels,
    "fpn": Fpn,
    "fpn_weighed": FpnWeighed,
    "bins": Bins,
    "bins_attracted": BinsAttracted,
    "fixed": NoHead,
}
