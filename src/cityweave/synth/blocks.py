"""What fills a block, by the block's own draw and how dense the city is there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cityweave.synth.blocks_dense import hall, offices, ring, slabs, tower
from cityweave.synth.blocks_green import houses, lanes, park, rows, sport, square
from cityweave.synth.layout import SIDEWALK_M, Layout, inset
from cityweave.synth.noise import CODE_BLOCK, generator, value_noise
from cityweave.synth.planting import Quad
from cityweave.synth.scene import Builder, Label


def fill_block(b: Builder, layout: Layout, i: int, j: int, max_height_m: float) -> None:
    """Everything on block (i, j); all draws come from the block's own stream."""
    rng = generator(layout.seed, CODE_BLOCK, i, j)
    kerb = layout.block(i, j)
    b.label(kerb, Label.SIDEWALK)
    lot = inset(kerb, SIDEWALK_M)
    kind = block_kind(layout, i, j, rng)
    FILLERS[kind](b, layout, lot, rng, max_height_m)


def block_kind(layout: Layout, i: int, j: int, rng: np.random.Generator) -> str:
    """As the style says; without a word from it dense where the slow noise is high, towers only there."""
    dense = value_noise(i / 3.0 + 0.37, j / 3.6 + 0.11, layout.seed + 31)
    draw = rng.random()
    if kinds := layout.look.kinds:
        shares = np.cumsum([share for _, share in kinds])
        return kinds[int(np.searchsorted(shares, draw * shares[-1], side="right"))][0]
    if draw < 0.08:
        return "park"
    if draw < 0.11:
        return "sport"
    if draw < 0.135:
        return "square"
    if draw < 0.17:
        return "hall"
    if dense > 0.62:
        return "tower" if draw < 0.36 else ("ring" if draw < 0.82 else "offices")
    if dense > 0.40:
        return "ring" if draw < 0.55 else ("slabs" if draw < 0.78 else "offices")
    return "slabs" if draw < 0.30 else ("rows" if draw < 0.58 else "houses")


FILLERS: dict[str, Callable[[Builder, Layout, Quad, np.random.Generator, float], None]] = {
    "ring": ring,
    "slabs": slabs,
    "offices": offices,
    "houses": houses,
    "rows": rows,
    "lanes": lanes,
    "tower": tower,
    "hall": hall,
    "park": park,
    "sport": sport,
    "square": square,
}
