"""The backbone `marigold`, with a tiny random model of the same classes and folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="make setup EXTRAS=pipelines")

import torch

from cityweave.cityscale.marigold import MarigoldBackbone
from cityweave.cityscale.model import CityScale, load
from cityweave.errors import DataError, MissingCapability
from cityweave.io.weights import save_tensors
from tests.cityscale.tiny import tiny_marigold


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_marigold(tmp_path_factory.mktemp("marigold"))


def test_weights_are_whole_in_themselves(folder: Path, tmp_path: Path) -> None:
    """Saved with what it takes to build the network: the folder it began with isn't needed again."""
    model = CityScale(MarigoldBackbone.from_folder(str(folder)), "fpn", 12.0).eval()
    path = tmp_path / "w.safetensors"
    save_tensors(path, model.state_dict(), {**model.card(), "gsd_m": 0.5})
    again, card = load(path)
    assert card["backbone"] == "marigold"
    picture, noise = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.predict(picture, noise).metres, again.predict(picture, noise).metres)


def test_features_come_from_every_level_with_gradient(folder: Path) -> None:
    backbone = MarigoldBackbone.from_folder(str(folder))
    assert (backbone.latent_px, backbone.multiple_px, backbone.feature_channels) == (2, 4, (16, 8))
    seen = backbone.encode(torch.rand(2, 3, 32, 32) * 2 - 1)
    _, features = backbone.velocity(seen, torch.randn_like(seen), torch.ones(2))
    assert [tuple(level.shape[1:]) for level in features] == [(16, 16, 16), (8, 16, 16)]
    features[-1].sum().backward()
    assert any(p.grad is not None for p in backbone.unet.parameters())
    assert backbone.text.grad is not None


def test_prediction_begins_at_noise_alone(folder: Path) -> None:
    clean, noise = MarigoldBackbone.from_folder(str(folder)).legs(torch.tensor([0.0, 1.0]))
    assert clean[1] == 0 and noise[1] == 1 and clean[0] > 0.99


def test_a_text_beside_the_model_is_taken(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    own = tmp_path / "own"
    shutil.copytree(folder, own)
    save_file({"embedding": torch.full((1, 2, 16), 0.5)}, own / "empty_text.safetensors")
    assert (MarigoldBackbone.from_folder(str(own)).text == 0.5).all()
    save_file({"embedding": torch.zeros(1, 2, 3)}, own / "empty_text.safetensors")
    with pytest.raises(DataError, match=r"accepted: \(1, 2, 16\)"):
        MarigoldBackbone.from_folder(str(own))


def test_what_is_no_marigold(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match="neither a folder nor in the hub's cache"):
        MarigoldBackbone.from_folder("nobody/nothing")
    with pytest.raises(DataError, match="of epsilon; accepted: v_prediction"):
        MarigoldBackbone.from_folder(str(tiny_marigold(tmp_path / "eps", "epsilon")))
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    shutil.rmtree(own / "vae")
    with pytest.raises(MissingCapability, match=r"no vae/config\.json"):
        MarigoldBackbone.from_folder(str(own))
