"""The restorer `small`: a residual U-Net that reads a rendered picture and what is known of the surface behind it.

No layer looks at the whole picture, so a pixel doesn't depend on how large the picture is.
"""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cityweave.config import RefineConfig
from cityweave.errors import DataError
from cityweave.io.textures import INFERRED, MAX_COUNT
from cityweave.io.weights import fill_model, load_tensors
from cityweave.texture.restorer import Rendered

KIND = "small_restorer"
WEIGHTS = "restorer.safetensors"
INPUTS = 10
STEP_PX = 16  # sides of what the network reads are multiples of this
_DEPTHS = (1, 2, 3, 4)  # channels of the levels, in widths
_DEPTH_SCALE_M = 50.0
_FIRST_SHARE = 0.2  # of a block's second convolution at first: the network begins as the identity, nearly


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.SiLU()
        with torch.no_grad():
            self.second.weight.mul_(_FIRST_SHARE)
            self.second.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grown: torch.Tensor = self.second(self.act(self.first(self.act(x))))
        return x + grown


class SmallRestorer(nn.Module):
    """[b, 10, y, x] of `inputs_of` to [b, 3, y, x] colours, black -1 and white 1; y and x are multiples of 16.

    It works at half the resolution, where a picture costs a quarter. Untrained it returns the picture.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [width * depth for depth in _DEPTHS]
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * INPUTS, width, 3, padding=1))
        self.encode = nn.ModuleList(_Block(size) for size in sizes)
        self.halve = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(sizes))
        self.grow = nn.ModuleList(nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2)) for a, b in pairwise(sizes))
        self.decode = nn.ModuleList(_Block(size) for size in sizes[:-1])
        added = nn.Conv2d(width, 12, 3, padding=1)
        for start in added.parameters():
            nn.init.zeros_(start)
        self.head = nn.Sequential(added, nn.PixelShuffle(2))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        x = self.stem(picture)
        kept = []
        for level, block in enumerate(self.encode):
            x = block(x if level == 0 else self.halve[level - 1](x))
            kept.append(x)
        for level in reversed(range(len(self.decode))):
            x = self.decode[level](self.grow[level](x) + kept[level])
        added: torch.Tensor = self.head(x)
        return picture[:, :3] + added


def inputs_of(picture: Rendered) -> np.ndarray:
    """(10, h, w) float32: colours, what is drawn, how many views saw it, what is inferred, normal, depth."""
    drawn = picture.drawn.astype(np.float32)
    seen = (picture.provenance > 0) & (picture.provenance <= MAX_COUNT)
    views = np.where(seen, np.log2(picture.provenance.astype(np.float32) + 1) / 3, 0)
    colours = (picture.rgb.astype(np.float32) / 127.5 - 1) * drawn[..., None]
    beyond = np.where(picture.drawn, picture.beyond_m, 0) / _DEPTH_SCALE_M
    layers = [
        drawn,
        views,
        picture.provenance == INFERRED,
        *np.moveaxis(picture.normal * drawn[..., None], 2, 0),
        beyond,
    ]
    return np.concatenate([np.moveaxis(colours, 2, 0), np.stack(layers)]).astype(np.float32)


class _Opened:
    def __init__(self, model: SmallRestorer, device: str) -> None:
        self._model = model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def restore(self, picture: Rendered) -> np.ndarray:
        layers = torch.from_numpy(inputs_of(picture)).to(self._device)
        rows, cols = layers.shape[1:]
        padded = nn.functional.pad(layers[None], (0, -cols % STEP_PX, 0, -rows % STEP_PX))
        colours = self._model(padded)[0, :, :rows, :cols].clamp(-1, 1)
        return ((colours + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def load_small(path: Path) -> tuple[SmallRestorer, dict[str, Any]]:
    tensors, card = load_tensors(path)
    if card.get("kind") != KIND:
        raise DataError(f"{path} holds weights of {card.get('kind', 'an unknown network')!r}; accepted: {KIND!r}")
    model = SmallRestorer(card["width"])
    fill_model(model, tensors, path)
    return model, card


def opened(refine: RefineConfig, device: str) -> _Opened:
    """Ours where no file is named. Sums are taken on one thread of a CPU: more would change the last bits."""
    if device == "cpu":
        torch.set_num_threads(1)
    if refine.weights is not None:
        return _Opened(load_small(refine.weights)[0], device)
    with resources.as_file(resources.files("cityweave.texture").joinpath(WEIGHTS)) as path:
        return _Opened(load_small(path)[0], device)
