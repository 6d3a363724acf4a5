"""Restorers: what they need, what they refuse, and that a pixel doesn't depend on how much is around it."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cityweave.config import RefineConfig
from cityweave.errors import DataError, MissingCapability
from cityweave.io.textures import INFERRED
from cityweave.texture import restorer
from cityweave.texture.restorer import Rendered, open_restorer, require_restorer

WITH_TORCH = pytest.mark.skipif(find_spec("torch") is None, reason="make setup EXTRAS=models")


def rendered(rows: int = 96, cols: int = 112, seed: int = 0) -> Rendered:
    rng = np.random.default_rng(seed)
    drawn = np.ones((rows, cols), bool)
    drawn[:8] = False
    return Rendered(
        rng.integers(0, 256, (rows, cols, 3), np.uint8),
        drawn,
        rng.choice(np.array([1, 3, INFERRED], np.uint8), (rows, cols)),
        rng.standard_normal((rows, cols, 3)).astype(np.float32),
        np.where(drawn, rng.uniform(-50, 50, (rows, cols)), 0).astype(np.float32),
    )


def part(picture: Rendered, rows: slice, cols: slice) -> Rendered:
    return Rendered(*(layer[rows, cols] for layer in vars(picture).values()))


def test_a_machine_without_torch_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer, "find_spec", lambda name: None)
    require_restorer(RefineConfig(rounds=0))
    with pytest.raises(MissingCapability, match=r"needs torch and safetensors: .*EXTRAS=models.*rounds: 0"):
        require_restorer(RefineConfig(rounds=2))


def test_weights_that_are_not_there_are_missed_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match=r"mine\.safetensors are not there"):
        require_restorer(RefineConfig(rounds=1, weights=tmp_path / "mine.safetensors"))


def test_none_leaves_the_picture_as_it_is() -> None:
    picture = rendered()
    assert (open_restorer(RefineConfig(rounds=1, restorer="none"), "cpu").restore(picture) == picture.rgb).all()


@WITH_TORCH
def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"stem": [0.0]}))
    with pytest.raises(DataError, match="is a pickle, which could run code"):
        open_restorer(RefineConfig(rounds=1, weights=path), "cpu")


@WITH_TORCH
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from cityweave.io.weights import save_tensors
    from cityweave.texture.restorer_small import KIND, SmallRestorer

    path = tmp_path / "weights.safetensors"
    save_tensors(path, SmallRestorer(8).state_dict(), {"kind": "height_unet"})
    with pytest.raises(DataError, match="holds weights of 'height_unet'; accepted: 'small_restorer'"):
        open_restorer(RefineConfig(rounds=1, weights=path), "cpu")
    save_tensors(path, SmallRestorer(8).state_dict(), {"kind": KIND, "width": 12})
    with pytest.raises(DataError, match=r"of another size: .* and \d+ more"):
        open_restorer(RefineConfig(rounds=1, weights=path), "cpu")


@WITH_TORCH
def test_an_untrained_network_returns_the_picture(tmp_path: Path) -> None:
    import torch

    from cityweave.io.weights import save_tensors
    from cityweave.texture.restorer_small import KIND, SmallRestorer

    torch.manual_seed(1)
    path = tmp_path / "weights.safetensors"
    save_tensors(path, SmallRestorer(8).state_dict(), {"kind": KIND, "width": 8})
    picture = rendered()
    restored = open_restorer(RefineConfig(rounds=1, weights=path), "cpu").restore(picture)
    assert restored.dtype == np.uint8 and (restored[picture.drawn] == picture.rgb[picture.drawn]).all()


@WITH_TORCH
def test_ours_restores_the_same_whatever_is_far_away_and_however_often() -> None:
    """The network sees some 90 pixels around; a picture that goes on beyond them changes nothing."""
    ours = open_restorer(RefineConfig(rounds=1), "cpu")
    whole = rendered(256, 320)
    restored, again = ours.restore(whole), ours.restore(whole)
    assert (restored == again).all()
    assert np.abs(restored.astype(int) - whole.rgb)[whole.drawn].mean() > 2  # it does something
    cut = ours.restore(part(whole, slice(0, 256), slice(0, 256)))
    apart = np.abs(restored[:, :128].astype(int) - cut[:, :128])
    assert apart.max() <= 1 and (apart == 0).mean() > 0.99


@WITH_TORCH
def test_sides_need_not_be_multiples_of_anything() -> None:
    ours = open_restorer(RefineConfig(rounds=1), "cpu")
    odd = part(rendered(), slice(0, 61), slice(0, 75))
    assert ours.restore(odd).shape == (61, 75, 3)


@WITH_TORCH
def test_a_white_picture_stays_within_bounds() -> None:
    ours = open_restorer(RefineConfig(rounds=1), "cpu")
    dark = rendered()
    white = Rendered(np.full_like(dark.rgb, 255), dark.drawn, dark.provenance, dark.normal, dark.beyond_m)
    assert np.median(ours.restore(white)[white.drawn]) > 200
