"""The tensors' camera is the arrays' camera."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.errors import DataError
from cityweave.rpc import RPC, Correction

torch = pytest.importorskip("torch", reason="the models extra is not installed")
rpc_torch = pytest.importorskip("cityweave.rpc_torch")


@pytest.fixture(scope="module")
def camera() -> RPC:
    rng = np.random.default_rng(3)

    def numerator(axis: int) -> tuple[float, ...]:
        values = rng.normal(0, 1e-3, 20)
        values[axis] += 1
        return tuple(values)

    def denominator() -> tuple[float, ...]:
        values = rng.normal(0, 1e-3, 20)
        values[0] = 1
        return tuple(values)

    return RPC(
        numerator(2), denominator(), numerator(1), denominator(), line_off=5000.0, line_scale=5000.0, samp_off=4800.0,
        samp_scale=4800.0, lat_off=37.6, lat_scale=0.1, long_off=36.9, long_scale=0.12, height_off=700.0,
        height_scale=500.0, correction=Correction(1.25, -0.5, (4800.0, 5000.0), (1e-5, -2e-5, 3e-5, 4e-6)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def ground(camera: RPC) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.uniform(36.82, 36.98, 50), rng.uniform(37.53, 37.67, 50), rng.uniform(400, 1100, 50)


def test_same_place_in_the_image(camera: RPC, ground: tuple[np.ndarray, ...]) -> None:
    for each in (camera, camera.corrected(None)):
        ours = rpc_torch.project(each, *map(torch.from_numpy, ground))
        for tensor, array in zip(ours, each.project(*ground), strict=True):
            np.testing.assert_allclose(tensor.numpy(), array, atol=1e-8, rtol=0)


def test_gradients_are_the_derivatives(camera: RPC, ground: tuple[np.ndarray, ...]) -> None:
    tensors = [torch.from_numpy(values).requires_grad_() for values in ground]
    _, _, slopes = camera.project_with_slopes(*ground)
    for row, value in enumerate(rpc_torch.project(camera, *tensors)):
        gradients = torch.autograd.grad(value.sum(), tensors, retain_graph=True)
        for column, gradient in enumerate(gradients):
            np.testing.assert_allclose(gradient.numpy(), slopes[row, column], rtol=1e-9, atol=1e-9)


def test_localised_to_where_it_came_from(camera: RPC, ground: tuple[np.ndarray, ...]) -> None:
    lon, lat, height = map(torch.from_numpy, ground)
    back = rpc_torch.localise(camera, *rpc_torch.project(camera, lon, lat, height), height)
    for tensor, known in zip(back, (lon, lat), strict=True):
        assert not tensor.requires_grad
        np.testing.assert_allclose(tensor.numpy(), known.numpy(), atol=1e-11, rtol=0)


def test_single_precision_is_refused(camera: RPC, ground: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(DataError, match="float64"):
        rpc_torch.project(camera, *(torch.from_numpy(values).float() for values in ground))
