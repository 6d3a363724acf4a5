"""Weights on disk: safetensors only, with what is needed to build the network again in the file's header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityweave.errors import DataError, MissingCapability

if TYPE_CHECKING:
    import torch

CARD = "cityweave"  # one key for all: the order of several would change from file to file


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Whole or absent; equal tensors and card give equal bytes."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    data = save(plain, metadata={CARD: json.dumps(card, sort_keys=True)})
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors on the CPU and the card."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingCapability(f"weights {path} are not there; accepted: a .safetensors file written by a training")
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise DataError(
            f"{path} is a pickle, which could run code when it is read; accepted: a .safetensors file "
            "(convert it where you trust it)"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        card = json.loads(metadata.get(CARD, "{}"))
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(
            f"{path} is damaged or cut off ({path.stat().st_size} bytes; {error}); accepted: a whole .safetensors file"
        ) from None
    return tensors, card


def fill_model(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: Path | str) -> None:
    """Put tensors into a network that must have just these names and shapes."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        other = [
            f"{name} is {found[name]}, not {wanted[name]}"
            for name in sorted(wanted.keys() & found.keys())
            if wanted[name] != found[name]
        ]
        told = [
            *([f"missing: {_few(missing)}"] if missing else []),
            *([f"not of this network: {_few(extra)}"] if extra else []),
            *([f"of another size: {_few(other)}"] if other else []),
        ]
        raise DataError(f"{where} holds weights of another network ({'; '.join(told)})")
    model.load_state_dict(dict(tensors))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
