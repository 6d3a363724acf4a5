"""A trained network as the workflow uses it: a window's picture in, metres and their standard deviation out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cityweave.cityscale.model import CityScale, load
from cityweave.cityscale.weights import ANYWHERE, SHIPPED


@dataclass(frozen=True)
class Predictor:
    model: CityScale
    gsd_m: float
    sun: str  # where it stood in all pictures that the network knows
    device: str

    def heights(
        self, picture: np.ndarray, noise_of: Callable[[int, tuple[int, ...]], np.ndarray], samples: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """[3, y, x] colours in -1..1 to metres above ground and their standard deviation, each [y, x].

        `noise_of` draws the noise of a sample. Several samples are averaged; what they differ by counts as error.
        """
        backbone = self.model.backbone
        rows, cols = (side // backbone.latent_px for side in picture.shape[1:])
        said = torch.from_numpy(picture)[None].to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            seen = backbone.encode(said)
            each = []
            for sample in range(samples):
                noise = torch.from_numpy(noise_of(sample, (1, backbone.latent_channels, rows, cols))).to(self.device)
                each.append(self.model(seen, noise, torch.ones(1, device=self.device)))
            metres = torch.stack([heights.metres[0] for heights in each])
            # Of a Laplace distribution with that mean difference.
            variance = 2 * torch.stack([heights.spread[0] for heights in each]).mean(dim=0) ** 2
            if samples > 1:
                variance = variance + metres.var(dim=0, correction=0)
            return metres.mean(dim=0).cpu().numpy(), variance.sqrt().cpu().numpy()


def open_predictor(weights: Path | None, device: str) -> Predictor:
    """One thread on a CPU: sums depend on it."""
    if device == "cpu":
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode("error")
    else:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    model, card = load(weights or SHIPPED)
    laid_out = model.to(device, memory_format=torch.channels_last)
    return Predictor(laid_out, float(card["gsd_m"]), card.get("sun", ANYWHERE), device)
