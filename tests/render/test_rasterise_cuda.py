"""nvdiffrast against our z-buffer; without a GPU, that its input means the same."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from cityweave import gpu
from cityweave.render import rasterise_cuda as module
from cityweave.render.rasterise import Fragments, Nearest, rasterise
from cityweave.render.rasterise_cuda import rasterise_cuda, rasterise_here, to_clip

WIDTH, HEIGHT = 150, 90
KINDS: list[tuple[Nearest, bool]] = [("largest", False), ("smallest", False), ("smallest", True)]


def triangles(count: int, side: float, width: int = WIDTH, height: int = HEIGHT) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    middle = rng.uniform(-10, 1, (count, 1, 2)) * -1 * [width / 10, height / 10]
    screen = (middle + rng.uniform(-side, side, (count, 3, 2))).reshape(-1, 2)
    depth = (rng.uniform(20, 400, (count, 1)) + rng.uniform(0, 15, (count, 3))).reshape(-1)
    return screen, depth, np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


@pytest.mark.parametrize(("nearest", "perspective"), KINDS)
def test_positions_mean_the_same_after_the_division(nearest: Nearest, perspective: bool) -> None:
    """Ours, fed with what nvdiffrast is fed with: z / w is linear on the screen and the smallest wins."""
    screen, depth, faces = triangles(120, 25)
    block = (16, 8, 96, 64)
    clip = to_clip(screen, depth, block, nearest, perspective).astype(np.float64)
    x, y, z = (clip[:, :3] / clip[:, 3:]).T
    assert z.min() > -1 and z.max() < 1
    mapped = np.stack([(x + 1) / 2 * block[2], (y + 1) / 2 * block[3]], axis=1)
    seen = rasterise(mapped, z, faces, block[2], block[3], "smallest").face
    expected = rasterise(screen, depth, faces, WIDTH, HEIGHT, nearest, perspective).face[8:72, 16:112]
    assert (expected >= 0).mean() > 0.5
    assert (seen == expected).mean() > 0.999


def test_the_cpu_serves_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, depth, faces = triangles(20, 25)
    monkeypatch.setattr(gpu, "_chosen", "cpu")
    ours, same = rasterise(screen, depth, faces, WIDTH, HEIGHT), rasterise_here(screen, depth, faces, WIDTH, HEIGHT)
    assert (ours.face == same.face).all()
    called = []
    monkeypatch.setattr(gpu, "_chosen", "cuda")
    monkeypatch.setattr(module, "find_spec", lambda name: name == "nvdiffrast")
    monkeypatch.setattr(module, "rasterise_cuda", lambda *given: called.append(given[3:]))
    rasterise_here(screen, depth, faces, WIDTH, HEIGHT, "largest")
    assert called == [(WIDTH, HEIGHT, "largest", False)]


def apart(a: Fragments, b: Fragments) -> tuple[float, float, float]:
    """Share of samples that see the same face; of these, largest difference of depth, relative, and of weights."""
    same = (a.face == b.face) & a.seen
    depth = np.abs(a.depth[same] - b.depth[same]) / np.abs(a.depth[same])
    return float((a.face == b.face).mean()), float(depth.max()), float(np.abs(a.bary[same] - b.bary[same]).max())


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("nvdiffrast") is None, reason="make setup EXTRAS=gpu")
@pytest.mark.skipif(not gpu.visible_gpus(), reason="no CUDA device")
@pytest.mark.parametrize(("nearest", "perspective"), KINDS)
def test_nvdiffrast_sees_what_we_see(nearest: Nearest, perspective: bool) -> None:
    """Triangles of 40 samples and more: 99 of 100 samples see the same, at the same depth to a thousandth."""
    screen, depth, faces = triangles(2000, 40, 2200, 1500)
    ours = rasterise(screen, depth, faces, 2200, 1500, nearest, perspective)
    share, deeper, weights = apart(ours, rasterise_cuda(screen, depth, faces, 2200, 1500, nearest, perspective))
    assert share > 0.99 and deeper < 1e-2 and weights < 0.05
