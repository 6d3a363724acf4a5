"""What the weights say of themselves, read without torch: for checks before any job starts."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cityweave.config import Config
from cityweave.errors import ConfigError, DataError, MissingCapability

SHIPPED = Path(__file__).with_name("small.safetensors")
KIND = "cityscale"
CARD = "cityweave"
MOST_HEADER_B = 100_000_000
_NEEDED = {"small": ("torch",), "marigold": ("torch", "diffusers")}
_EXTRA = {"small": "models", "marigold": "pipelines"}


def read_card(path: Path) -> dict[str, Any]:
    """The header of a safetensors file is its length and JSON."""
    if not path.is_file():
        raise MissingCapability(
            f"cityscale.weights: {path} is not there; accepted: a .safetensors file that cityweave train cityscale "
            "wrote, or no such key for the weights that come with cityweave"
        )
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length)) if length < MOST_HEADER_B else {}
        end = 8 + length + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is no safetensors file; accepted: one that cityweave train wrote") from None
    if path.stat().st_size != end:
        raise DataError(
            f"{path} is damaged or cut off: it has {path.stat().st_size} bytes, its header tells of {end}; accepted: "
            "the whole file"
        )
    card: dict[str, Any] = json.loads(header.get("__metadata__", {}).get(CARD, "{}"))
    if card.get("kind") != KIND:
        raise DataError(f"{path} holds weights of {card.get('kind', 'an unknown network')!r}; accepted: {KIND!r}")
    return card


def require_cityscale(config: Config) -> None:
    """Refuse weights that are missing, cut off or of another kind, and a machine that can't run them."""
    if config.dsm.method == "stereo":
        return
    settings = config.cityscale
    card = read_card(settings.weights or SHIPPED)
    backbone = card["backbone"]
    if missing := [name for name in _NEEDED[backbone] if find_spec(name) is None]:
        raise MissingCapability(
            f"heights from one picture need {' and '.join(missing)}: make setup EXTRAS={_EXTRA[backbone]}, or pip "
            f"install 'cityweave[{_EXTRA[backbone]}]'; accepted without it: dsm.method: stereo"
        )
    multiple = 2 * card["multiple_px"]
    size_px = settings.window_m / card["gsd_m"]
    if size_px % multiple:
        raise ConfigError(
            f"cityscale.window_m is {settings.window_m:g}; accepted with these weights: multiples of "
            f"{multiple * card['gsd_m']:g}"
        )
