"""AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2) with its state in plain sight.

torch's own loads a compiler for five seconds when it is made, at every start of every job. A test holds the two side by
side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """Matrices and kernels decay; biases and the scales of norms don't. Frozen parameters are left alone."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], weight_decay: float) -> None:
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        self._names = list(trained)
        self._parameters = list(trained.values())
        self._decays = [weight_decay if p.ndim > 1 else 0.0 for p in self._parameters]
        self._first = [torch.zeros_like(p) for p in self._parameters]
        self._second = [torch.zeros_like(p) for p in self._parameters]

    @torch.no_grad()
    def update(self, rate: float, step: int) -> None:
        """Update number `step`, from 1 on, along the gradients, which are then dropped. None counts as zero."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        beta1, beta2 = BETAS
        torch._foreach_mul_(self._parameters, [1 - rate * decay for decay in self._decays])
        torch._foreach_lerp_(self._first, gradients, 1 - beta1)
        torch._foreach_mul_(self._second, beta2)
        torch._foreach_addcmul_(self._second, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(self._second)
        torch._foreach_div_(scale, math.sqrt(1 - beta2**step))
        torch._foreach_add_(scale, EPSILON)
        torch._foreach_addcdiv_(self._parameters, self._first, scale, -rate / (1 - beta1**step))
        for parameter in self._parameters:
            parameter.grad = None

    def tensors(self) -> dict[str, torch.Tensor]:
        moments = zip(MOMENTS, (self._first, self._second), strict=True)
        return {
            f"{moment}/{name}": tensor
            for moment, tensors in moments
            for name, tensor in zip(self._names, tensors, strict=True)
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
