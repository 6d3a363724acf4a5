"""What cells tell about their own error; how honest it is on unseen cities is measured by bench/fit_sigma.py."""

from __future__ import annotations

import numpy as np

from cityweave.dsm.confidence import FILLED, MEASURED, NONE, evidence, sigma_m, sigma_table

SHAPE = (30, 40)


def _sigma(clearness: float, views: int = 6, step_m: float = 0.0, source: int = MEASURED) -> np.ndarray:
    dsm = np.zeros(SHAPE, np.float32)
    dsm[::3] = 0.25  # no real surface is as flat as a table
    dsm[:, 20:] += step_m
    sources = np.full(SHAPE, source, np.uint8)
    sources[0, 0] = MEASURED
    return sigma_m(evidence(dsm, np.full(SHAPE, clearness, np.float32), sources, 0.5), sources, views)


def test_the_table_is_whole() -> None:
    table = sigma_table()
    classes = len(table.views)
    assert table.measured.shape == (classes, table.clearness.size, table.relief_m.size)
    assert table.filled.shape == (classes, table.hole_m.size, table.relief_m.size)
    assert np.isfinite(table.measured).all() and np.isfinite(table.filled).all()
    for axis in (table.clearness, table.relief_m, table.hole_m):
        assert (np.diff(axis) > 0).all()
    assert [table.class_of(views) for views in (2, 3, 4, 5, 6, 40)] == [0, 1, 2, 2, 3, 3]


def test_clear_winners_on_flat_ground_are_the_surest() -> None:
    sure, doubtful = _sigma(1.2), _sigma(0.3)
    assert (sure < 0.2).all()
    assert (doubtful > 1.3 * sure).all()
    beside_wall = _sigma(0.5, step_m=8.0)
    assert beside_wall[15, 20] > beside_wall[15, 35]


def test_more_views_are_surer() -> None:
    assert (_sigma(0.6, views=12) < _sigma(0.6, views=2)).all()


def test_filled_cells_are_doubted_and_nothing_is_nothing() -> None:
    assert (_sigma(1.2, source=FILLED)[1:] > _sigma(1.2)[1:]).all()
    assert np.isnan(_sigma(1.2, source=NONE)[5:, 5:]).all()
