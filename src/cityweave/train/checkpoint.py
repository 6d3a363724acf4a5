"""Checkpoints: `checkpoints/step-000400/` with tensors.safetensors and state.json, written aside and renamed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityweave.errors import CityweaveError, ConfigError
from cityweave.io.weights import load_tensors, save_tensors
from cityweave.manifest import remove, write_json

if TYPE_CHECKING:
    import torch

TENSORS, STATE = "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    tensors: dict[str, torch.Tensor]
    numbers: dict[str, Any]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def saved_steps(folder: Path) -> list[int]:
    """Steps with a checkpoint, rising."""
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match[1]) for match in names if match)


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any], identity: str, keep: int
) -> None:
    """`numbers` is everything that is no tensor: step, best figure, patience, seconds."""
    final = folder / _name(step)
    aside = folder / f".{final.name}.{os.getpid()}.tmp"
    remove(aside)
    aside.mkdir(parents=True)
    save_tensors(aside / TENSORS, tensors, {"step": step})
    write_json(aside / STATE, {**numbers, "step": step, "config_hash": identity, "sha256": _sha256(aside / TENSORS)})
    if final.exists():  # the same step reached again: the same bytes
        remove(final)
    aside.rename(final)
    for old in saved_steps(folder)[:-keep]:
        remove(folder / _name(old))
    for left in folder.glob(".step-*.tmp"):  # by an attempt that was killed while it saved
        remove(left)


def latest_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """The last whole checkpoint; a damaged one (a disk that lost writes) is passed over for the one before."""
    for step in reversed(saved_steps(folder)):
        place = folder / _name(step)
        try:
            numbers = json.loads((place / STATE).read_text())
            whole = _sha256(place / TENSORS) == numbers["sha256"]
        except (OSError, ValueError, KeyError):
            whole = False
        if not whole:
            print(f"{place} is damaged and passed over", flush=True)
            continue
        if numbers["config_hash"] != identity:
            raise ConfigError(
                f"{place} belongs to another configuration; accepted: the same one as before, or another name"
            )
        try:
            return Checkpoint(load_tensors(place / TENSORS)[0], numbers)
        except CityweaveError as error:
            print(f"{place} is passed over: {error}", flush=True)
    return None


def _name(step: int) -> str:
    return f"step-{step:07d}"
