"""Kinds of cities: what stands on their blocks, how their streets run, what they are built of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CityStyle:
    kinds: tuple[tuple[str, float], ...] = ()  # kind of block and how often, relative; none: as dense as it is there
    pitch: tuple[float, float] = (1.0, 1.0)  # size of blocks across and along, relative
    bend: float = 1.0  # how far streets bend, relative
    tone: tuple[float, float, float] = (1.0, 1.0, 1.0)  # red, green, blue of walls and roofs, relative


STYLES: dict[str, CityStyle] = {
    "mixed": CityStyle(),
    "garden": CityStyle(
        (("houses", 0.5), ("rows", 0.25), ("park", 0.1), ("slabs", 0.06), ("square", 0.04), ("sport", 0.05)),
        pitch=(1.1, 0.95),
        bend=1.4,
        tone=(1.05, 1.0, 0.95),
    ),
    "old_town": CityStyle(
        (("ring", 0.72), ("square", 0.1), ("park", 0.05), ("offices", 0.08), ("rows", 0.05)),
        pitch=(0.78, 0.85),
        bend=1.6,
        tone=(1.0, 0.97, 0.9),
    ),
    "lanes": CityStyle(
        (("lanes", 0.66), ("rows", 0.1), ("park", 0.1), ("square", 0.04), ("houses", 0.06), ("hall", 0.04)),
        pitch=(0.85, 0.75),
        bend=1.3,
        tone=(1.0, 0.98, 0.95),
    ),
    "skyline": CityStyle(
        (("tower", 0.48), ("offices", 0.27), ("ring", 0.12), ("park", 0.06), ("square", 0.02), ("hall", 0.05)),
        bend=0.2,
        tone=(0.95, 1.0, 1.05),
    ),
    "works": CityStyle(
        (("hall", 0.5), ("offices", 0.2), ("slabs", 0.1), ("rows", 0.12), ("park", 0.08)),
        pitch=(1.3, 1.25),
        bend=0.3,
        tone=(0.95, 0.98, 1.0),
    ),
    "estate": CityStyle(
        (("slabs", 0.5), ("tower", 0.1), ("park", 0.15), ("sport", 0.08), ("hall", 0.07), ("offices", 0.1)),
        pitch=(1.45, 1.4),
        bend=0.6,
        tone=(1.02, 1.02, 0.98),
    ),
    "desert": CityStyle(
        (("ring", 0.3), ("slabs", 0.25), ("offices", 0.2), ("tower", 0.1), ("hall", 0.1), ("square", 0.05)),
        pitch=(0.9, 1.2),
        bend=0.1,
        tone=(1.22, 1.1, 0.86),
    ),
}
