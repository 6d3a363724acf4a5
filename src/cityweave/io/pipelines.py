"""Models in the folder layout of diffusers: found on this machine, never fetched, never unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cityweave.errors import DataError, MissingCapability


def model_folder(model: str, parts: Sequence[str], what: str) -> Path:
    """The folder of a model: `model` itself, or where the hub's cache on this machine has it."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(model, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError):
            wanted = " ".join(f"'{part}/*'" for part in parts)
            raise MissingCapability(
                f"the model {model} is neither a folder nor in the hub's cache here; accepted: a folder with "
                f"{' and '.join(parts)}, or a hub id after: hf download {model} --include {wanted}"
            ) from None
    for part in parts:
        if not (folder / part / "config.json").is_file():
            raise MissingCapability(f"{folder} has no {part}/config.json; accepted: the folder of {what}")
        if not any((folder / part).glob("*.safetensors")):
            found = "only a pickle, which could run code" if any((folder / part).glob("*.bin")) else "no weights"
            raise DataError(f"{folder / part} holds {found}; accepted: weights as .safetensors")
    return folder


def load_part(folder: Path, part: str, kind: Any, dtype: Any) -> Any:
    try:
        return kind.from_pretrained(
            folder, subfolder=part, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"{folder / part} can't be read as {kind.__name__}: {error}") from None
