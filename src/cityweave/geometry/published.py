"""Fits node heights as published: every step extracts a mesh by FlexiCubes, renders its height map, and follows the
gradient back.

The terms (A4-A6 of Orbit2Ground): L1 between rendered and target heights, uniform Laplacian of the mesh, total
variation of the rendered normals, and FlexiCubes' own regulariser. Coordinates are those of the paper: a division spans
[-1, 1] in x and y, and z has the same scale, so weights and learning rate mean what they mean there. Only layers of the
cube grid that the target's heights reach are computed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cityweave.geometry.field import EPSILON, FieldShape
from cityweave.geometry.flexicubes import Surface, Weights, extract
from cityweave.geometry.target import fill_holes, start_heights
from cityweave.render.rasterise import rasterise

LAYERS_BEYOND = 3  # of cubes below and above the target's heights
SPREAD = 0.99  # learnable weights lie within 1 -+ this


@dataclass(frozen=True)
class PublishedSettings:
    cells: int = 128  # cubes along a division
    steps: int = 2000
    lr: float = 0.01
    laplacian: float = 0.5
    normal_tv: float = 0.01
    regulariser: float = 0.1


@dataclass(frozen=True)
class PublishedFit:
    h: np.ndarray  # float32 [j, i], metres
    vertices_m: np.ndarray  # from the division's south-western corner; heights as in the target
    triangles: np.ndarray
    loss: list[float]  # of every step
    seconds: float


class _Field:
    """s at the points of the cube grid, from node heights; places are fixed, so who weighs what is looked up once."""

    def __init__(self, nodes: int, points: int, shape: FieldShape, softness: float, z: torch.Tensor) -> None:
        place = np.linspace(0, nodes, points) - 0.5  # in nodes
        indices, shares, weights = [], [], []
        for dj in (-1, 0, 1):
            for di in (-1, 0, 1):
                centre = place if shape.centred else np.floor(place + 0.5)
                x, y = (np.clip(centre + d, 0, nodes - 1) for d in (di, dj))
                i, j = (np.minimum(p.astype(int), max(nodes - 2, 0)) for p in (x, y))
                tx, ty = x - i, y - j
                indices.append([(j + b)[None, :] * nodes + (i + a)[:, None] for b in (0, 1) for a in (0, 1)])
                shares.append([(b * ty + (1 - b) * (1 - ty))[None, :] * (a * tx + (1 - a) * (1 - tx))[:, None]
                               for b in (0, 1) for a in (0, 1)])  # fmt: skip
                apart = (np.full(points, float(di)), np.full(points, float(dj)))
                if not shape.centred:
                    apart = tuple(place - centre - d for d in (di, dj))  # type: ignore[assignment]
                weights.append(shape.beta / (np.hypot(apart[0][:, None], apart[1][None, :]) + EPSILON))
        self.indices = torch.from_numpy(np.array(indices))  # [9, 4, x, y]
        self.shares = torch.from_numpy(np.array(shares).astype(np.float32))
        self.weights = torch.softmax(torch.from_numpy(np.array(weights).astype(np.float32)), 0)
        self.softness, self.z = softness, z

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        heights = (h.reshape(-1)[self.indices] * self.shares).sum(1)  # [9, x, y]
        out = torch.zeros((*heights.shape[1:], len(self.z)))
        for height, weight in zip(heights, self.weights, strict=True):
            out = out + weight[..., None] * torch.tanh((self.z - height[..., None]) / self.softness)
        return out


def fit(target: np.ndarray, size_m: float, nodes: int, shape: FieldShape, settings: PublishedSettings) -> PublishedFit:
    """`target` [y ascending, x] covers the division, metres, NaN where nothing is known; its side is the raster's."""
    side = len(target)
    if target.shape != (side, side) or side % nodes:
        raise ValueError(f"target {target.shape}: a square is accepted, its side a multiple of the {nodes} nodes")
    known = np.isfinite(target)
    if not known.any():
        raise ValueError("the height model holds no value here")
    start = start_heights(np.nan_to_num(target.astype(np.float64)), known.astype(np.float64), side // nodes)
    fill_holes(start)
    half, middle = size_m / 2, float(np.nanmin(target) + np.nanmax(target)) / 2
    step = 2 / settings.cells
    layers = int(np.ceil((np.nanmax(target) - middle) / half / step)) + LAYERS_BEYOND
    z = torch.arange(-layers, layers + 1, dtype=torch.float32) * step
    field = _Field(nodes, settings.cells + 1, shape, shape.softness_m / half, z)
    wanted = torch.from_numpy(np.where(known, (target - middle) / half, 0).astype(np.float32))
    mask = torch.from_numpy(known)

    h = torch.tensor((start - middle) / half, dtype=torch.float32, requires_grad=True)
    cubes = (settings.cells, settings.cells, len(z) - 1)
    raw = [torch.zeros((*cubes, *more), requires_grad=True) for more in ((8,), (12,), ())]
    optimiser = torch.optim.Adam([h, *raw], settings.lr)
    loss_of_steps: list[float] = []
    started = time.perf_counter()
    for _ in range(settings.steps):
        surface = _placed(extract(field(h), _weights(raw), split_in_four=True), step, float(z[0]))
        loss = _loss(surface, wanted, mask, settings)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        loss_of_steps.append(loss.item())
    seconds = time.perf_counter() - started
    with torch.no_grad():
        surface = _placed(extract(field(h), _weights(raw)), step, float(z[0]))
        vertices = surface.vertices.numpy().astype(np.float64) * half + (half, half, middle)
        heights = (h.numpy() * half + middle).astype(np.float32)
    return PublishedFit(heights, vertices, surface.triangles.numpy(), loss_of_steps, seconds)


def _weights(raw: list[torch.Tensor]) -> Weights:
    return Weights(*(1 + SPREAD * torch.tanh(part) for part in raw))


def _placed(surface: Surface, step: float, lowest: float) -> Surface:
    corner = torch.tensor([-1.0, -1.0, lowest])
    return Surface(surface.vertices * step + corner, surface.triangles, surface.deviation * step)


def _loss(surface: Surface, wanted: torch.Tensor, mask: torch.Tensor, settings: PublishedSettings) -> torch.Tensor:
    height, normal, seen = _rendered(surface, len(wanted))
    both = mask & seen
    loss = (height - wanted).abs()[both].sum() / mask.sum()
    loss = loss + settings.laplacian * _laplacian(surface)
    for axis in (0, 1):
        turn = torch.diff(normal, dim=axis).abs().sum(-1)
        loss = loss + settings.normal_tv * turn.mean()
    return loss + settings.regulariser * surface.deviation


def _rendered(surface: Surface, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Height and normal of what is seen from above at the centre of each pixel, differentiable in the vertices."""
    points: Any = surface.vertices.detach().numpy()
    fragments = rasterise(
        (points[:, :2] + 1) / 2 * side, points[:, 2], surface.triangles.numpy(), side, side, "largest"
    )
    seen = torch.from_numpy(fragments.seen)
    face = torch.from_numpy(np.maximum(fragments.face, 0).astype(np.int64))
    corners = surface.vertices[surface.triangles]  # [face, corner, axis]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = torch.linalg.cross(first, second)
    # The plane of a face: z falls by the normal's horizontal part over its vertical one.
    upward = torch.where(normals[:, 2].abs() < 1e-12, 1e-12, normals[:, 2])
    slope = -normals[:, :2] / upward[:, None]
    offset = corners[:, 0, 2] - (slope * corners[:, 0, :2]).sum(1)
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side * 2 - 1
    sx, sy = slope[:, 0][face], slope[:, 1][face]
    height = offset[face] + sx * centres[None, :] + sy * centres[:, None]
    return height, torch.nn.functional.normalize(normals, dim=1)[face], seen


def _laplacian(surface: Surface) -> torch.Tensor:
    """Mean distance of the vertices from the middle of their neighbours."""
    edges = torch.cat([surface.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    edges = torch.unique(torch.cat([edges, edges.flip(1)]), dim=0)
    sums = torch.zeros_like(surface.vertices).index_add(0, edges[:, 0], surface.vertices[edges[:, 1]])
    count = torch.bincount(edges[:, 0], minlength=len(sums)).clamp(min=1)[:, None]
    return (sums / count - surface.vertices).norm(dim=1).mean()
