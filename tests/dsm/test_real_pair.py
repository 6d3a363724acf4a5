"""A Pléiades pair over Kahramanmaraş, against what two established programs make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cityweave.cameras import RPC, fit_local, geodetic_transform
from cityweave.config import DsmConfig
from cityweave.dsm.confidence import MEASURED
from cityweave.dsm.reconstruct import reconstruct
from cityweave.dsm.views import SweepView
from cityweave.grid import Box, CellGrid

CORE = Box(315400, 4161760, 315400 + 112, 4161760 + 112)
Z0_M = 680.0
# The pair's RPCs disagree by this much across the epipolar lines, in pixels of the second image.
ACROSS_PX = 2.2


def load(folder: Path) -> list[SweepView]:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.windows import Window

    to_geodetic = geodetic_transform("EPSG:32637")
    box, heights_m = CORE.grow(10), (670.0, 770.0)
    x, y, z = (a.ravel() for a in np.meshgrid([box.xmin, box.xmax], [box.ymin, box.ymax], heights_m))
    views: list[SweepView] = []
    for number in (1, 2):
        with rasterio.open(folder / f"pre_event_img{number}.tif") as file:
            rpc = RPC.from_tags(file.tags(ns="RPC"))
            u, v = rpc.project(*to_geodetic(x, y, z))
            left, top = int(u.min()) - 8, int(v.min()) - 8
            image = file.read(1, window=Window(left, top, int(u.max()) + 8 - left, int(v.max()) + 8 - top))
        shift = np.zeros(2)
        if number == 2:
            shift = ACROSS_PX * across(
                views[0], fit_local(rpc, to_geodetic, box, heights_m, (box.xmin, box.ymin, Z0_M))
            )
        crop = rpc.shifted(left + shift[0], top + shift[1])
        camera = fit_local(crop, to_geodetic, box, heights_m, (CORE.xmin, CORE.ymin, Z0_M))
        views.append(SweepView(f"img{number}", image.astype(np.float32), np.ones(image.shape, bool), camera))
    return views


def across(first: SweepView, camera) -> np.ndarray:
    """Unit vector in the second image, at right angles to the epipolar line."""
    lean, z = first.camera.lean(), np.array([0.0, 40.0])
    u, v = camera.project(60 + lean[0] * z, 60 + lean[1] * z, z)
    along = np.array([u[1] - u[0], v[1] - v[0]]) / np.hypot(u[1] - u[0], v[1] - v[0])
    return np.array([-along[1], along[0]])


def reference(path: Path) -> np.ndarray:
    import rasterio

    with rasterio.open(path) as file:
        heights, transform = file.read(1), file.transform
    col, row = round((CORE.xmin - transform.c) / 0.5), round((transform.f - CORE.ymax) / 0.5)
    return heights[row : row + 224, col : col + 224] - Z0_M


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_real_pair_agrees_with_two_other_programs(shared_data: Path) -> None:
    folder = shared_data / "kahramanmaras_pre"
    grid = CellGrid.covering(Box(0, 0, CORE.width, CORE.height), 0.5)
    model = reconstruct(load(folder), grid, (-10.0, 90.0), DsmConfig())
    measured = model.source == MEASURED
    assert measured.mean() > 0.7
    for name in ("cars_dsm.tif", "s2p_dsm.tif"):
        error = (model.dsm - reference(folder / name))[measured]
        error = error[np.isfinite(error)]
        bias = np.median(error)
        nmad = 1.4826 * np.median(np.abs(error - bias))
        assert abs(bias) < 0.3 and nmad < 0.5
        assert (np.abs(error - bias) <= 1).mean() > 0.85
