"""What the weights say of themselves, read without torch: for checks before any job starts."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cityweave.config import Config
from cityweave.errors import ConfigError, DataError, MissingCapability
from cityweave.plan import resolved_sources

SHIPPED = Path(__file__).with_name("small.safetensors")
KIND = "cityscale"
CARD = "cityweave"
SMALL_DESIGN = 2  # of the layers of `small`; one more when they change
SOUTH, ANYWHERE = "south", "anywhere"  # where the sun stood in the pictures that a network learned from
MOST_COARSE = 1.5  # times the cells that a network was trained at
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
    if backbone == "small" and card.get("design") != SMALL_DESIGN:
        raise DataError(
            f"{settings.weights or SHIPPED} holds weights of an older network (design {card.get('design', 1)}); "
            f"accepted: design {SMALL_DESIGN}, as cityweave train cityscale writes them now"
        )
    multiple = 2 * card["multiple_px"]
    size_px = settings.window_m / card["gsd_m"]
    if size_px % multiple:
        raise ConfigError(
            f"cityscale.window_m is {settings.window_m:g}; accepted with these weights: multiples of "
            f"{multiple * card['gsd_m']:g}"
        )
    _check_picture(config, float(card["gsd_m"]))


def _check_picture(config: Config, trained_gsd_m: float) -> None:
    """Cells and bands of the orthophoto, where it is there already."""
    orthos = resolved_sources(config).ortho
    source = next(ortho for ortho in orthos if config.cityscale.ortho in (None, ortho.name))
    if config.synth is not None:
        check_cells(config.synth.ortho_gsd_m, trained_gsd_m, f"the orthophoto {source.name}")
    elif source.path.is_file():  # what isn't is refused with the other sources
        from cityweave.io.raster import native_gsd_m, open_raster, picture_bands

        gsd_m = source.gsd_m or native_gsd_m(source.path, config.city.crs, source.crs)
        check_cells(gsd_m, trained_gsd_m, str(source.path))
        with open_raster(source.path) as dataset:
            if len(picture_bands(dataset)) == 2:
                raise DataError(
                    f"{source.path} has 2 bands; accepted: 1 (grey), or 3 and more, of which the first three are red, "
                    "green and blue"
                )


def check_cells(gsd_m: float, trained_gsd_m: float, where: str) -> None:
    """Finer cells are averaged; coarser ones don't hold what the network looks for."""
    if gsd_m > MOST_COARSE * trained_gsd_m:
        raise DataError(
            f"{where} has cells of {gsd_m:.3g} m, the network was trained at {trained_gsd_m:g} m; accepted: up to "
            f"{MOST_COARSE * trained_gsd_m:g} m"
        )
