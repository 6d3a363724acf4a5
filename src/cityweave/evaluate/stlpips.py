"""ST-LPIPS: how unlike two pictures look, shifts of a pixel or two forgiven (Ghildyal and Liu 2022). Needs torch.

The distance between features of an AlexNet that doesn't mind shifts. Its weights come with the package
`stlpips-pytorch`, of which nothing but their file is used, read by torch as tensors and nothing else. Not comparable
with figures of plain LPIPS.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn import functional

from cityweave.errors import MissingCapability
from cityweave.evaluate.texture import STLPIPS_PACKAGE as PACKAGE

EXTRA = "metrics"
_WEIGHTS = "weights/vST0.0/alex_shift_tolerant.pth"


class StLpips:
    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._weights = weights

    def to(self, device: str) -> StLpips:
        return StLpips({name: tensor.to(device) for name, tensor in self._weights.items()})

    def __call__(self, ours: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """[b, 3, y, x], black -1 and white 1, to [b]; 0 for equal pictures. Gradients flow to `ours` alone."""
        with torch.no_grad():
            aims = self._features(truth)
        pairs = zip(self._features(ours), aims, strict=True)
        parts = [
            functional.conv2d((a - b) ** 2, self._weights[f"lin{level}.model.1.weight"]).mean(dim=(1, 2, 3))
            for level, (a, b) in enumerate(pairs)
        ]
        return torch.stack(parts).sum(dim=0)

    def _features(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """Of five depths, each of unit length at every place."""
        x = (picture - self._weights["scaling_layer.shift"]) / self._weights["scaling_layer.scale"]
        x = functional.relu(self._halved(self._layer(x, "1.0", 2), "1.1"))
        found = [x]
        x = functional.relu(self._layer(self._halved(functional.max_pool2d(x, 3, 1), "2.4"), "2.5", 2))
        found.append(x)
        x = functional.relu(self._layer(self._halved(functional.max_pool2d(x, 3, 1), "3.8"), "3.9", 1))
        found.append(x)
        for name in ("4.11", "5.13"):
            x = functional.relu(self._layer(x, name, 1))
            found.append(x)
        return [layer / torch.sqrt((layer * layer).sum(dim=1, keepdim=True) + 1e-12) for layer in found]

    def _layer(self, x: torch.Tensor, name: str, padding: int) -> torch.Tensor:
        weight, bias = (self._weights[f"net.slice{name}.{part}"] for part in ("weight", "bias"))
        return functional.conv2d(x, weight, bias, padding=padding)

    def _halved(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Blurred, then every second pixel."""
        kernel = self._weights[f"net.slice{name}.filt"]
        return functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


@cache
def st_lpips() -> StLpips:
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingCapability(
            f"ST-LPIPS needs the weights of {PACKAGE}: make setup EXTRAS={EXTRA}, or pip install 'cityweave[{EXTRA}]'"
        )
    path = Path(found.submodule_search_locations[0]) / _WEIGHTS
    return StLpips(torch.load(path, map_location="cpu", weights_only=True))
