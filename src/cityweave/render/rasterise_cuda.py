"""The z-buffer on a GPU, by nvdiffrast: the same question as `rasterise`, answered within a tolerance.

Its screen positions are multiples of 1/16 sample and its numbers float32, so that samples beside an edge may see the
other side of it. nvdiffrast's licence is non-commercial: it is used where it is installed, and not needed.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave import gpu
from cityweave.render.rasterise import NO_FACE, Fragments, Nearest, checked, rasterise

_BLOCK_PX = 2048  # the largest picture that it draws at once


def rasterise_here(
    screen: NDArray[Any],
    depth: NDArray[Any],
    faces: NDArray[Any],
    width: int,
    height: int,
    nearest: Nearest = "smallest",
    perspective: bool = False,
) -> Fragments:
    """On the GPU that the job holds, where nvdiffrast is installed; otherwise on the CPU."""
    on_gpu = gpu.in_use() == "cuda" and find_spec("nvdiffrast") is not None
    return (rasterise_cuda if on_gpu else rasterise)(screen, depth, faces, width, height, nearest, perspective)


def to_clip(
    screen: NDArray[np.float64],
    depth: NDArray[np.float64],
    block: tuple[int, int, int, int],
    nearest: Nearest,
    perspective: bool,
) -> NDArray[np.float32]:
    """(n, 4) positions from which OpenGL's division by w gives -1..1 over the block (left, top, width, height), rows
    downwards, and the nearest the smallest depth."""
    left, top, width, height = block
    x, y = 2 * (screen[:, 0] - left) / width - 1, 2 * (screen[:, 1] - top) / height - 1
    known = np.isfinite(depth)
    low, high = (float(depth[known].min()), float(depth[known].max())) if known.any() else (0.0, 1.0)
    slack = 0.01 * max(high - low, 1e-3)
    if not perspective:
        z = 2 * (depth - low + slack) / (high - low + 2 * slack) - 1
        z = -z if nearest == "largest" else z
        return np.stack([x, y, z, np.ones_like(z)], axis=1).astype(np.float32)
    near, far = low / 1.01, high + slack
    z = (far + near) / (far - near) - 2 * far * near / ((far - near) * depth)
    return (np.stack([x, y, z, np.ones_like(z)], axis=1) * depth[:, None]).astype(np.float32)


@cache
def _context() -> Any:
    import nvdiffrast.torch as dr

    return dr.RasterizeCudaContext()


def rasterise_cuda(
    screen_nx2: NDArray[Any],
    depth_n: NDArray[Any],
    faces_mx3: NDArray[Any],
    width: int,
    height: int,
    nearest: Nearest = "smallest",
    perspective: bool = False,
) -> Fragments:
    import nvdiffrast.torch as dr
    import torch

    screen, depth, faces = checked(screen_nx2, depth_n, faces_mx3, (width, height), nearest)
    finite = np.isfinite(screen).all(axis=1) & np.isfinite(depth)
    numbers = np.flatnonzero(finite[faces].all(axis=1))
    face = np.full((height, width), NO_FACE, np.int32)
    seen_depth = np.full((height, width), np.nan, np.float32)
    bary = np.zeros((height, width, 2), np.float32)
    if not len(numbers):
        return Fragments(face, seen_depth, bary)
    screen, depth = np.where(finite[:, None], screen, 0), np.where(finite, depth, 1)
    corners = torch.from_numpy(faces[numbers]).cuda()
    of_corner = torch.from_numpy(depth.astype(np.float32)).cuda()[corners.long()]
    for top in range(0, height, _BLOCK_PX):
        for left in range(0, width, _BLOCK_PX):
            rows, cols = min(_BLOCK_PX, height - top), min(_BLOCK_PX, width - left)
            # It wants sides that are multiples of 8.
            high, wide = -(-rows // 8) * 8, -(-cols // 8) * 8
            clip = torch.from_numpy(to_clip(screen, depth, (left, top, wide, high), nearest, perspective)).cuda()
            drawn, _ = dr.rasterize(_context(), clip[None], corners, (high, wide))
            drawn = drawn[0, :rows, :cols]
            hit = drawn[..., 3].long() - 1
            u, v = drawn[..., 0], drawn[..., 1]
            weights = torch.stack([u, v, 1 - u - v], dim=-1)
            z = (weights * of_corner[hit.clamp(min=0)]).sum(dim=-1)
            part = (slice(top, top + rows), slice(left, left + cols))
            found = hit.cpu().numpy()
            face[part] = np.where(found >= 0, numbers[np.maximum(found, 0)], NO_FACE)
            seen_depth[part] = np.where(found >= 0, z.cpu().numpy(), np.nan)
            bary[part] = np.where((found >= 0)[..., None], weights[..., :2].cpu().numpy(), 0)
    return Fragments(face, seen_depth, bary)
