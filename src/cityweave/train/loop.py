"""The loop that every model is trained by.

Batches, noise and the first weights are drawn from the seed, a code and the step's number alone, and a checkpoint holds
all that is left: so a training that was killed at any step and gone on with ends in the same bytes. On a CPU, that is,
with one number of threads; a GPU adds up in an order of its own.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cityweave.errors import CityweaveError
from cityweave.train.checkpoint import latest_checkpoint, save_checkpoint
from cityweave.train.settings import CheckpointSettings, LoopSettings
from cityweave.train.state import TrainState
from cityweave.train.watching import Send

# Codes of random draws; one that is added later takes a new number.
CODE_INIT, CODE_BATCH = 201, 202
LOG, CHECKPOINTS = "log.jsonl", "checkpoints"

Batch = dict[str, torch.Tensor]


class Data(Protocol):
    @property
    def digest(self) -> str:
        """Of all that it holds."""


class Task(Protocol):
    """What a model brings along."""

    watch: str  # the validation figure that decides which weights are best; the lower the better
    data: Data

    def model(self) -> torch.nn.Module:
        """A new network; torch's random numbers are seeded when this is called."""

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Samples drawn with `rng` and nothing else; noise that the model needs is drawn here, too."""

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Parts of the loss, already weighted: their sum is what is brought down."""

    def validate(self, model: torch.nn.Module, device: str) -> dict[str, float]:
        """Figures on what training never sees."""

    def baselines(self) -> dict[str, dict[str, float]]:
        """The same figures for answers that need no model."""

    def card(self) -> dict[str, Any]:
        """What it takes to build the network again and to use it; kept in the weights' file."""


class TrainingDiverged(CityweaveError):  # noqa: N818 - says what happened
    """The loss or its gradient is no number any more."""


