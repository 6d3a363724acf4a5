"""Predictions of a tile's windows: a Zarr group with `metres` and `sigma`, both (window, y, x), and their places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityweave.io import cf
from cityweave.lattice import Window


@dataclass(frozen=True)
class Prediction:
    window: Window
    metres: np.ndarray  # (y, x) above ground, NaN where the picture shows nothing
    sigma: np.ndarray


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    import zarr

    lattice: dict[str, Any] = {"places": [[each.window.i, each.window.j] for each in predictions]}
    if predictions:
        lattice |= {"size_px": predictions[0].window.size_px, "gsd_m": predictions[0].window.gsd_m}
    root = zarr.create_group(path, attributes=lattice)
    for name in ("metres", "sigma"):
        if predictions:
            layers = np.stack([getattr(each, name) for each in predictions]).astype(np.float32)
            cf.write_array(root, name, layers, ("window", "y", "x"), {"units": "m"}, fill_value=np.nan)


def read_predictions(path: Path) -> list[Prediction]:
    import zarr

    root: Any = zarr.open_group(path, mode="r")
    places = root.attrs["places"]
    layers = [root[name][:] for name in ("metres", "sigma")] if places else []
    return [
        Prediction(Window(i, j, root.attrs["size_px"], root.attrs["gsd_m"]), *(each[number] for each in layers))
        for number, (i, j) in enumerate(places)
    ]
