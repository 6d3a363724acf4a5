"""All that a training is between two steps: network, averaged network, best so far, moments, counters."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch

from cityweave.errors import DataError
from cityweave.train.adamw import AdamW
from cityweave.train.checkpoint import Checkpoint
from cityweave.train.settings import LoopSettings


class TrainState:
    def __init__(self, model: torch.nn.Module, settings: LoopSettings, device: str) -> None:
        self.model = model.to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.best: dict[str, torch.Tensor] = {}
        self.step = 0
        self.best_figure = math.inf
        self.best_step = 0
        self.best_figures: dict[str, float] = {}
        self.without_better = 0
        self.seconds = 0.0
        self._settings = settings
        self._adamw = AdamW(dict(self.model.named_parameters()), settings.weight_decay)

    def learning_rate(self, step: int) -> float:
        """Of the update that makes step + 1: up in a line, down as a cosine."""
        s = self._settings
        up = min(1.0, (step + 1) / s.warmup_steps) if s.warmup_steps else 1.0
        way = max(0, step - s.warmup_steps) / max(1, s.steps - s.warmup_steps)
        down = s.final_rate + (1 - s.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, way)))
        return s.learning_rate * up * down

    def update(self) -> float:
        """One step along the gradients that have been summed; returns their length."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.clip_norm)
        self._adamw.update(self.learning_rate(self.step), self.step + 1)
        self._move_average()
        self.step += 1
        return float(norm)

    @torch.no_grad()
    def _move_average(self) -> None:
        """The average follows quickly at first, or it would remember the start for long."""
        keep = min(self._settings.ema, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
        for slow, fast in zip(self.average.buffers(), self.model.buffers(), strict=True):
            slow.copy_(fast)

    def judge(self, figure: float, figures: Mapping[str, float]) -> bool:
        """Take note of a validation; whether it is the best so far."""
        if figure < self.best_figure:
            self.best_figure, self.best_step, self.without_better = figure, self.step, 0
            self.best_figures = dict(figures)
            self.best = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
            return True
        self.without_better += 1
        return False

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        named |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        named |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        return named | self._adamw.tensors()

    def numbers(self) -> dict[str, Any]:
        return {
            "best_figure": self.best_figure if math.isfinite(self.best_figure) else None,
            "best_step": self.best_step,
            "best_figures": self.best_figures,
            "without_better": self.without_better,
            "seconds": round(self.seconds, 3),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        numbers = checkpoint.numbers
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
            self._adamw.restore(checkpoint.tensors)
            self.step = int(numbers["step"])
        except (KeyError, RuntimeError) as error:
            raise DataError(f"the checkpoint of step {numbers.get('step')} doesn't fit the network: {error}") from None
        device = next(self.model.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in parts.get("best", {}).items()}
        figure = numbers["best_figure"]
        self.best_figure = math.inf if figure is None else figure
        self.best_step, self.best_figures = numbers["best_step"], numbers["best_figures"]
        self.without_better, self.seconds = numbers["without_better"], numbers["seconds"]
