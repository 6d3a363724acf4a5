"""Trains the network of sigma that `cityweave.dsm.confidence` reads, on synthetic cities, and checks it on others.

    python bench/fit_sigma.py fit FOLDER          # makes the cities in FOLDER, measures their heights, trains
    python bench/fit_sigma.py check FOLDER        # coverage of sigma on cities of other seeds

The cities are those of config/bench/stereo.yaml with seeds that no suite uses, each from seven sets of views. The loss
is that of two quantiles of one sigma, 68.27 % of the errors within it, 95.45 % within twice as much, and how far both
shares are off in every decile of sigma: beside walls, where a height is right or off by the wall, no sigma has both
right, and it is the mixture that has to be. Needs torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from cityweave.aoi import Aoi
from cityweave.dsm.confidence import WEIGHTS
from cityweave.dsm.job import local_grid, matching_grids, usable_views
from cityweave.dsm.reconstruct import reconstruct
from cityweave.evaluate.confidence import NOMINAL, Confidence
from cityweave.evaluate.truth import Truth
from cityweave.grid import CellGrid
from cityweave.manifest import Manifest, Run
from cityweave.plan import city_tiles

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "src" / "cityweave" / "dsm" / WEIGHTS
SEEDS = {
    "fit": (11, 12, 13, 14, 15, 16, 17, 21, 22, 23, 24, 25, 31, 32, 33, 34, 35, 36),
    "check": (41, 42, 43, 44, 45, 46, 47, 48),
}
VIEWS = {
    "two": ("v02", "v06"),
    "two_others": ("v01", "v06"),
    "three": ("v02", "v06", "v04"),
    "three_others": ("v01", "v05", "v08"),
    "four": ("v01", "v02", "v05", "v07"),
    "six": ("v01", "v02", "v03", "v04", "v05", "v06"),
    "twelve": tuple(f"v{number:02d}" for number in range(1, 13)),
}
HIDDEN, STEPS, BATCH, RATE = 24, 20_000, 8192, 5e-3
COVERAGE_WEIGHT, SOFTNESS = 40, 0.1  # of the coverage in deciles; a share counts over this much of the logarithm
WIDE_WEIGHT = 0.9  # of the quantile at two sigma: tails are heavy beside walls, where it would widen one sigma too far
NO_ERROR_M = 1e-4  # added before taking logarithms


class Cells(NamedTuple):
    features: np.ndarray  # (cells, features)
    error: np.ndarray  # metres
    sigma: np.ndarray  # as the weights in place have it


def made(folder: Path, seed: int, name: str) -> Run:
    """The city's AOIs, with the workflow; what is there already is taken."""
    suite = yaml.safe_load((ROOT / "config" / "bench" / "stereo.yaml").read_text())
    views = {view["name"]: view for view in suite[".views"]}
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(suite["config"]))
    config["city"]["name"] = f"{name}_{seed}"
    config |= {"seed": seed, "workflow": {"results": str(folder)}}
    config["synth"]["views"] = [views[view] for view in VIEWS[name]]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}_{seed}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    command = [snakemake, "--cores", "all", "--quiet", "all", "--configfile", str(file), "--", "heights"]
    subprocess.run(command, cwd=ROOT, check=True)
    return Run.open(folder / config["city"]["name"])


def cells_of(run: Run) -> Cells:
    found: list[Cells] = []
    truth, settings = Truth(run), run.config.dsm
    for tile in city_tiles(run.config):
        aoi = Aoi(Manifest.read(run.manifest_path("ingest", tile)).product("aoi"))
        heights = tuple(float(height) - aoi.z0_m for height in aoi.attributes["heights_m"])
        views, _ = usable_views(run.config, aoi)
        grid, around = matching_grids(run.config, tile)
        model = reconstruct(views, grid, (heights[0], heights[1]), settings, around)
        core = CellGrid.covering(tile.core, settings.gsd_m)
        window = grid.window_of(local_grid(core, tile))
        error = np.abs(model.dsm[window] + aoi.z0_m - truth.heights(core))
        features = np.moveaxis(model.clues.features().of_rows(0, grid.rows).reshape(-1, *grid.shape), 0, -1)[window]
        known = np.isfinite(error)
        found.append(Cells(features[known], error[known].astype(np.float32), model.sigma[window][known]))
    return Cells(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def network(features: int) -> torch.nn.Sequential:
    layers = torch.nn.Linear(features, HIDDEN), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Linear(HIDDEN, 1)
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])


