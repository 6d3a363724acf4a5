"""ST-LPIPS against figures of its authors' own program."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("stlpips_pytorch", reason="make setup EXTRAS=metrics")

import torch

from cityweave.evaluate.stlpips import st_lpips


def waves(shift: float) -> torch.Tensor:
    y, x = np.mgrid[:96, :96].astype(np.float32)
    bands = [np.sin((x + shift) / (2 + k)) * np.cos(y / (3 + k)) for k in range(3)]
    return torch.from_numpy(np.stack(bands).astype(np.float32))[None]


def test_equal_pictures_are_alike_and_others_the_less_the_more_they_differ() -> None:
    rng = np.random.default_rng(1)
    picture = waves(0)
    noise = torch.from_numpy(rng.standard_normal(picture.shape).astype(np.float32))
    distances = [float(st_lpips()(picture + much * noise, picture)) for much in (0.0, 0.1, 0.4)]
    assert distances[0] == pytest.approx(0, abs=1e-6) and distances[1] < distances[2]


def test_a_shift_of_a_pixel_counts_little() -> None:
    shifted, blurred = waves(1.0), torch.nn.functional.avg_pool2d(waves(0), 9, 1, 4)
    assert float(st_lpips()(shifted, waves(0))) < 0.3 * float(st_lpips()(blurred, waves(0)))


def test_the_figure_of_the_original() -> None:
    assert float(st_lpips()(0.5 * waves(0), waves(7))) == pytest.approx(0.379158, rel=1e-4)
