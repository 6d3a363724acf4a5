"""Weights that are missing, cut off, of another network, or a pickle."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from cityweave.errors import DataError, MissingCapability
from cityweave.io.weights import save_tensors
from cityweave.train.heights import load_height_unet
from cityweave.train.models.height_unet import HeightUNet

CARD = {"kind": "height_unet", "width": 4, "start_m": 3.0}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, HeightUNet(4, 3.0).state_dict(), CARD)
    return path


def test_round_trip_to_the_byte(file: Path) -> None:
    model, card = load_height_unet(file)
    assert card == CARD
    again = file.with_name("again.safetensors")
    save_tensors(again, model.state_dict(), {key: card[key] for key in reversed(card)})
    assert again.read_bytes() == file.read_bytes()


def test_untrained_network_says_the_mean() -> None:
    heights = HeightUNet(4, 3.0)(torch.rand(2, 3, 32, 48))
    assert heights.shape == (2, 32, 48)
    torch.testing.assert_close(heights, torch.full((2, 32, 48), 3.0))


def test_default_size() -> None:
    assert sum(p.numel() for p in HeightUNet().parameters()) <= 500_000


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match=r"are not there; accepted: a \.safetensors"):
        load_height_unet(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_cut_off(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="damaged or cut off"):
        load_height_unet(file)


def test_of_another_size(file: Path) -> None:
    save_tensors(file, HeightUNet(8, 3.0).state_dict(), CARD)
    with pytest.raises(DataError, match=r"another network .*of another size: .* is \("):
        load_height_unet(file)


def test_of_another_network(file: Path) -> None:
    save_tensors(file, {"layer": torch.zeros(3)}, CARD)
    with pytest.raises(DataError, match=r"missing: .* and \d+ more; not of this network: layer"):
        load_height_unet(file)
    save_tensors(file, HeightUNet(4).state_dict(), {"kind": "restorer"})
    with pytest.raises(DataError, match="'restorer'; accepted: 'height_unet'"):
        load_height_unet(file)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (pytest.fail, ("it was opened",))

    plain = tmp_path / "weights.pt"
    plain.write_bytes(pickle.dumps(Trap(), protocol=2))
    zipped = tmp_path / "weights.bin"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", plain.read_bytes())
    for path in (plain, zipped):
        with pytest.raises(DataError, match="is a pickle"):
            load_height_unet(path)
