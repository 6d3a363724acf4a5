"""The fit of `direct` in tensors, for a GPU: the same steps on whole arrays, in float32. Needs numpy and torch alone.

It follows `direct._solve` term by term; tests hold the two together on a CPU.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

SHARPEST_M2 = 0.0025  # as in `direct`, like FLAT_SHARE
FLAT_SHARE = 1.0
WARM_UP = 6


class _Data:
    """Roots of all pixels, [phase, j, i], and their gradient; heights are padded by 2."""

    def __init__(
        self,
        target: torch.Tensor,
        weight: torch.Tensor,
        tables: torch.Tensor,
        off: np.ndarray,
        softness: float,
        centred: bool,
    ) -> None:
        self.target, self.weight, self.softness, self.centred = target, weight, softness, centred
        self.w = tables[:, :, None, None]  # [phase, term, 1, 1]
        self.corners = [_corner(*place) for place in off]
        self.rows, self.cols = target.shape[1:]

    def step(self, h: torch.Tensor, z: torch.Tensor, move: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The roots after one clamped Newton step, and the gradient of sum weight |z - target| by `h`."""
        heights = self._seen(h)
        terms = torch.stack([_shifted(heights, k // 3, k % 3, self.rows, self.cols) for k in range(9)], 1)
        low, high = terms.amin(1), terms.amax(1)
        at = torch.minimum(torch.maximum(z, low), high)
        t = torch.tanh((at[:, None] - terms) / self.softness)
        parts = self.w * (1 - t * t)
        total = parts.sum(1) + 1e-9
        newton = at - ((self.w * t).sum(1) / total * self.softness).clamp(-move, move)
        flat = (high - low) / self.softness < FLAT_SHARE
        root = torch.where(flat, (self.w * terms).sum(1), torch.minimum(torch.maximum(newton, low), high))
        off = root - self.target
        pull = self.weight * off / torch.sqrt(off * off + SHARPEST_M2)
        share = torch.where(flat[:, None], self.w, parts / total[:, None])
        return root, self._scattered(pull[:, None] * share, h)

    def _seen(self, h: torch.Tensor) -> torch.Tensor:
        """The heights that pixels hang on, of every phase: the nodes' own, or as sampled beside them."""
        if not self.centred:
            return h[None]
        out = torch.zeros((len(self.corners), *h.shape), device=h.device)
        rows, cols = h.shape
        for q, (tx, ty, left, low) in enumerate(self.corners):
            for b, a, share in _bilinear(tx, ty):
                part = h[1 + low + b : rows - 1 + low + b, 1 + left + a : cols - 1 + left + a]
                out[q, 1:-1, 1:-1] += share * part
        return out

    def _scattered(self, pull: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        if not self.centred:
            pull = pull.sum(0, keepdim=True)
        of_heights = torch.zeros((len(pull), *h.shape), device=h.device)
        for k in range(9):
            _shifted(of_heights, k // 3, k % 3, self.rows, self.cols).add_(pull[:, k])
        if not self.centred:
            return of_heights[0]
        grad = torch.zeros_like(h)
        rows, cols = h.shape
        for q, (tx, ty, left, low) in enumerate(self.corners):
            for b, a, share in _bilinear(tx, ty):
                into = grad[1 + low + b : rows - 1 + low + b, 1 + left + a : cols - 1 + left + a]
                into.add_(of_heights[q, 1:-1, 1:-1], alpha=share)
        return grad


def _shifted(padded: torch.Tensor, down: int, right: int, rows: int, cols: int) -> torch.Tensor:
    return padded[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + cols]


def _corner(off_x: float, off_y: float) -> tuple[float, float, int, int]:
    """Bilinear fractions of a place near a node, and the lower-left node of it from that node."""
    left, low = (0 if off >= 0 else -1 for off in (off_x, off_y))
    return float(off_x - left), float(off_y - low), left, low


def _bilinear(tx: float, ty: float) -> tuple[tuple[int, int, float], ...]:
    return (0, 0, (1 - tx) * (1 - ty)), (0, 1, tx * (1 - ty)), (1, 0, (1 - tx) * ty), (1, 1, tx * ty)


def _smoothing(h: torch.Tensor, pitch: float, tv: float, laplacian: float, normal: float, jump: float) -> torch.Tensor:
    """Gradients of the regularisers."""
    grad = torch.zeros_like(h)
    own = grad[1:-1, 1:-1]
    middle = h[1:-1, 1:-1]
    sides = (h[1:-1, :-2], h[1:-1, 2:]), (h[:-2, 1:-1], h[2:, 1:-1])
    of_sides = (grad[1:-1, :-2], grad[1:-1, 2:]), (grad[:-2, 1:-1], grad[2:, 1:-1])
    for (before, after), (of_before, of_after) in zip(sides, of_sides, strict=True):
        d, e = middle - before, after - middle
        g = tv * e / torch.sqrt(e * e + SHARPEST_M2)
        own -= g
        of_after += g
        if normal > 0:
            ld, le = torch.sqrt(pitch * pitch + d * d), torch.sqrt(pitch * pitch + e * e)
            turn = e / le - d / ld
            g = normal * turn / torch.sqrt(turn * turn + SHARPEST_M2) * pitch * pitch
            first, second = -g / ld**3, g / le**3
            of_before -= first
            own += first - second
            of_after += second
    if laplacian > 0:
        around = [(other, into) for pair, of_pair in zip(sides, of_sides, strict=True)
                  for other, into in zip(pair, of_pair, strict=True)]  # fmt: skip
        rises = [torch.where((other - middle).abs() < jump, other - middle, 0) for other, _ in around]
        bend = 0.5 * laplacian * torch.stack(rises).sum(0)
        own -= bend
        for other, into in around:
            into += torch.where((other - middle).abs() < jump, 0.25 * bend, 0)
    return grad


def solve(
    h: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    tables: np.ndarray,
    off: np.ndarray,
    numbers: tuple[Any, ...],
    device: str,
) -> int:
    """As `direct._solve`, which takes the same numbers: moves `h` (padded by 2) in place; the steps it took."""
    softness, centred, pitch, steps, lr, tv, laplacian, normal, jump, tolerance = numbers
    middle = float(np.median(h))  # of float32's 24 bits none is to go to the city's altitude

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    nodes = tensor(h - middle)
    data = _Data(tensor(target - middle), tensor(weight), tensor(tables), off, softness, centred)
    z = nodes[None, 2:-2, 2:-2].expand(data.target.shape).clone()
    for _ in range(WARM_UP):
        z, _ = data.step(nodes, z, 1e9)
    first, second = torch.zeros_like(nodes), torch.zeros_like(nodes)
    used = steps
    for step in range(steps):
        rate = lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        z, grad = data.step(nodes, z, 8 * softness)
        grad = grad + _smoothing(nodes, pitch, tv, laplacian, normal, jump)
        first = 0.9 * first + 0.1 * grad
        second = 0.99 * second + 0.01 * grad * grad
        d = rate * (first / (1 - 0.9 ** (step + 1))) / (torch.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-3)
        inner = nodes[2:-2, 2:-2] - d[2:-2, 2:-2]
        nodes = torch.nn.functional.pad(inner[None, None], (2, 2, 2, 2), mode="replicate")[0, 0]
        if float(d[2:-2, 2:-2].abs().mean()) < tolerance:
            used = step + 1
            break
    h[:] = nodes.cpu().numpy().astype(np.float64) + middle
    return used
