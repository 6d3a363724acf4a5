"""The fit in tensors and the compiled one: the same surface."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cityweave.geometry import direct, direct_torch  # noqa: E402
from cityweave.geometry.field import FieldShape  # noqa: E402
from cityweave.geometry.target import pixel_weights  # noqa: E402
from tests.geometry import city  # noqa: E402


@pytest.mark.parametrize("reading", ["nodes", "centred"])
@pytest.mark.parametrize("pitch_m", [0.5, 1.0, 2.0])
def test_both_reach_the_same_heights(monkeypatch, reading, pitch_m):
    target = city.raster(80, 80, 128, 128, 0.5, 0.1, 0.05) + np.float32(700)  # at a city's altitude
    shape = FieldShape(pitch_m, 0.5, 2.0, reading)
    found = {}
    for name, device in (("compiled", "cpu"), ("tensors", "meta")):
        solve = direct_torch.solve
        monkeypatch.setattr(direct_torch, "solve", lambda *rest, solve=solve: solve(*rest[:-1], "cpu"))
        found[name], _ = direct.fit(
            target, pixel_weights(None, None, target), 160, 160, shape, 0.5, direct.FitSettings(), device
        )
        monkeypatch.undo()
    apart = np.abs(found["compiled"].h - found["tensors"].h)
    # A node that hangs on a wall's pixels alone, as `centred` has them, may end on either side.
    share = 0.99 if reading == "centred" else 0.999
    assert np.median(apart) < 1e-3 and np.quantile(apart, share) < 0.05


def test_one_step_has_the_same_gradients():
    draw = np.random.default_rng(2)
    rows, cols, softness = 7, 9, 0.8
    for centred in (False, True):
        h = draw.normal(0, 1.5, (rows + 4, cols + 4))
        tables, off = direct._phase_tables(2, 2.0, centred)
        target, weight = draw.normal(0, 2, (4, rows, cols)), draw.uniform(0.5, 1, (4, rows, cols))
        z = np.zeros(target.shape)
        grad = np.zeros(h.shape)
        direct._data_step(h, z, target, weight, tables, off, softness, centred, 2.0, grad)
        data = direct_torch._Data(
            *(torch.tensor(a, dtype=torch.float64) for a in (target, weight, tables)), off, softness, centred
        )
        torch.set_default_dtype(torch.float64)
        try:
            root, own = data.step(torch.tensor(h), torch.zeros(target.shape), 2.0)
        finally:
            torch.set_default_dtype(torch.float32)
        assert np.allclose(root, z, atol=2e-3) and np.allclose(own, grad, atol=2e-3)
        smooth = np.zeros(h.shape)
        direct._smooth_step(h, 1.0, 0.3, 0.2, 0.4, 1.5, smooth)
        assert np.allclose(direct_torch._smoothing(torch.tensor(h), 1.0, 0.3, 0.2, 0.4, 1.5), smooth, atol=1e-9)
