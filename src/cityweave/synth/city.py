"""The procedural city of a box: blocks, streets and river of the layout, cut to the box and made one scene."""

from __future__ import annotations

from cityweave.grid import Box
from cityweave.synth.assemble import assemble
from cityweave.synth.blocks import fill_block
from cityweave.synth.layout import Layout
from cityweave.synth.scene import Builder, Scene
from cityweave.synth.streets import river, street


def build_city(box: Box, origin_m: tuple[float, float, float], layout: Layout, max_height_m: float) -> Scene:
    """Things that would stick out of the box are left out whole, so no body is ever cut open."""
    b = Builder(tone=layout.look.tone)
    cells = layout.blocks_in(*box.as_tuple())
    for i, j in cells:
        if layout.is_river(i):
            river(b, layout, i, j)
        else:
            fill_block(b, layout, i, j, max_height_m)
    for i, j in cells:
        street(b, layout, False, i, j)
        street(b, layout, True, i, j)
    return assemble(b, box, origin_m, layout.terrain)
