"""What makes a rendered picture of the city look like a photograph of it, behind one interface.

`small` is a compact network of ours, shipped with its weights; `flux` a large published one, which the user brings.
The same picture gives the same picture.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from cityweave.cameras import Pinhole
from cityweave.config import RefineConfig
from cityweave.errors import MissingCapability
from cityweave.render.textured import Frame

# Of each restorer: the module that has it, what it needs to be installed, and the extra that brings that.
RESTORERS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "none": ("cityweave.texture.restorer", (), ""),
    "small": ("cityweave.texture.restorer_small", ("torch", "safetensors"), "models"),
    "flux": ("cityweave.texture.restorer_flux", ("torch", "safetensors", "diffusers"), "pipelines"),
}


@dataclass(frozen=True)
class Rendered:
    """A picture of the textured city, and what is known of each of its pixels; all [h, w]."""

    rgb: np.ndarray  # uint8 [h, w, 3]
    drawn: np.ndarray  # bool, the city is there
    provenance: np.ndarray  # uint8, as textures have it
    normal: np.ndarray  # float32 [h, w, 3] of the face, in the camera's frame: x right, y down, z forward
    beyond_m: np.ndarray  # float32, along the axis, from the point aimed at; anything where nothing is drawn

    @staticmethod
    def of(frame: Frame, camera: Pinhole, away_m: float) -> Rendered:
        """`away_m`: how far the point that is aimed at lies from the camera."""
        depth = frame.centre(frame.depth)
        drawn = np.isfinite(depth)
        normal = frame.centre(frame.normal) @ camera.rotation.T.astype(np.float32)
        beyond_m = np.where(drawn, depth - np.float32(away_m), np.float32(0))
        return Rendered(frame.averaged(), drawn, frame.centre(frame.provenance), normal, beyond_m)


class Restorer(Protocol):
    def restore(self, picture: Rendered) -> np.ndarray:
        """uint8 [h, w, 3]; what isn't drawn may hold anything."""


def require_restorer(refine: RefineConfig) -> None:
    """Refuse a restorer that this machine can't run."""
    if not refine.rounds:
        return
    _, needed, extra = RESTORERS[refine.restorer]
    if missing := [name for name in needed if find_spec(name) is None]:
        raise MissingCapability(
            f"texture.refine.restorer is {refine.restorer}, which needs {' and '.join(missing)}: make setup "
            f"EXTRAS={extra}, or pip install 'cityweave[{extra}]'; accepted without it: texture.refine.rounds: 0"
        )
    if refine.weights is not None and not refine.weights.exists():
        raise MissingCapability(
            f"texture.refine.weights: {refine.weights} are not there; accepted: a file that cityweave train restorer "
            "wrote, or no such key for the weights that come with cityweave"
        )
    if refine.restorer == "flux":
        importlib.import_module(RESTORERS["flux"][0]).base_folder(refine.model)


def open_restorer(refine: RefineConfig, device: str) -> Restorer:
    """Its weights are read and checked now."""
    require_restorer(refine)
    module = importlib.import_module(RESTORERS[refine.restorer][0])
    restorer: Restorer = module.opened(refine, device)
    return restorer


class _AsRendered:
    def restore(self, picture: Rendered) -> np.ndarray:
        return picture.rgb


def opened(_: RefineConfig, __: str) -> Restorer:
    """The one that does nothing."""
    return _AsRendered()
