"""How our textured city looks from cameras that no stage has seen, against what is really there."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.cameras import Pinhole
from cityweave.evaluate.images import psnr, sharpness, ssim
from cityweave.grid import Box
from cityweave.io.textures import MAX_COUNT
from cityweave.render.textured import NO_TILE, Frame, fragments_of

MIN_SCORED = 0.5  # a view that sees less of the core says more about the surroundings
MIN_SCORED_STREET = 0.25  # the sky takes its part
STREET_FIGURES = ("psnr", "ssim", "st_lpips", "sharpness", "true_sharpness", "observed_share")
PLAN_PIXEL_M = 0.5  # of the view from above in which borders are looked for
STLPIPS_PACKAGE = "stlpips_pytorch"
_INSIDE_M = 16.0  # how far from a border the steps lie that a step across it is compared with


def core_mask(view: Pinhole, points: NDArray[np.float64], faces: NDArray[np.int32], core: Box) -> NDArray[np.bool_]:
    """Pixels whose ray first hits the true mesh inside the core; everything in the camera's frame."""
    fragments, _ = fragments_of(points, faces, view, 1)
    where = fragments.interpolate(faces, points[:, :2])
    x, y = where[..., 0], where[..., 1]
    with np.errstate(invalid="ignore"):
        return (x >= core.xmin) & (x < core.xmax) & (y >= core.ymin) & (y < core.ymax)  # type: ignore[no-any-return]


def _unlike(ours: NDArray[Any], truth: NDArray[Any], scored: NDArray[np.bool_]) -> list[float]:
    """ST-LPIPS of two pictures in 0..1, black where nothing is scored; none where its weights aren't installed."""
    if find_spec(STLPIPS_PACKAGE) is None:
        return []
    import torch

    from cityweave.evaluate.stlpips import st_lpips

    torch.set_num_threads(1)  # sums of several would change the last bits
    tensors = [
        torch.from_numpy((np.moveaxis(picture * 2 - 1, 2, 0) * scored).astype(np.float32))[None]
        for picture in (ours, truth)
    ]
    with torch.no_grad():  # not inference mode: the weights are kept, and training may want them next
        return [float(st_lpips()(*tensors))]


@dataclass
class TextureScore:
    """Means over views; each view counts once."""

    psnrs: list[float] = field(default_factory=list)
    ssims: list[float] = field(default_factory=list)
    sharp: list[float] = field(default_factory=list)
    true_sharp: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    scored: int = 0
    observed: int = 0
    left_out: list[str] = field(default_factory=list)
    least_scored: float = MIN_SCORED

    def add(self, name: str, frame: Frame, truth: NDArray[np.uint8], scored: NDArray[np.bool_]) -> bool:
        """False when the view sees too little of the core to be used."""
        share = float(scored.mean())
        if share < self.least_scored:
            self.left_out.append(name)
            return False
        ours, target = frame.averaged().astype(np.float32) / 255, truth.astype(np.float32) / 255
        # Identical pictures would have an infinite PSNR; 8 bits can't show an error under 1/512.
        self.psnrs.append(min(psnr(ours, target, scored), 20 * np.log10(512.0)))
        self.ssims.append(ssim(ours, target, scored))
        self.sharp.append(sharpness(ours, scored))
        self.true_sharp.append(sharpness(target, scored))
        self.looks.extend(_unlike(ours, target, scored))
        self.shares.append(share)
        provenance = frame.centre(frame.provenance)
        seen = frame.centre(frame.tile) != NO_TILE
        self.scored += int(scored.sum())
        self.observed += int((scored & seen & (provenance >= 1) & (provenance <= MAX_COUNT)).sum())
        return True

    def figures(self) -> tuple[dict[str, float | None], dict[str, str]]:
        names = ("psnr", "ssim", "st_lpips", "sharpness", "true_sharpness", "scored_share", "observed_share")
        if not self.psnrs:
            n = len(self.left_out)
            reason = (
                f"none of {n} views has {self.least_scored:.0%} of its pixels in the core"
                if n
                else "there are no unseen views"
            )
            return dict.fromkeys(names), dict.fromkeys(names, reason)
        return {
            "psnr": float(np.mean(self.psnrs)),
            "ssim": float(np.mean(self.ssims)),
            "st_lpips": float(np.mean(self.looks)) if self.looks else None,
            "sharpness": float(np.mean(self.sharp)),
            "true_sharpness": float(np.mean(self.true_sharp)),
            "scored_share": float(np.mean(self.shares)),
            "observed_share": self.observed / self.scored,
        }, {} if self.looks else {"st_lpips": "stlpips-pytorch is not installed: make setup EXTRAS=metrics"}


def seam_step(plan: Frame) -> float | None:
    """Mean colour step across tile borders over the mean step beside them (within 16 m), seen from above.

    1 means that borders can't be told from what surrounds them. None for a single tile. `plan` has one sample a
    pixel; a border is where neighbouring pixels belong to different tiles.
    """
    rgb, tile = plan.rgb.astype(np.int16), plan.tile
    across_sum = across_count = beside_sum = beside_count = 0
    from scipy.ndimage import maximum_filter1d

    for axis in (0, 1):
        step = np.abs(np.diff(rgb, axis=axis)).sum(axis=2)
        first = tile[:-1] if axis == 0 else tile[:, :-1]
        second = tile[1:] if axis == 0 else tile[:, 1:]
        drawn = (first != NO_TILE) & (second != NO_TILE)
        border = drawn & (first != second)
        reach = max(1, round(_INSIDE_M / PLAN_PIXEL_M))
        around = maximum_filter1d(border.view(np.uint8), 2 * reach + 1, axis=axis, mode="constant") > 0
        beside = around & drawn & ~border
        across_sum += int(step[border].sum())
        across_count += int(border.sum())
        beside_sum += int(step[beside].sum())
        beside_count += int(beside.sum())
    if not across_count or not beside_sum:
        return None
    return (across_sum / across_count) / (beside_sum / beside_count)
