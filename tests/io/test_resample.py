"""Pictures beyond what is known of them."""

from __future__ import annotations

import numpy as np

from cityweave.io.resample import continued


def test_what_is_not_known_is_as_in_a_mirror() -> None:
    picture = np.random.default_rng(0).random((3, 20, 30)).astype(np.float32)
    known = np.zeros((20, 30), bool)
    known[:12, 5:] = True
    found = continued(picture, known)
    assert (found[:, known] == picture[:, known]).all()
    assert (found[:, :12, :5] == picture[:, :12, 10:5:-1]).all()
    assert (found[:, 12:, 5:] == picture[:, 10:2:-1, 5:]).all()
    assert (found[:, 12:, :5] == picture[:, 10:2:-1, 10:5:-1]).all()


def test_mirrors_stand_behind_one_another() -> None:
    picture = np.random.default_rng(0).random((1, 8, 40)).astype(np.float32)
    known = np.zeros((8, 40), bool)
    known[:, :10] = True
    once = np.concatenate([picture[:, :, :10], picture[:, :, 8::-1]], axis=2)
    twice = np.concatenate([once, once[:, :, -2::-1]], axis=2)
    assert (continued(picture, known) == np.concatenate([twice, twice[:, :, -2::-1]], axis=2)[:, :, :40]).all()


def test_where_no_mirror_shows_anything_the_nearest_colour_goes_on() -> None:
    picture = np.random.default_rng(0).random((1, 8, 9)).astype(np.float32)
    known = np.zeros((8, 9), bool)
    known[:, 8] = True
    assert (continued(picture, known) == picture[:, :, 8:]).all()


def test_with_nothing_or_everything_known_a_picture_stays() -> None:
    picture = np.ones((3, 8, 8), np.float32)
    for known in (np.ones((8, 8), bool), np.zeros((8, 8), bool)):
        assert continued(picture, known) is picture
