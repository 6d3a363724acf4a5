"""How far the closed-form start and its steps are ahead of Adam: python bench/texture_start.py RUN TILE

Both see the same pixels of the same views through the same compiled weights, with the same worth of each pixel, and
are scored by the published loss on them, 0.8 MSE + 0.2 (1 - SSIM). Adam starts from grey, as published, takes a step
per view, and is run at three rates, of which the best counts; its gradient of SSIM comes from torch. Times are those
of one core, looking up which view sees what left out for both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cityweave.grid import parse_tile
from cityweave.manifest import Run
from cityweave.texture.fuse import fuse
from cityweave.texture.job import scene_of
from cityweave.texture.sharpen import COVERED, SharpenSettings, ViewPixels, sharpen, worth_of
from cityweave.texture.views import look, prepare

RATES = (0.003, 0.01, 0.03)
STEPS = (0, 1, 2, 3, 4, 6, 8, 12)


def blurred(image: torch.Tensor) -> torch.Tensor:
    offset = torch.arange(-5, 6, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / 1.5) ** 2)
    kernel = (kernel / kernel.sum()).repeat(3, 1)
    image = torch.nn.functional.pad(image, (5, 5, 5, 5), mode="reflect")
    image = torch.nn.functional.conv2d(image, kernel[:, None, None, :], groups=3)
    return torch.nn.functional.conv2d(image, kernel[:, None, :, None], groups=3)


class Target:
    """A view's picture, 0..1, and what is made of it once."""

    def __init__(self, view: ViewPixels, start: np.ndarray, floor: float) -> None:
        shown, cover = view.shown(start)
        self.view = view
        self.scale = np.maximum(cover, COVERED)[:, :, None]
        self.weight = torch.from_numpy(worth_of(view, shown, cover, floor))[None, None]
        self.picture = torch.from_numpy(view.picture / 255).permute(2, 0, 1)[None]
        self.mean = blurred(self.picture)
        self.variance = blurred(self.picture**2) - self.mean**2

    def loss(self, texels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the picture it is of as a leaf of the graph."""
        shown, cover = self.view.shown(texels)
        known = torch.from_numpy(cover > COVERED)[None, None]
        picture = torch.from_numpy(shown).permute(2, 0, 1)[None].requires_grad_()
        ours = torch.where(known, picture, self.picture)
        total = self.weight.sum()
        square = (self.weight * (ours - self.picture) ** 2).sum() / (3 * total)
        mean = blurred(ours)
        variance = blurred(ours**2) - mean**2
        both = blurred(ours * self.picture) - mean * self.mean
        top = (2 * mean * self.mean + 1e-4) * (2 * both + 9e-4)
        like = top / ((mean**2 + self.mean**2 + 1e-4) * (variance + self.variance + 9e-4))
        return 0.8 * square + 0.2 * (1 - (self.weight * like).sum() / (3 * total)), picture

    def gradient(self, texels: np.ndarray) -> np.ndarray:
        loss, picture = self.loss(texels)
        loss.backward()
        assert picture.grad is not None
        per_pixel = picture.grad[0].permute(1, 2, 0).numpy() / self.scale
        out = np.zeros((len(texels), 4), np.float32)
        self.view.gathered(np.concatenate([per_pixel, np.zeros_like(per_pixel[:, :, :1])], axis=2), out)
        return out[:, :3]


def adam(targets: list[Target], texels: int, rate: float, epochs: int) -> np.ndarray:
    now = np.full((texels, 3), 0.5, np.float32)
    first, second, step = np.zeros_like(now), np.zeros_like(now), 0
    for _ in range(epochs):
        for target in targets:
            step += 1
            slope = target.gradient(now)
            first += 0.1 * (slope - first)
            second += 0.001 * (slope * slope - second)
            now -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return now


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("tile")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--prior", type=float, default=0.01, help="config texture.prior_px; the loss knows no prior")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(chosen.run.resolve())
    config = run.config.texture
    scene = scene_of(run, parse_tile(chosen.tile, run.config.tiles.size_m, run.config.tiles.shift_m))
    views = [prepare(view, scene.own, scene.occluders, scene.visibility) for view in scene.views]
    prepared = [view for view in views if view is not None]
    bands = scene.atlas.bands[:2]
    chart = [np.flatnonzero(band.face >= 0) for band in bands]
    points = np.concatenate([band.points(texel) for band, texel in zip(bands, chart, strict=True)])
    normals = np.concatenate([band.normals(texel) for band, texel in zip(bands, chart, strict=True)])
    area = np.concatenate([band.texel_m2(texel) for band, texel in zip(bands, chart, strict=True)])
    colour = np.zeros((len(points), len(prepared), 3), np.float32)
    weight = np.zeros((len(points), len(prepared)), np.float32)
    for number, view in enumerate(prepared):
        one, worth = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.float32)
        look(view, points, normals, 0.0, scene.visibility, one, worth)
        colour[:, number], weight[:, number] = one, worth
    pixels = [
        ViewPixels.of(view, points, normals, area, weight[:, number] > 0, config.blur_px)
        for number, view in enumerate(prepared)
    ]
    start, count = np.full((len(points), 3), 127.5, np.float32), np.zeros(len(points), np.int64)
    lead = np.zeros(len(points), np.int16)

    def fused() -> np.ndarray:
        fuse(colour, weight, config.robust_floor, start, count, lead)
        return start

    for _ in range(2):  # the first loads compiled code
        _, seconds = timed(fused)
    targets = [Target(view, start, config.robust_floor) for view in pixels]

    def score(texels: np.ndarray) -> float:
        with torch.no_grad():
            return float(np.mean([float(target.loss(texels)[0]) for target in targets]))

    print(f"{len(points)} texels, {len(prepared)} views\n\n| | loss | seconds |\n|---|---|---|")
    for steps in STEPS:
        taken = SharpenSettings(steps, config.blur_px, chosen.prior, config.robust_floor)
        sharp, more = timed(lambda taken=taken: sharpen(start, pixels, taken))  # type: ignore[misc]
        print(f"| closed form, {steps} steps | {score(sharp / 255):.5f} | {seconds + more:.2f} |", flush=True)
    for rate in RATES:
        found, seconds = timed(lambda rate=rate: adam(targets, len(points), rate, chosen.epochs))  # type: ignore[misc]
        print(f"| Adam, {chosen.epochs} epochs at {rate:g} | {score(found):.5f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
