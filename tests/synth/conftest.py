"""One small procedural city for all tests of this folder."""

from __future__ import annotations

import pytest

from cityweave.grid import Box
from cityweave.synth.city import build_city
from cityweave.synth.layout import Layout
from cityweave.synth.scene import Scene

SEED = 7
BOX = Box(315400, 4161560, 315600, 4161760)
ORIGIN = (315400.0, 4161560.0, 550.0)


@pytest.fixture(scope="session")
def layout() -> Layout:
    return Layout(SEED, 560.0, 14.0)


@pytest.fixture(scope="session")
def scene(layout: Layout) -> Scene:
    return build_city(BOX, ORIGIN, layout, 100.0)
