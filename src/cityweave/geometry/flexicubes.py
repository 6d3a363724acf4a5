"""FlexiCubes (Shen et al., 2023): dual marching cubes whose vertices move with learnable weights, differentiable.

Every cube that the surface crosses holds one vertex per patch of it: the mean of the patch's crossings, weighted by
`beta`, each crossing placed by the values at the edge's ends times `alpha`. Every crossed edge inside the grid gives a
quad of the patches of the four cubes around it; `gamma` says across which diagonal it folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cityweave.geometry.cubes import CORNERS, EDGE_OF, EDGES, FACES, cases

LEAST_SHARE = 1e-9  # keeps a crossing's division finite


@dataclass(frozen=True)
class Weights:
    """Positive numbers for every cube of the grid, [x, y, z, ...]."""

    alpha: torch.Tensor  # [..., 8], of its corners: where crossings lie
    beta: torch.Tensor  # [..., 12], of its edges: how crossings weigh in the vertex
    gamma: torch.Tensor  # [...], across which diagonal quads fold

    @staticmethod
    def neutral(values: torch.Tensor) -> Weights:
        cubes = tuple(size - 1 for size in values.shape)
        return Weights(*(values.new_ones((*cubes, *more)) for more in ((8,), (12,), ())))


@dataclass(frozen=True)
class Surface:
    vertices: torch.Tensor  # (n, 3), in steps of the grid
    triangles: torch.Tensor  # (m, 3), counterclockwise seen from outside
    deviation: torch.Tensor  # mean difference of a vertex's distances to its crossings from their mean: to be kept low


def extract(values: torch.Tensor, weights: Weights, split_in_four: bool = False) -> Surface:
    """The surface between values below 0 (inside) and the others; `values` [x, y, z] at the grid's points.

    Only the cubes that the surface crosses are looked at. `split_in_four` gives every quad a vertex in its middle that
    all four corners and `gamma` move: what optimisation wants, since no diagonal flips there.
    """
    table = cases()
    case = _case_of(values < 0)
    cubes = torch.nonzero((case > 0) & (case < 255))
    if len(cubes) == 0:
        return Surface(values.new_empty((0, 3)), cubes.new_empty((0, 3)), values.new_zeros(()))
    at = tuple(cubes.T)
    own = case[at]
    turned = _turned(case, cubes, own)
    patch = torch.from_numpy(table.patch.astype(np.int64)).to(values.device)[own, turned]
    count = torch.from_numpy(table.patches.astype(np.int64)).to(values.device)[own, turned]
    first = torch.cumsum(count, 0) - count
    crossed = patch >= 0
    vertex_of = torch.where(crossed, first[:, None] + patch, -1)  # [cube, edge]

    cube, edge = torch.nonzero(crossed, as_tuple=True)
    crossings = _crossings(values, weights.alpha[at], cubes, cube, edge)
    vertex, weight = vertex_of[cube, edge], weights.beta[at][cube, edge][:, None]
    total = int(count.sum())
    sums = values.new_zeros((total, 3)).index_add(0, vertex, weight * crossings)
    vertices = sums / values.new_zeros((total, 1)).index_add(0, vertex, weight)

    quads, corner_cubes = _quads(values, cubes, vertex_of, case.shape)
    gamma = weights.gamma[at][corner_cubes]
    vertices, triangles = (_in_four if split_in_four else _in_two)(vertices, quads, gamma)
    return Surface(vertices, triangles, _deviation(vertices[:total], vertex, crossings))


def _case_of(inside: torch.Tensor) -> torch.Tensor:
    x, y, z = (size - 1 for size in inside.shape)
    case = torch.zeros((x, y, z), dtype=torch.int64, device=inside.device)
    for corner, (i, j, k) in enumerate(CORNERS.tolist()):
        case |= inside[i : i + x, j : j + y, k : k + z].long() << corner
    return case


def _turned(case: torch.Tensor, cubes: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """1 for the cubes whose face with two sheets in one patch has such a patch on its other side too."""
    shared = torch.from_numpy(cases().shared_face.astype(np.int64)).to(case.device)
    face = shared[own]
    steps = [[(2 * side - 1) * (k == axis) for k in range(3)] for _, axis, side in FACES]
    beyond = cubes + torch.tensor(steps, device=case.device)[face]
    limits = torch.tensor(case.shape, device=case.device)
    there = (face >= 0) & ((beyond >= 0) & (beyond < limits)).all(dim=1)
    other = shared[case[tuple(beyond.clamp(min=torch.zeros_like(limits), max=limits - 1).T)]]
    return (there & (other == (face ^ 1))).long()


def _crossings(
    values: torch.Tensor, alpha: torch.Tensor, cubes: torch.Tensor, cube: torch.Tensor, edge: torch.Tensor
) -> torch.Tensor:
    ends = torch.from_numpy(EDGES).to(values.device)[edge]
    points = cubes[cube][:, None, :] + torch.from_numpy(CORNERS).to(values.device)[ends]
    scaled = values[tuple(points.unbind(-1))] * alpha[cube[:, None], ends]
    share = scaled[:, :1] / _away_from_zero(scaled[:, :1] - scaled[:, 1:])
    places = points.to(values.dtype)
    return places[:, 0] + share * (places[:, 1] - places[:, 0])


def _away_from_zero(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < LEAST_SHARE, torch.where(x < 0, -LEAST_SHARE, LEAST_SHARE), x)


def _quads(
    values: torch.Tensor, cubes: torch.Tensor, vertex_of: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 4) vertices around every crossed edge with four cubes, and the cubes (as numbered in `cubes`) they are of."""
    number = torch.full(shape, -1, dtype=torch.int64, device=values.device)
    number[tuple(cubes.T)] = torch.arange(len(cubes), device=values.device)
    inside = values < 0
    found, owners = [], []
    for axis in range(3):
        second, third = (axis + 1) % 3, (axis + 2) % 3
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(0, -1), slice(1, None)
        changes = inside[tuple(low)] != inside[tuple(high)]
        points = torch.nonzero(changes)
        limits = torch.tensor(shape, device=values.device)
        surrounded = torch.ones(len(points), dtype=torch.bool, device=values.device)
        for other in (second, third):
            surrounded &= (points[:, other] > 0) & (points[:, other] < limits[other])
        points = points[surrounded]
        around, of_cubes = [], []
        for back_second, back_third in ((0, 0), (1, 0), (1, 1), (0, 1)):  # counterclockwise seen against the axis
            corner = back_second << second | back_third << third
            offset = torch.from_numpy(CORNERS[corner]).to(values.device)
            cube = number[tuple((points - offset).T)]
            around.append(vertex_of[cube, EDGE_OF[frozenset((corner, corner | 1 << axis))]])
            of_cubes.append(cube)
        quad, owner = torch.stack(around, 1), torch.stack(of_cubes, 1)
        upward = inside[tuple(points.T)][:, None]
        found.append(torch.where(upward, quad, quad.flip(1)))
        owners.append(torch.where(upward, owner, owner.flip(1)))
    return torch.cat(found), torch.cat(owners)


