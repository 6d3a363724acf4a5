"""The restorer `flux`, with a tiny random model of the same classes and folders: what is computed, trained, refused."""

from __future__ import annotations

import copy
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="make setup EXTRAS=pipelines")

import torch

from cityweave.config import RefineConfig
from cityweave.errors import DataError, MissingCapability
from cityweave.io.textures import GENERATED, load_texture
from cityweave.io.weights import save_tensors
from cityweave.manifest import Manifest, Run
from cityweave.plan import city_tiles, load_config
from cityweave.texture import job, novel_job, restorer_flux
from cityweave.texture.restorer import open_restorer, require_restorer
from cityweave.texture.restorer_flux import KIND, FluxBase, FluxRestorer, _windows
from tests.texture import scene
from tests.texture.flux import tiny_flux
from tests.texture.test_restorer import rendered

ROUNDS = ("texture_0", "texture")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("flux"))


def refine(model: Path, **more: Any) -> RefineConfig:
    return RefineConfig(rounds=1, restorer="flux", model=str(model), **more)


def test_the_same_picture_gives_the_same_picture_whatever_its_sides(model: Path) -> None:
    ours = open_restorer(refine(model), "cpu")
    picture = rendered(61, 75)
    restored = ours.restore(picture)
    assert restored.shape == (61, 75, 3) and restored.dtype == np.uint8
    assert (restored == open_restorer(refine(model), "cpu").restore(picture)).all()


def test_the_clean_latent_is_the_low_one_less_what_the_transformer_says(model: Path) -> None:
    ours = FluxRestorer(FluxBase(str(model)), 0)
    vae = ours.base.vae
    for tensor in ours.base.transformer.proj_out.parameters():
        tensor.zero_()  # it says 0: what is left is the way through the VAE
    picture = torch.rand(1, 3, 32, 48) * 2 - 1
    there_and_back = vae.decode(vae.encode(picture).latent_dist.mode()).sample
    assert torch.allclose(ours(picture), there_and_back, atol=1e-5)


