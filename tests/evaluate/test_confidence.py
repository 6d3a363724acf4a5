"""Coverage of sigma, sparsification, and whether outlines are where they should be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cityweave.evaluate.confidence import NOMINAL, Confidence
from cityweave.evaluate.outlines import Outlines


def _drawn(sigma_shown_times: float, blocks: int = 3) -> Confidence:
    rng = np.random.default_rng(4)
    sigma = 10 ** rng.uniform(-2, 1, 60_000)
    error = rng.normal(0, sigma)
    error[:500] = np.nan
    confidence = Confidence()
    for part in np.array_split(np.arange(error.size), blocks):
        confidence.add(error[part], (sigma * sigma_shown_times)[part])
    return confidence


def test_an_honest_sigma_covers_what_it_says_in_every_decile() -> None:
    figures = _drawn(1.0).figures()
    assert figures is not None
    assert figures["coverage_1"] == pytest.approx([NOMINAL[0]] * 10, abs=0.02)
    assert figures["coverage_2"] == pytest.approx([NOMINAL[1]] * 10, abs=0.01)
    assert figures["coverage_gap"] < 0.02
    assert figures["decile_sigma_m"] == sorted(figures["decile_sigma_m"])


def test_a_sigma_too_small_shows() -> None:
    figures = _drawn(0.5).figures()
    assert figures is not None
    assert figures["coverage_gap"] > 0.25


def test_blocks_change_nothing() -> None:
    one, many = _drawn(1.0, 1).figures(), _drawn(1.0, 7).figures()
    assert one is not None
    assert many is not None
    assert one.pop("ause") == pytest.approx(many.pop("ause"))
    assert one.pop("coverage_gap") == many.pop("coverage_gap")
    assert one == many


def test_taking_the_uncertain_away_lowers_the_error_less_than_knowing_the_worst() -> None:
    figures = _drawn(1.0).figures()
    assert figures is not None
    left, best = figures["sparsification_mae_m"], figures["sparsification_best_mae_m"]
    assert left[0] == pytest.approx(best[0])
    assert all(a > b for a, b in pairwise(left))
    assert all(a >= b for a, b in zip(left, best, strict=True))
    useless = Confidence()
    rng = np.random.default_rng(5)
    useless.add(rng.normal(0, 1, 50_000), rng.uniform(0.5, 1.5, 50_000))
    random_order = useless.figures()
    assert random_order is not None
    assert random_order["ause"] > 2 * figures["ause"]


def test_nothing_to_compare_is_none() -> None:
    empty = Confidence()
    empty.add(np.full(4, np.nan), np.ones(4))
    assert empty.figures() is None


@pytest.mark.parametrize(("moved", "share"), [(0, 1.0), (1, 1.0), (2, 0.5)])
def test_an_outline_may_be_a_cell_off(moved: int, share: float) -> None:
    truth = np.zeros((40, 40))
    truth[10:25, 12:30] = 8
    outlines = Outlines()
    outlines.add(np.roll(truth, moved, 1), truth, truth > 0)
    assert outlines.borders == 2 * (15 + 18)
    # Moved along a row, only the two outlines across it can be wrong; those along it lose the cells of the corners.
    across = 30 if moved == 2 else 0
    assert outlines.within_cell == pytest.approx(outlines.borders - across, abs=2 * moved * 2)
    assert outlines.share == pytest.approx(share, abs=0.12)


def test_walls_too_thin_to_ask_about_are_left_out() -> None:
    truth = np.zeros((20, 20))
    truth[:, 10] = 8
    outlines = Outlines()
    outlines.add(truth, truth, truth > 0)
    assert outlines.borders == 0
    assert outlines.share is None
