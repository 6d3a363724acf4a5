"""What cells tell about their own error; how honest it is on unseen cities is measured by bench/fit_sigma.py."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave import cores
from cityweave.codes import FILLED, MEASURED, NONE
from cityweave.dsm import confidence
from cityweave.dsm.confidence import Clearness, Clues, sigma_m

SHAPE = (30, 40)


def clues(clearness: float, views: int = 6, step_m: float = 0.0, source: int = MEASURED, unlike: float = 8.0) -> Clues:
    """A town square, half of it `step_m` higher; the views agree as usual where nothing else is said."""
    dsm = np.zeros(SHAPE, np.float32)
    dsm[::3] = 0.05  # no real surface is as flat as a table
    dsm[:, 20:] += step_m
    sources = np.full(SHAPE, source, np.uint8)
    sources[0, 0] = MEASURED
    confirmed = np.zeros(SHAPE, bool)
    confirmed[-6:, :6] = True
    bits = np.where(confirmed, 8.0, unlike).astype(np.float32)
    margin = np.full(SHAPE, clearness * 6.0, np.float32)
    return Clues(dsm, sources, Clearness(margin, 6.0, confirmed), bits, np.full(SHAPE, 120, np.uint8), views, 1.0, 0.5)


def middle(sigma: np.ndarray) -> np.ndarray:
    return sigma[8:20, 8:14]


def test_the_network_is_whole() -> None:
    weight0, bias0, weight1, bias1, weight2, bias2 = confidence._network()
    features = clues(1.0).features().of_rows(0, 3)
    assert features.shape == (len(weight0), 3 * SHAPE[1])
    assert weight0.shape[1] == len(bias0) == len(weight1)
    assert weight1.shape[1] == len(bias1) == len(weight2)
    assert weight2.shape[1] == len(bias2) == 1
    assert all(np.isfinite(part).all() for part in confidence._network())


def test_clear_winners_on_flat_ground_are_the_surest() -> None:
    sure = middle(sigma_m(clues(1.2)))
    assert (sure < 0.2).all()
    assert (middle(sigma_m(clues(0.2))) > 2 * sure).all()


def test_beside_a_wall_heights_are_doubted() -> None:
    sigma = sigma_m(clues(0.5, views=2, step_m=8.0))
    assert sigma[15, 20] > 2 * sigma[15, 32]


def test_more_views_are_surer() -> None:
    assert (middle(sigma_m(clues(0.6, views=12))) < middle(sigma_m(clues(0.6, views=2)))).all()


def test_filled_cells_are_doubted_and_nothing_is_nothing() -> None:
    filled = sigma_m(clues(1.2, source=FILLED))
    assert (middle(filled) > middle(sigma_m(clues(1.2)))).all()
    assert np.isnan(sigma_m(clues(1.2, source=NONE))[5:, 5:]).all()


def test_bands_and_cores_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    rough = clues(0.8)
    rough.dsm[:] = draw.normal(0, 3, SHAPE)
    rough.clearness.margin_bits[:] = draw.uniform(0, 9, SHAPE)
    whole = sigma_m(rough)
    monkeypatch.setattr(confidence, "BAND_CELLS", 7 * SHAPE[1] + 3)
    monkeypatch.setattr(cores, "_used", 3)
    assert np.array_equal(sigma_m(rough), whole)


def test_what_is_clear_enough_is_told_against_what_is_usual() -> None:
    margin = np.full(SHAPE, 2.0, np.float32)
    margin[:, 20:] = 8.0
    count = np.full(SHAPE, 3, np.uint8)
    count[:15] = 1
    told = Clearness.of(margin, count)
    assert told.usual_bits == pytest.approx(5, abs=3.1)
    assert told.enough(views=6, min_margin=0.01).all()
    enough = told.enough(views=6, min_margin=0.9)
    assert enough[20, 30] and not enough[20, 5]
    assert not told.enough(views=2, min_margin=0.9)[20, 30]
    unconfirmed = told.enough(views=6, min_margin=0.9)[:10]
    assert not unconfirmed.any()


def test_noise_below_half_a_bit_is_never_clear() -> None:
    told = Clearness.of(np.full(SHAPE, 0.4, np.float32), np.full(SHAPE, 5, np.uint8))
    assert not told.enough(views=12, min_margin=0.01).any()