def test_windows_cover_a_large_picture_and_agree_where_they_overlap(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (16, 1024, 1040, 2048, 4096):
        windows = _windows(size)
        assert windows[0].start == 0 and windows[-1].stop == size
        assert all(b.start <= a.stop - 112 and b.start % 16 == 0 for a, b in pairwise(windows))
        assert all(w.stop - w.start == min(size, 1024) for w in windows)
    monkeypatch.setattr(restorer_flux, "WINDOW_PX", 64)
    monkeypatch.setattr(restorer_flux, "OVERLAP_PX", 32)
    ours = FluxRestorer(FluxBase(str(model)), 0)
    monkeypatch.setattr(ours, "forward", lambda picture: picture[:, :3])
    picture = rendered(160, 130)
    assert (restorer_flux._Opened(ours, "cpu").restore(picture) == picture.rgb).all()


def test_what_is_added_begins_as_nothing_and_is_all_that_is_trained(model: Path) -> None:
    base = FluxBase(str(model))
    plain, ours = FluxRestorer(base, 0), FluxRestorer(base, 4)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = plain(picture)
        assert (ours(picture) == before).all()
    base.transformer.enable_gradient_checkpointing()
    ours.train()(picture).square().mean().backward()
    assert all(tensor.grad is None for tensor in base.transformer.parameters())
    ups = [tensor for name, tensor in ours.named_parameters() if name.endswith("up.weight")]
    assert len(ups) == 8 and all(tensor.grad.abs().max() > 0 for tensor in ups)
    average = copy.deepcopy(ours)
    assert average.base is base
    with torch.no_grad():
        for tensor in ups:
            tensor += 0.1
        assert not torch.allclose(ours(picture), before, atol=1e-4)
        assert (average(picture) == before).all()  # each its own matrices, one base
        assert (plain(picture) == before).all()


def test_weights_of_a_training_are_used_and_others_refused(model: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = FluxRestorer(FluxBase(str(model)), 2)
    with torch.no_grad():
        for tensor in trained.parameters():
            tensor.normal_()
    path = tmp_path / "weights.safetensors"
    save_tensors(path, trained.state_dict(), {"kind": KIND, "rank": 2})
    picture = rendered(48, 48)
    with_weights = open_restorer(refine(model, weights=path), "cpu").restore(picture)
    assert not (with_weights == open_restorer(refine(model), "cpu").restore(picture)).all()
    save_tensors(path, trained.state_dict(), {"kind": KIND, "rank": 3})
    with pytest.raises(DataError, match=r"holds weights of another network \(of another size"):
        open_restorer(refine(model, weights=path), "cpu")
    save_tensors(path, trained.state_dict(), {"kind": "small_restorer"})
    with pytest.raises(DataError, match="holds weights of 'small_restorer'; accepted: 'flux_restorer'"):
        open_restorer(refine(model, weights=path), "cpu")


def test_the_whole_transformer_can_be_trained(model: Path) -> None:
    base = FluxBase(str(model))
    ours = FluxRestorer(base, None)
    ours(torch.rand(1, 3, 32, 32)).square().mean().backward()
    used = {name: tensor for name, tensor in ours.named_parameters() if "context" not in name and "add" not in name}
    assert len(used) > 20 and all(tensor.grad is not None for tensor in used.values())
    assert set(ours.state_dict()) == {f"whole.{name}" for name in base.transformer.state_dict()}
    assert all(tensor.grad is None for tensor in base.vae.parameters())


@pytest.mark.parametrize("missing", ["vae/config.json", "transformer"])
def test_a_folder_that_is_no_model_is_told_before_any_work(model: Path, tmp_path: Path, missing: str) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    place = broken / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(MissingCapability, match=rf"has no {missing.split('/')[0]}/config.json; accepted: the folder"):
        require_restorer(refine(broken))


def test_a_pickle_and_half_a_file_are_refused(model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    (weights,) = (broken / "vae").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"vae can't be read as AutoencoderKL"):
        open_restorer(refine(broken), "cpu")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(DataError, match=r"vae holds only a pickle, which could run code; accepted"):
        require_restorer(refine(broken))


def test_a_name_that_is_nowhere_says_how_to_bring_the_model() -> None:
    with pytest.raises(
        MissingCapability, match=r"neither a folder nor in the hub's cache here; .*hf download nobody/no"
    ):
        require_restorer(RefineConfig(rounds=1, restorer="flux", model="nobody/nothing"))


def test_parts_of_two_models_are_refused(model: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(model, tmp_path / "mixed")
    shutil.rmtree(mixed / "transformer")
    shutil.copytree(tiny_flux(tmp_path / "other", channels=2) / "transformer", mixed / "transformer")
    with pytest.raises(DataError, match="reads 8 channels, but 2 x 2 of the VAE's latents have 16"):
        open_restorer(refine(mixed), "cpu")


def test_a_model_goes_with_flux_and_only_with_it() -> None:
    for values in ({"restorer": "flux"}, {"restorer": "small", "model": "somewhere"}):
        with pytest.raises(ValueError, match="model names what the restorer flux is made of"):
            RefineConfig.model_validate(values)


def test_a_city_is_refined_by_it(model: Path, tmp_path: Path) -> None:
    values = {"rounds": 1, "restorer": "flux", "model": str(model), "size_px": 112, "spacing_m": 60, "reach_m": 50}
    values |= {"height_m": 120, "headings_deg": [45]}
    made = scene.make_run(tmp_path / "boxes")
    run = Run(made.folder, load_config(made.config.model_dump() | {"texture": {"refine": values}}))
    tiles = city_tiles(run.config)
    for tile in tiles:
        job.run(run, tile, 0)
    for tile in tiles:
        novel_job.run(run, tile, 1)
    job.run(run, tiles[0], 1)
    plain, refined = (load_texture(Manifest.read(run.manifest_path(name, tiles[0])).product(name)) for name in ROUNDS)
    assert (refined.provenance == GENERATED).any() and not (plain.provenance == GENERATED).any()
    assert not (refined.colour == plain.colour).all()