def trained(sets: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.nn.Sequential:
    """From standardised features and errors of every set of views; a step looks at one of them."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small products: more threads only wait for each other
    net = network(sets[0][0].shape[1])
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        features, error = sets[step % len(sets)]
        batch = torch.randint(len(features), (BATCH,))
        log_sigma = net(features[batch])[:, 0]
        above = torch.log(error[batch] + NO_ERROR_M) - log_sigma
        ordered = torch.argsort(log_sigma.detach())[: BATCH // 10 * 10].view(10, -1)
        loss = torch.zeros(())
        for share, part, weight in zip(NOMINAL, (above, above - np.log(2)), (1, WIDE_WEIGHT), strict=True):
            loss = loss + weight * torch.maximum(share * part, (share - 1) * part).mean()
            covered = torch.sigmoid(-part / SOFTNESS)[ordered].mean(1)
            loss = loss + COVERAGE_WEIGHT * ((covered - share) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 1000 == 0 or step == STEPS - 1:
            print(f"step {step}: {loss.item():.4f}", flush=True)
    return net


def fit(folder: Path) -> None:
    write([[cells_of(made(folder, seed, name)) for seed in SEEDS["fit"]] for name in VIEWS])


def write(cells: list[list[Cells]]) -> None:
    """Train on the cells of every set of views, city by city, and write the weights."""
    sets = [
        tuple(
            torch.from_numpy(np.concatenate(parts)) for parts in ([c.features for c in each], [c.error for c in each])
        )
        for each in cells
    ]
    every = torch.cat([features for features, _ in sets])
    mean, spread = every.mean(0), every.std(0)
    count = len(every)
    del every
    net = trained([((features - mean) / spread, error) for features, error in sets])
    first, second, third = (layer for layer in net if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():  # what standardises goes into the first layer
        weight0 = first.weight / spread
        tensors = {"weight0": weight0.T, "bias0": first.bias - weight0 @ mean}
        tensors |= {"weight1": second.weight.T, "bias1": second.bias, "weight2": third.weight.T, "bias2": third.bias}
    card = {"made_by": "bench/fit_sigma.py fit", "cities": f"config/bench/stereo.yaml, seeds {SEEDS['fit']}"}
    card |= {"cells": str(count), "card": "docs/stereo.md"}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, FILE, {"cityweave": json.dumps(card)})
    FILE.chmod(0o644)
    print(FILE)


def check(folder: Path) -> None:
    for name in VIEWS:
        confidence, single = Confidence(), []
        for seed in SEEDS["check"]:
            cells = cells_of(made(folder, seed, name))
            confidence.add(cells.error, cells.sigma)
            alone = Confidence()
            alone.add(cells.error, cells.sigma)
            single.append(gap(alone))
        print(f"{name}: off by at most {gap(confidence):.3f}; single cities {', '.join(f'{g:.3f}' for g in single)}")
        figures = confidence.figures() or {}
        print(f"    sparsification error {figures['ause']:.3f}")
        for key in ("decile_sigma_m", "coverage_1", "coverage_2"):
            print("   ", key, *(f"{value:.3f}" for value in figures[key]), flush=True)


def gap(confidence: Confidence) -> float:
    return float((confidence.figures() or {})["coverage_gap"])


if __name__ == "__main__":
    {"fit": fit, "check": check}[sys.argv[1]](Path(sys.argv[2]))