def _in_two(vertices: torch.Tensor, quads: torch.Tensor, gamma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    even = (gamma[:, 0] * gamma[:, 2] > gamma[:, 1] * gamma[:, 3])[:, None, None]
    along, across = (quads[:, picks].reshape(-1, 2, 3) for picks in ([0, 1, 2, 0, 2, 3], [0, 1, 3, 1, 2, 3]))
    return vertices, torch.where(even, along, across).reshape(-1, 3)


def _in_four(vertices: torch.Tensor, quads: torch.Tensor, gamma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    corners = vertices[quads]
    even, odd = (gamma[:, k] * gamma[:, k + 2] for k in (0, 1))
    middle = (even[:, None] * (corners[:, 0] + corners[:, 2]) + odd[:, None] * (corners[:, 1] + corners[:, 3])) / 2
    middle = middle / (even + odd)[:, None]
    top = (len(vertices) + torch.arange(len(quads), device=quads.device))[:, None]
    triangles = [torch.cat([quads[:, [k, (k + 1) % 4]], top], 1) for k in range(4)]
    return torch.cat([vertices, middle]), torch.cat(triangles)


def _deviation(vertices: torch.Tensor, vertex: torch.Tensor, crossings: torch.Tensor) -> torch.Tensor:
    distance = (vertices[vertex] - crossings).norm(dim=1)
    ones, zeros = torch.ones_like(distance), torch.zeros_like(vertices[:, 0])
    counts = zeros.index_add(0, vertex, ones)
    means = zeros.index_add(0, vertex, distance) / counts
    return (zeros.index_add(0, vertex, (distance - means[vertex]).abs()) / counts).mean()
