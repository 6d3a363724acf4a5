"""Fits node heights as published: every step extracts a mesh by FlexiCubes, renders its height map, and follows the
gradient back.

The terms (A4-A6 of Orbit2Ground): L1 between rendered and target heights, uniform Laplacian of the mesh, total
variation of the rendered normals, and FlexiCubes' own regulariser. Coordinates are those of the paper: a division spans
-1 to 1 in x and y, and z has the same scale, so weights and learning rate mean what they mean there. Only layers of the
cube grid that the target's heights reach are computed. Two variants are for comparison: every value of the volume free
instead of the monotone field, and Chamfer distances to points instead of the height map.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial import cKDTree

from cityweave.geometry.field import EPSILON, FieldShape
from cityweave.geometry.flexicubes import Surface, Weights, extract
from cityweave.geometry.target import fill_holes, start_heights
from cityweave.render.rasterise import rasterise

LAYERS_BEYOND = 3  # of cubes below and above the target's heights
SPREAD = 0.99  # learnable weights lie within 1 -+ this


@dataclass(frozen=True)
class PublishedSettings:
    cells: int = 128  # cubes along a side
    unit_m: float = 250.0  # metres to one of the paper's units
    steps: int = 2000
    lr: float = 0.01
    data: Literal["height", "chamfer"] = "height"
    laplacian: float = 0.5
    normal_tv: float = 0.01
    regulariser: float = 0.1
    monotone: bool = True  # else every value of the volume is free


@dataclass(frozen=True)
class PublishedFit:
    h: np.ndarray  # float32 [j, i], metres; as at the start when the volume is free
    vertices_m: np.ndarray  # from the south-western corner; heights as in the target
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
    """`target` [y ascending, x] covers a square of `size_m`, metres, NaN where nothing is known; `nodes` a side."""
    side = len(target)
    if target.shape != (side, side) or side % nodes:
        raise ValueError(f"target {target.shape}: a square is accepted, its side a multiple of the {nodes} nodes")
    known = np.isfinite(target)
    if not known.any():
        raise ValueError("the height model holds no value here")
    start = start_heights(np.nan_to_num(target.astype(np.float64)), known.astype(np.float64), side // nodes)
    fill_holes(start)
    unit, middle = settings.unit_m, float(np.nanmin(target) + np.nanmax(target)) / 2
    reach = size_m / 2 / unit
    step = 2 * reach / settings.cells
    layers = int(np.ceil((np.nanmax(target) - middle) / unit / step)) + LAYERS_BEYOND
    z = torch.arange(-layers, layers + 1, dtype=torch.float32) * step
    field = _Field(nodes, settings.cells + 1, shape, shape.softness_m / unit, z)
    data = (_Points if settings.data == "chamfer" else _HeightMap)(((target - middle) / unit).astype(np.float32), reach)

    h = torch.tensor((start - middle) / unit, dtype=torch.float32, requires_grad=settings.monotone)
    volume = None if settings.monotone else field(h).detach().requires_grad_()
    cubes = (settings.cells, settings.cells, len(z) - 1)
    raw = [torch.zeros((*cubes, *more), requires_grad=True) for more in ((8,), (12,), ())]
    optimiser = torch.optim.Adam([h if volume is None else volume, *raw], settings.lr, fused=True)
    corner = torch.tensor([-reach, -reach, float(z[0])])

    def surface(split_in_four: bool) -> Surface:
        weights = Weights(*(1 + SPREAD * torch.tanh(part) for part in raw))
        found = extract(field(h) if volume is None else volume, weights, split_in_four)
        return Surface(found.vertices * step + corner, found.triangles, found.deviation * step)

    loss_of_steps: list[float] = []
    started = time.perf_counter()
    for _ in range(settings.steps):
        loss = _loss(surface(split_in_four=True), data, reach, side, settings)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        loss_of_steps.append(loss.item())
    seconds = time.perf_counter() - started
    with torch.no_grad():
        last = surface(split_in_four=False)
        vertices = last.vertices.numpy().astype(np.float64) * unit + (size_m / 2, size_m / 2, middle)
        heights = (h.numpy() * unit + middle).astype(np.float32)
    return PublishedFit(heights, vertices, last.triangles.numpy(), loss_of_steps, seconds)


class _HeightMap:
    """The mean distance of the rendered heights from the known ones (A4)."""

    def __init__(self, target: np.ndarray, reach: float) -> None:
        known = np.isfinite(target)
        self.wanted, self.known = torch.from_numpy(np.where(known, target, 0)), torch.from_numpy(known)

    def __call__(self, surface: Surface, height: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return (height - self.wanted).abs()[self.known & seen].sum() / self.known.sum()


class _Points:
    """The mean of the distances from points of the target to the mesh and back (Chamfer), on random samples."""

    SAMPLES = 16384

    def __init__(self, target: np.ndarray, reach: float) -> None:
        rows, cols = np.nonzero(np.isfinite(target))
        place = (np.stack([cols, rows], axis=1) + 0.5) * (2 * reach / len(target)) - reach
        self.points = np.column_stack([place, target[rows, cols]]).astype(np.float32)
        self.tree = cKDTree(self.points)
        self.draw = torch.Generator().manual_seed(0)

    def __call__(self, surface: Surface, height: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        corners = surface.vertices[surface.triangles]
        with torch.no_grad():
            normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            face = torch.multinomial(normal.norm(dim=1), self.SAMPLES, replacement=True, generator=self.draw)
            s, t = torch.rand((2, self.SAMPLES, 1), generator=self.draw)
            s, t = torch.where(s + t > 1, 1 - s, s), torch.where(s + t > 1, 1 - t, t)
            chosen = torch.randint(len(self.points), (self.SAMPLES,), generator=self.draw).numpy()
        a, b, c = corners[face].unbind(1)
        sampled = a + s * (b - a) + t * (c - a)
        places = sampled.detach().numpy()
        nearest = torch.from_numpy(self.points[self.tree.query(places)[1]])
        wanted = self.points[chosen]
        back = sampled[torch.from_numpy(cKDTree(places).query(wanted)[1])]
        return ((sampled - nearest).norm(dim=1).mean() + (back - torch.from_numpy(wanted)).norm(dim=1).mean()) / 2


def _loss(
    surface: Surface, data: _HeightMap | _Points, reach: float, side: int, settings: PublishedSettings
) -> torch.Tensor:
    height, normal, seen = _rendered(surface, reach, side)
    loss = data(surface, height, seen)
    if settings.laplacian:
        loss = loss + settings.laplacian * _laplacian(surface)
    if settings.normal_tv:
        for axis in (0, 1):
            loss = loss + settings.normal_tv * torch.diff(normal, dim=axis).abs().sum(-1).mean()
    return loss + settings.regulariser * surface.deviation


def _rendered(surface: Surface, reach: float, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Height and normal of what is seen from above at the centre of each pixel, differentiable in the vertices."""
    points: Any = surface.vertices.detach().numpy()
    fragments = rasterise(
        (points[:, :2] / reach + 1) / 2 * side, points[:, 2], surface.triangles.numpy(), side, side, "largest"
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
    centres = ((torch.arange(side, dtype=torch.float32) + 0.5) / side * 2 - 1) * reach
    sx, sy = slope[:, 0][face], slope[:, 1][face]
    height = offset[face] + sx * centres[None, :] + sy * centres[:, None]
    return height, torch.nn.functional.normalize(normals, dim=1)[face], seen


def _laplacian(surface: Surface) -> torch.Tensor:
    """Mean distance of the vertices from the middle of their neighbours."""
    edges = torch.cat([surface.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    edges = torch.cat([edges, edges.flip(1)])
    key = torch.unique(edges[:, 0] * len(surface.vertices) + edges[:, 1])  # by far quicker than unique rows
    here, there = key // len(surface.vertices), key % len(surface.vertices)
    sums = torch.zeros_like(surface.vertices).index_add(0, here, surface.vertices[there])
    count = torch.bincount(here, minlength=len(sums)).clamp(min=1)[:, None]
    return (sums / count - surface.vertices).norm(dim=1).mean()
