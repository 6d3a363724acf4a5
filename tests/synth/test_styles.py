"""Styles of cities: what they build, and that the one without a word of its own is as it always was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cityweave.synth.aerial import AerialLook, aerial_city
from cityweave.synth.blocks import FILLERS, block_kind
from cityweave.synth.layout import Layout
from cityweave.synth.noise import CODE_BLOCK, generator
from cityweave.synth.styles import STYLES


def kinds(style: str) -> Counter[str]:
    layout = Layout(3, 100.0, 14.0, style)
    places = [(i, j) for i in range(30) for j in range(30)]
    return Counter(block_kind(layout, i, j, generator(3, CODE_BLOCK, i, j)) for i, j in places)


@pytest.mark.parametrize("style", STYLES)
def test_blocks_are_as_frequent_as_a_style_says(style: str) -> None:
    found, wanted = kinds(style), dict(STYLES[style].kinds)
    assert set(found) <= set(FILLERS) and set(wanted) <= set(FILLERS)
    whole = sum(wanted.values())
    for kind, share in wanted.items():
        assert found[kind] / 900 == pytest.approx(share / whole, abs=0.05)
    assert not wanted or set(found) <= set(wanted)


def test_a_style_changes_streets_and_what_is_built_of() -> None:
    mixed, estate = Layout(3, 100.0, 14.0), Layout(3, 100.0, 14.0, "estate")
    assert estate.line_s(4) == pytest.approx(1.45 * mixed.line_s(4))
    assert np.array_equal(mixed.bend, Layout(3, 100.0, 14.0, "mixed").bend)
    assert (np.abs(estate.bend[2:4]) < np.abs(mixed.bend[2:4])).all()
    plain, desert = (aerial_city(5, 96, 1.0, AerialLook(style=style)) for style in ("mixed", "desert"))
    assert plain.rgb.shape == desert.rgb.shape and (plain.rgb != desert.rgb).any()