class Interrupted(Exception):  # noqa: N818 - asked for from outside, no error
    """A signal asked the loop to leave; its state is saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"signal {signal_number}, saved at step {step}")
        self.signal_number = signal_number
        self.step = step


@dataclass
class Requests:
    """What signals ask for. Handlers only leave a note: the loop looks between two steps, when its state is whole."""

    save: bool = False
    leave: int | None = None

    def on_save(self, signal_number: int, _: object = None) -> None:
        self.save = True

    def on_leave(self, signal_number: int, _: object = None) -> None:
        self.leave = signal_number


@dataclass(frozen=True)
class Outcome:
    weights: dict[str, torch.Tensor]  # averaged, of the best validation
    steps: int
    best_step: int
    stopped: str  # "steps", or "patience"
    figures: dict[str, float]
    seconds: float
    starts: int
    parameters: int


@dataclass
class Loop:
    task: Task
    settings: LoopSettings
    checkpoints: CheckpointSettings
    folder: Path
    identity: str  # hash of the configuration
    seed: int
    device: str = "cpu"
    requests: Requests = field(default_factory=Requests)
    send: Send | None = None  # where figures go beside the log

    def run(self) -> Outcome:
        fix_arithmetic(self.settings.threads, self.device)
        self.folder.mkdir(parents=True, exist_ok=True)
        state = TrainState(self._new_model(), self.settings, self.device)
        saved = latest_checkpoint(self.folder / CHECKPOINTS, self.identity)
        if saved:
            state.restore(saved)
        log = Log.resume(self.folder / LOG, state.step, self.send)
        log.write(event="start", step=state.step, **_whereabouts())
        before = state.seconds
        started = time.perf_counter()
        recent: list[dict[str, float]] = []
        while state.step < self.settings.steps and not self._patience_is_over(state):
            parts, norm = self._step(state)
            recent.append(parts)
            state.seconds = before + time.perf_counter() - started
            if state.step % self.settings.log_every == 0 or state.step == self.settings.steps:
                log.progress(state, recent, norm)
                recent = []
            self._validate(state, log)
            self._save(state, log)
        if not state.best:  # a checkpoint of the last step always holds one
            raise CityweaveError(f"{self.folder}: no validation gave a number; see {LOG}")
        log.write(event="end", step=state.step, seconds=round(state.seconds, 2))
        return Outcome(
            weights=state.best,
            steps=state.step,
            best_step=state.best_step,
            stopped="steps" if state.step >= self.settings.steps else "patience",
            figures=state.best_figures,
            seconds=state.seconds,
            starts=log.starts,
            parameters=sum(p.numel() for p in state.model.parameters()),
        )

    def _new_model(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng([self.seed, CODE_INIT]).integers(2**62)))
            return self.task.model()

    def _patience_is_over(self, state: TrainState) -> bool:
        return self.settings.patience is not None and state.without_better >= self.settings.patience

    def _step(self, state: TrainState) -> tuple[dict[str, float], float]:
        state.model.train()
        sums: dict[str, float] = {}
        mixed = self.settings.precision == "bf16"
        for part in range(self.settings.accumulate):
            rng = np.random.default_rng([self.seed, CODE_BATCH, state.step, part])
            batch = {name: t.to(self.device) for name, t in self.task.batch(rng, self.settings.batch).items()}
            with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=mixed):
                parts = self.task.losses(state.model, batch)
            loss = torch.stack([part.float() for part in parts.values()]).sum() / self.settings.accumulate
            loss.backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / self.settings.accumulate
        norm = state.update()
        if not (math.isfinite(norm) and all(math.isfinite(value) for value in sums.values())):
            raise TrainingDiverged(
                f"step {state.step}: loss {sums}, length of the gradient {norm}; a lower loop.learning_rate or a "
                "longer loop.warmup_steps may help"
            )
        return sums, norm

    def _validate(self, state: TrainState, log: Log) -> None:
        if state.step % self.settings.validate_every and state.step != self.settings.steps:
            return
        started = time.perf_counter()
        with torch.no_grad():
            figures = self.task.validate(state.average, self.device)
        better = state.judge(figures[self.task.watch], figures)
        rounded = {name: _figure(value) for name, value in figures.items()}
        log.write(step=state.step, validation=rounded, best=better, seconds=round(time.perf_counter() - started, 2))

    def _save(self, state: TrainState, log: Log) -> None:
        asked = self.requests.save or self.requests.leave is not None
        last = state.step == self.settings.steps or self._patience_is_over(state)
        if asked or last or state.step % self.checkpoints.every == 0:
            self.requests.save = False
            save_checkpoint(
                self.folder / CHECKPOINTS, state.step, state.tensors(), state.numbers(), self.identity,
                self.checkpoints.keep,
            )  # fmt: skip
            if asked:
                log.write(event="saved on a signal", step=state.step)
        if self.requests.leave is not None and not last:
            raise Interrupted(self.requests.leave, state.step)


class Log:
    """One line a fact. Lines beyond the step that is gone on from are dropped: each step stands there once."""

    def __init__(self, path: Path, starts: int, send: Send | None = None) -> None:
        self.path = path
        self.starts = starts
        self._send = send

    @staticmethod
    def resume(path: Path, step: int, send: Send | None = None) -> Log:
        kept = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                values = json.loads(line)
            except ValueError:  # cut off when the machine went down
                continue
            if "event" in values or values["step"] <= step:
                kept.append(line)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        aside.write_text("".join(f"{line}\n" for line in kept))
        aside.replace(path)
        return Log(path, 1 + sum('"event": "start"' in line for line in kept), send)

    def progress(self, state: TrainState, recent: list[dict[str, float]], norm: float) -> None:
        """Means over the updates since the last such line, or since the start of this process."""
        parts = {name: math.fsum(each[name] for each in recent) / len(recent) for name in recent[0]}
        self.write(
            step=state.step,
            loss=_figure(sum(parts.values())),
            parts={name: _figure(value) for name, value in parts.items()},
            learning_rate=_figure(state.learning_rate(state.step - 1)),
            gradient=_figure(norm),
            seconds=round(state.seconds, 2),
        )

    def write(self, **values: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        if self._send is not None:
            self._send(values)


def fix_arithmetic(threads: int, device: str) -> None:
    """The same sums in the same order. On a GPU some operations have no such form: there it is a wish."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same as torch.use_deterministic_algorithms, which first loads a compiler for four seconds.
    torch.set_deterministic_debug_mode("warn" if device.startswith("cuda") else "error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # a tenth of the time, and nothing reads such memory


def _figure(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _whereabouts() -> dict[str, str]:
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID"))
    if job is None:
        return {"host": platform.node()}
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "host": os.environ.get("SLURMD_NODENAME", platform.node()),
        "job": job if task is None else f"{job}_{task}",
        "restarts": os.environ.get("SLURM_RESTART_COUNT", "0"),
    }
