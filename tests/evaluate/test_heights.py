"""Height errors in blocks, and the border figure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.evaluate.border import BorderErrors, near_interior_border
from cityweave.evaluate.dsm import HeightErrors
from cityweave.grid import Tile


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_blocks_give_what_the_whole_gives(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    error = rng.standard_cauchy(1001) * 0.3
    error[rng.random(1001) < 0.1] = np.nan
    reference = rng.uniform(0, 50, 1001)
    reference[:50] = np.nan
    ours = reference + error
    source = rng.integers(0, 4, 1001).astype(np.uint8)
    building = rng.random(1001) < 0.3
    errors = HeightErrors()
    for part in np.array_split(np.arange(1001), count):
        errors.add(ours[part], reference[part], source[part], building[part])
    figures, reasons = errors.figures(True, True)
    known = np.isfinite(reference)
    e = (ours - reference)[known & np.isfinite(ours)]
    assert reasons == {}
    assert figures["mae_m"] == pytest.approx(np.abs(e).mean())
    assert figures["rmse_m"] == pytest.approx(np.sqrt((e**2).mean()))
    assert figures["median_m"] == pytest.approx(np.median(e), abs=0.01)
    assert figures["nmad_m"] == pytest.approx(1.4826 * np.median(np.abs(e - np.median(e))), abs=0.02)
    assert figures["within_1m"] == pytest.approx((np.abs(e) <= 1).mean())
    with np.errstate(invalid="ignore"):
        complete = known & (source == 1) & (np.abs(ours - reference) <= 1)
        said = known & (source == 3) & np.isfinite(ours)
    assert figures["predicted_mae_m"] == pytest.approx(np.abs(ours - reference)[said].mean())
    assert figures["predicted_share"] == pytest.approx(said.sum() / known.sum())
    assert figures["completeness"] == pytest.approx(complete.sum() / known.sum())


def test_nothing_known_is_null_with_a_reason() -> None:
    errors = HeightErrors()
    errors.add(np.ones(5), np.full(5, np.nan), None, None)
    figures, reasons = errors.figures(False, False)
    assert set(figures.values()) == {None}
    assert set(reasons) == set(figures)


def test_only_borders_between_two_tiles_count() -> None:
    tiles = [Tile(0, 0, 64), Tile(1, 0, 64)]
    x, y = np.arange(128) + 0.5, np.arange(64)[::-1] + 0.5
    near = near_interior_border(tiles, x, y)
    assert near.any(axis=0).nonzero()[0].tolist() == list(range(56, 72))
    assert near[:, 60].all()
    assert not near_interior_border([Tile(0, 0, 64), Tile(1, 1, 64)], x, y).any()


def test_border_ratio_and_its_interval() -> None:
    rng = np.random.default_rng(5)
    x, y = np.arange(400) + 0.5, np.arange(400)[::-1] + 0.5
    near = np.abs(x - 200)[None, :] <= 8
    near = np.broadcast_to(near, (400, 400))
    errors = BorderErrors()
    shifted = rng.normal(0, 0.5, (400, 400))
    errors.add(near, 1.3 * rng.permutation(shifted), shifted, x, y)
    found = errors.ratio([1, 2])
    assert found is not None
    assert found.low < found.ratio < found.high
    assert found.low < 1.3 < found.high
    assert found.cells == 16 * 400 and found.blocks == 13
    assert errors.ratio([1, 2]) == found
    assert BorderErrors().ratio([1]) is None
