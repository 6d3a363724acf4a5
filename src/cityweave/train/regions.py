"""How well trained networks do in cities of several regions, beside answers that need none.

Cities are predicted as the workflow predicts them: windows that overlap by half, each from noise of its own, blended.
A region is scored over all its cities' cells together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from cityweave.cityscale.shadows import Sun, shadow_factors
from cityweave.config import Section
from cityweave.io.resample import continued
from cityweave.lattice import Window, counting
from cityweave.manifest import write_json
from cityweave.plots import Panel, Series, panels
from cityweave.train.cities import City, sources_of
from cityweave.train.recipe import Cities
from cityweave.train.settings import read_yaml, validated

BANDS_M = (-np.inf, 2.0, 10.0, 25.0, 60.0, np.inf)  # of true height
TALL_M = 60.0
_CURVE_M = (*range(0, 30, 3), *range(30, 60, 6), *range(60, 241, 20))
Predict = Callable[[np.ndarray, Window], tuple[np.ndarray, np.ndarray]]


class Regions(Section):
    gsd_m: float = Field(0.5, gt=0, description="cell of pictures and heights")
    window_m: float = Field(256.0, gt=0, description="side of a window, at most; a smaller city takes a smaller one")
    cityscale: dict[str, Path] = Field({}, description="name to weights that cityweave train cityscale wrote")
    heights: dict[str, Path] = Field({}, description="name to weights that cityweave train heights wrote")
    mean_height_m: float = Field(gt=0, description="of the training cities; what the baseline mean_height says")
    highest_m: float = Field(gt=0, description="of the training cities; what comes near it is flagged")
    regions: dict[str, Cities]


def read_regions(path: Path) -> Regions:
    return validated(Regions, read_yaml(path), str(path))


def cities_of(regions: Regions, name: str) -> Iterable[tuple[str, City]]:
    for source in sources_of(regions.regions[name], regions.gsd_m):
        yield source.name, source.make()


def methods(regions: Regions) -> dict[str, Predict]:
    found: dict[str, Predict] = {
        "flat ground": lambda picture, _: (np.zeros(picture.shape[1:], np.float32),) * 2,
        "mean height": lambda picture, _: (np.full(picture.shape[1:], np.float32(regions.mean_height_m)),) * 2,
    }
    return (
        found | {n: _u_net(p) for n, p in regions.heights.items()} | {n: _cs(p) for n, p in regions.cityscale.items()}
    )


def _u_net(path: Path) -> Predict:
    import torch

    from cityweave.train.heights import load_height_unet

    model, _ = load_height_unet(path)

    def predict(picture: np.ndarray, _: Window) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            metres: np.ndarray = model(torch.from_numpy(picture)[None])[0].numpy()
        return metres, np.full_like(metres, np.nan)

    return predict


def _cs(path: Path) -> Predict:
    from cityweave.cityscale.predict import open_predictor

    predictor = open_predictor(path, "cpu")
    return lambda picture, window: predictor.heights(picture, lambda k, shape: window.noise(0, k, shape), 1)


def predicted(city: City, predict: Predict, size_px: int, gsd_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Metres and their standard deviation of a whole city."""
    rows, cols = city.height_m.shape
    side = min(size_px, max(64, -(-max(rows, cols) // 64) * 64))
    half = side // 2
    rgb = np.zeros((3, rows + 2 * side, cols + 2 * side), np.float32)
    shown = np.zeros(rgb.shape[1:], bool)
    core = (slice(side, side + rows), slice(side, side + cols))
    rgb[:, *core] = np.asarray(city.rgb, np.float32) * np.float32(2 / city.white) - 1
    shown[core] = True
    total, spread, mass = (np.zeros(shown.shape, np.float64) for _ in range(3))
    # A city of one window is predicted once, one of many at every half window, the rim as often as the middle.
    starts = [[side] if n <= side else range(half, side + n, half) for n in (rows, cols)]
    for top in starts[0]:
        for left in starts[1]:
            here = (slice(top, top + side), slice(left, left + side))
            picture, weight = continued(rgb[:, *here], shown[here]), counting(shown[here])
            metres, sigma = predict(np.ascontiguousarray(picture), Window(left // half, top // half, side, gsd_m))
            total[here] += weight * metres
            spread[here] += weight * sigma
            mass[here] += weight
    return (total[core] / mass[core]), (spread[core] / mass[core])


def fitting_factors(said: np.ndarray, city: City, gsd_m: float) -> np.ndarray | None:
    """What shadows say of a prediction, where the sun is known: as in the workflow when it and a terrain are told."""
    assert city.sun is not None
    picture = np.asarray(city.rgb, np.float32) * np.float32(2 / city.white) - 1
    everywhere = np.ones(said.shape, bool)
    return shadow_factors(said.astype(np.float32), picture, everywhere, Sun(*city.sun), gsd_m, city.ground_m)


class Score:
    """Of one method in one region."""

    def __init__(self) -> None:
        self.said: list[np.ndarray] = []
        self.true: list[np.ndarray] = []
        self.flagged: list[str] = []

    def add(self, name: str, said: np.ndarray, city: City, highest_m: float) -> None:
        self.said.append(said[city.valid])
        self.true.append(city.height_m[city.valid])
        if saturated(said, highest_m):
            self.flagged.append(name)

    def figures(self) -> dict[str, Any]:
        said, true = np.concatenate(self.said).astype(np.float64), np.concatenate(self.true).astype(np.float64)
        off = said - true
        middle = float(np.median(off))
        bands = {}
        for low, high in pairwise(BANDS_M):
            part = (true >= low) & (true < high)
            if part.mean() > 1e-4:
                bands[_band_name(low, high)] = {
                    "share": float(part.mean()),
                    "mae_m": float(np.abs(off[part]).mean()),
                    "rmse_m": float(np.sqrt((off[part] ** 2).mean())),
                    "bias_m": float(np.median(off[part])),
                }
        return {
            "mae_m": float(np.abs(off).mean()),
            "rmse_m": float(np.sqrt((off**2).mean())),
            "median_bias_m": middle,
            "nmad_m": float(1.4826 * np.median(np.abs(off - middle))),
            "slope_above_60m": slope(said, true),
            "bands": bands,
            "curve": curve(said, true),
            "flagged": self.flagged,
            "cells": int(len(off)),
        }


def _band_name(low: float, high: float) -> str:
    if np.isinf(low):
        return f"below {high:g} m"
    return f"above {low:g} m" if np.isinf(high) else f"{low:g} to {high:g} m"


def slope(said: np.ndarray, true: np.ndarray) -> float | None:
    """Of the line through predicted over true heights where the truth is above 60 m; None with too few of them."""
    tall = true > TALL_M
    if tall.sum() < 1000:
        return None
    a, b = true[tall] - true[tall].mean(), said[tall] - said[tall].mean()
    return float((a * b).sum() / (a * a).sum())


def curve(said: np.ndarray, true: np.ndarray) -> list[list[float]]:
    """[true, median predicted] of cells in bins of true height: flat at its end where a method saturates."""
    points = []
    for low, high in pairwise(_CURVE_M):
        part = (true >= low) & (true < high)
        if part.sum() >= 200:
            points.append([float(np.median(true[part])), float(np.median(said[part]))])
    return points


def saturated(said: np.ndarray, highest_m: float) -> bool:
    """Whether a prediction sits at the top of what was trained on: there may be more above."""
    return bool((said > 0.9 * highest_m).mean() > 1e-4)


def evaluate(regions: Regions) -> dict[str, dict[str, dict[str, Any]]]:
    """Region -> method -> figures."""
    every, trained = methods(regions), {*regions.cityscale, *regions.heights}
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for region in regions.regions:
        scores = {name: Score() for name in every}
        for name, city in cities_of(regions, region):
            for method, predict in every.items():
                said, _ = predicted(city, predict, round(regions.window_m / regions.gsd_m), regions.gsd_m)
                scores[method].add(name, said, city, regions.highest_m)
                if method in trained and city.sun:
                    factors = fitting_factors(said, city, regions.gsd_m)
                    fitted = said if factors is None else said * factors
                    scores.setdefault(f"{method}, shadows", Score()).add(name, fitted, city, regions.highest_m)
        out[region] = {name: score.figures() for name, score in scores.items()}
    return out


def table(figures: dict[str, dict[str, dict[str, Any]]]) -> str:
    columns = ("mae_m", "rmse_m", "median_bias_m", "nmad_m", "slope_above_60m")
    heads = ("MAE m", "RMSE m", "median bias m", "NMAD m", "slope above 60 m")
    lines = [f"| region | method | {' | '.join(heads)} | flagged |", "|" + " --- |" * (len(heads) + 3)]
    for region, rows in figures.items():
        for method, row in rows.items():
            cells = ["" if row[name] is None else f"{row[name]:.2f}" for name in columns]
            lines.append(f"| {region} | {method} | {' | '.join(cells)} | {len(row['flagged'])} |")
    return "\n".join(lines) + "\n"


def write(figures: dict[str, dict[str, dict[str, Any]]], folder: Path) -> str:
    """regions.json, regions.md and saturation.svg; returns the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4))
    write_json(folder / "regions.json", rounded)
    text = f"{table(figures)}\nMAE, m, by true height.\n\n{band_table(figures)}"
    (folder / "regions.md").write_text(text)
    (folder / "saturation.svg").write_text(saturation_plot(figures))
    return text


def band_table(figures: dict[str, dict[str, dict[str, Any]]]) -> str:
    names = [_band_name(low, high) for low, high in pairwise(BANDS_M)]
    lines = [f"| region | method | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 2)]
    for region, rows in figures.items():
        for method, row in rows.items():
            cells = [f"{row['bands'][name]['mae_m']:.2f}" if name in row["bands"] else "" for name in names]
            lines.append(f"| {region} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def saturation_plot(figures: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Predicted over true heights, a panel a region: below the dashed line is too low, level is saturated."""
    drawn = []
    for region, rows in figures.items():
        lines = tuple(Series(method, tuple((x, y) for x, y in row["curve"])) for method, row in rows.items())
        drawn.append(Panel(region, "true height, m", "predicted, median", lines, slope_one=True))
    return panels(drawn, columns=3)
