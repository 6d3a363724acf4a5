"""FlexiCubes: closed and manifold whatever the values, exact on planes, gradients as finite differences have them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cityweave.geometry.flexicubes import Weights, cases, extract  # noqa: E402


def edge_uses(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each edge is used, and how often in each direction."""
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    _, both = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    _, one_way = np.unique(directed, axis=0, return_counts=True)
    return both, one_way


def drawn_weights(values: torch.Tensor, seed: int) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    plain = Weights.neutral(values)
    return Weights(
        *(0.3 + 1.5 * torch.rand(part.shape, generator=draw, dtype=values.dtype) for part in vars(plain).values())
    )


def test_the_table_is_complete() -> None:
    table = cases()
    for case in range(1, 255):
        for turned in (0, 1):
            numbers = table.patch[case, turned]
            assert set(numbers[numbers >= 0]) == set(range(table.patches[case, turned]))
    assert table.patches.max() == 4
    turned = table.shared_face >= 0
    assert turned.sum() == 36
    assert (table.patches[turned, 1] == table.patches[turned, 0] + 1).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("split", [False, True])
def test_any_values_give_a_closed_manifold(seed: int, split: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = torch.full((14, 13, 12), 1.0, dtype=torch.float64)
    values[1:-1, 1:-1, 1:-1] = torch.randn((12, 11, 10), generator=draw, dtype=torch.float64)
    found = extract(values, drawn_weights(values, seed), split)
    assert torch.isfinite(found.vertices).all()
    both, one_way = edge_uses(found.triangles.numpy())
    assert (both == 2).all()
    assert (one_way == 1).all()


def test_a_plane_is_exact_and_looks_up() -> None:
    x, y, z = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (7, 8, 9)), indexing="ij")
    values = z - (2.3 + 0.4 * x + 0.21 * y)
    found = extract(values, Weights.neutral(values), split_in_four=True)
    vx, vy, vz = found.vertices.unbind(1)
    assert torch.allclose(vz, 2.3 + 0.4 * vx + 0.21 * vy)
    a, b, c = (found.vertices[found.triangles[:, k]] for k in range(3))
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).all()


def test_a_ball_has_its_volume() -> None:
    x, y, z = torch.meshgrid(*(torch.arange(24, dtype=torch.float64) - 11.6 for _ in range(3)), indexing="ij")
    values = (x**2 + y**2 + z**2).sqrt() - 8
    found = extract(values, Weights.neutral(values))
    a, b, c = (found.vertices[found.triangles[:, k]] - 11.6 for k in range(3))
    volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
    assert volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.025)  # a mean of crossings lies a little inside
    assert float(found.deviation) < 0.15


def test_nothing_crossed_nothing_found() -> None:
    values = torch.ones((3, 3, 3))
    assert len(extract(values, Weights.neutral(values)).triangles) == 0


@pytest.mark.parametrize("split", [False, True])
def test_gradients_are_those_of_finite_differences(split: bool) -> None:
    draw = torch.Generator().manual_seed(5)
    values = torch.randn((4, 4, 4), generator=draw, dtype=torch.float64)
    values = values + 0.2 * values.sign()  # no change of sign within the step of the difference
    parts = [values, *vars(drawn_weights(values, 2)).values()]
    towards = torch.randn((500, 3), generator=draw, dtype=torch.float64)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        found = extract(tensors[0], Weights(*tensors[1:]), split)
        return (found.vertices * towards[: len(found.vertices)]).sum() + found.deviation

    assert torch.autograd.gradcheck(loss, [part.requires_grad_() for part in parts], eps=1e-6, atol=1e-5)
