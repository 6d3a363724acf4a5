"""RPCs in the files that vendors put beside their images.

All are brought to one convention: samples and lines count from 0 at the centre of the first pixel. Airbus' DIMAP
counts from 1; Maxar's .RPB, _RPC.TXT and OSSIM's .geom count from 0.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cityweave.errors import DataError
from cityweave.plan import rpc_beside as rpc_beside
from cityweave.rpc import OFFSETS, RPC, VENDOR_FIELDS

ACCEPTED = (
    "an image with RPC00B tags as GDAL reads them is accepted, or a file beside it: IMAGE.RPB, IMAGE_RPC.TXT, "
    "IMAGE.geom, RPC_IMAGE.XML (DIMAP), or `rpc` in the view's source"
)
_GROUPS = ("line_num", "line_den", "samp_num", "samp_den")


def read_rpc_file(path: Path) -> RPC:
    """The camera in a vendor's file; its kind is told by the name's ending."""
    kind = next((ending for ending in _READERS if path.name.lower().endswith(ending)), None)
    if kind is None:
        raise DataError(f"{path}: no kind of RPC file is named so; {', '.join(_READERS)} are accepted")
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); {ACCEPTED}") from error
    try:
        return _camera(_READERS[kind](text), str(path))
    except (ValueError, ET.ParseError) as error:
        raise DataError(f"{path} is no whole RPC file ({error}); {ACCEPTED}") from error


def _camera(values: Mapping[str, list[float]], where: str) -> RPC:
    missing = [name for name in VENDOR_FIELDS if name not in values]
    if missing:
        raise DataError(f"{where}: RPC without {', '.join(missing)}; all of the RPC00B fields are needed")
    fields = {name: tuple(values[name]) if name in _GROUPS else values[name][0] for name in VENDOR_FIELDS}
    try:
        return RPC(**fields)  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(f"{where}: {error}; {ACCEPTED}") from error


def _number(text: str) -> float:
    """The number that a value starts with: units may follow."""
    match = re.match(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?|[-+]?(?:nan|inf)\w*)", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text.strip()[:40]!r} is no number")
    return float(match[1].replace("D", "E").replace("d", "e"))


_RPB_NAMES = {
    "lineoffset": "line_off", "sampoffset": "samp_off", "latoffset": "lat_off", "longoffset": "long_off",
    "heightoffset": "height_off", "linescale": "line_scale", "sampscale": "samp_scale", "latscale": "lat_scale",
    "longscale": "long_scale", "heightscale": "height_scale", "linenumcoef": "line_num", "linedencoef": "line_den",
    "sampnumcoef": "samp_num", "sampdencoef": "samp_den",
}  # fmt: skip


def _rpb(text: str) -> dict[str, list[float]]:
    spec = re.search(r"SpecId\s*=\s*\"?(\w+)", text)
    if spec is not None and spec[1].upper() != "RPC00B":
        raise ValueError(f"its SpecId is {spec[1]}, RPC00B is accepted")
    values = {}
    for name, value in re.findall(r"(\w+)\s*=\s*(\([^)]*\)|[^;\n]+)\s*;", text):
        field = _RPB_NAMES.get(name.lower())
        if field is not None:
            values[field] = [_number(part) for part in value.strip("() \n\t").split(",")]
    return values


def _keyed(text: str) -> dict[str, list[float]]:
    """_RPC.TXT: `LINE_OFF: 1234.5 pixels`, coefficients as LINE_NUM_COEFF_1 to _20; and .geom from _00 to _19."""
    plain: dict[str, list[float]] = {}
    numbered: dict[str, dict[int, float]] = {}
    for name, value in re.findall(r"^\s*([A-Za-z][\w.]*?)\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE):
        key = name.lower().rsplit(".", 1)[-1]
        group = re.fullmatch(r"(line|samp)_(num|den)_coeff_(\d+)", key)
        if group is not None:
            numbered.setdefault(f"{group[1]}_{group[2]}", {})[int(group[3])] = _number(value)
        elif key in VENDOR_FIELDS:
            plain[key] = [_number(value)]
    for name, coefficients in numbered.items():
        plain[name] = [coefficients[number] for number in sorted(coefficients)]
    return plain


def _geom(text: str) -> dict[str, list[float]]:
    polynomial = re.search(r"^\s*(?:[\w.]*\.)?polynomial_format\s*:\s*(\w+)", text, re.MULTILINE)
    if polynomial is not None and polynomial[1].upper() != "B":
        raise ValueError(f"its polynomial_format is {polynomial[1]}, B (RPC00B) is accepted")
    return _keyed(text)


def _dimap(text: str) -> dict[str, list[float]]:
    root = ET.fromstring(text)
    model = next((e for e in root.iter() if _tag(e) == "Inverse_Model"), None)
    if model is None:
        raise ValueError("it has no Inverse_Model, which takes the ground to the image")
    values: dict[str, list[float]] = {}
    for group in _GROUPS:
        numbered = {}
        for element in model.iter():
            match = re.fullmatch(rf"{group}_coeff_(\d+)", _tag(element), re.IGNORECASE)
            if match is not None:
                numbered[int(match[1])] = _number(element.text or "")
        if numbered:
            values[group] = [numbered[number] for number in sorted(numbered)]
    validity = next((e for e in root.iter() if _tag(e) == "RFM_Validity"), root)
    for element in validity.iter():
        name = _tag(element).lower()
        if name in VENDOR_FIELDS and name not in values:
            values[name] = [_number(element.text or "")]
    for name in ("samp_off", "line_off"):
        if name in values:
            values[name] = [values[name][0] - 1]
    return values


def _tag(element: ET.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


_READERS: dict[str, Callable[[str], dict[str, list[float]]]] = {
    ".rpb": _rpb,
    "_rpc.txt": _keyed,
    ".geom": _geom,
    ".xml": _dimap,
    ".txt": _keyed,
}


def check_rpc(rpc: RPC, size_px: tuple[int, int], where: str) -> None:
    """Refuse a camera that can't be the image's, from what it says itself."""
    axis = np.linspace(-1, 1, 5)
    x, y, z = (a.ravel() for a in np.meshgrid(axis, axis, axis))
    lon, lat = rpc.long_off + x * rpc.long_scale, rpc.lat_off + y * rpc.lat_scale
    with np.errstate(all="ignore"):
        u, v = rpc.project(lon, lat, rpc.height_off + z * rpc.height_scale)
    wrong = None
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        wrong = "gives no finite position inside its own range of longitude, latitude and height"
    elif not all(abs(getattr(rpc, name)) <= limit for name, limit in (("lat_off", 90), ("long_off", 360))):
        wrong = f"is centred at longitude {rpc.long_off:g}, latitude {rpc.lat_off:g}"
    elif u.max() < 0 or v.max() < 0 or u.min() > size_px[0] or v.min() > size_px[1]:
        wrong = (
            f"shows its own range of ground at columns {u.min():.0f} to {u.max():.0f}, rows {v.min():.0f} to "
            f"{v.max():.0f}, beside the image of {size_px[0]} x {size_px[1]} pixels"
        )
    else:
        wrong = _not_invertible(rpc, size_px)
    if wrong is not None:
        raise DataError(
            f"{where}: its RPC {wrong}; accepted: the RPC that belongs to this very image, whose {', '.join(OFFSETS)} "
            "are those of the image as it is (a crop needs `crop_px` in its source, or shifted offsets)"
        )


def _not_invertible(rpc: RPC, size_px: tuple[int, int]) -> str | None:
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0, size_px[0], 5), np.linspace(0, size_px[1], 5)))
    height = np.full(u.shape, rpc.height_off)
    with np.errstate(all="ignore"):
        lon, lat = rpc.localise(u, v, height)
        back = rpc.project(lon, lat, height)
        error = np.hypot(back[0] - u, back[1] - v)
        far = np.maximum(np.abs(lon - rpc.long_off) / rpc.long_scale, np.abs(lat - rpc.lat_off) / rpc.lat_scale)
    if not (error < 0.01).all():
        return "can't be inverted: no ground appears in some pixels of the image"
    if not (far < 2).all():
        return f"puts the image's pixels up to {far.max():.1f} times its own range away"
    return None
