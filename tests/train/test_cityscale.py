"""The tasks `height_vae` and `cityscale`: trainings of seconds, what they leave, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="make setup EXTRAS=models")

import torch

from cityweave.cityscale.model import load
from cityweave.cityscale.predict import open_predictor
from cityweave.cli import main
from cityweave.errors import ConfigError, DataError
from cityweave.train.cityscale import CityScaleSettings, CityScaleTask, _sun_in_the_south
from cityweave.train.recipe import Cities
from cityweave.train.settings import validated
from tests.cityscale.tiny import small_weights, tiny_marigold, vae_weights


@pytest.fixture
def own(values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    model = {"kind": "small", "width": 8, "vae": str(vae_weights(tmp_path / "vae.safetensors")), "head": "fpn"}
    loop = values["loop"] | {"accumulate": 1, "learning_rate": 2e-3}
    return values | {"model": model, "loop": loop}


def train(task: str, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["train", task, "--config", str(file), "--to", str(folder / "training")]) == 0
    (result,) = folder.rglob("result.json")
    return json.loads(result.read_text()) | {"weights": result.with_name("weights.safetensors")}


def test_an_autoencoder_learns_pictures_and_heights(values: dict[str, Any], tmp_path: Path) -> None:
    loop = values["loop"] | {"steps": 60, "validate_every": 30, "learning_rate": 5e-3, "accumulate": 1}
    result = train("height_vae", values | {"model": {"width": 8, "channels": 4}, "loop": loop}, tmp_path)
    before = train("height_vae", values | {"model": {"width": 8, "channels": 4}}, tmp_path / "short")
    assert result["figures"]["loss"] < 0.8 * before["figures"]["loss"]


def test_trained_weights_predict_and_say_what_they_are(own: dict[str, Any], tmp_path: Path) -> None:
    result = train("cityscale", own, tmp_path)
    model, card = load(result["weights"])
    assert card["head"] == model.head_name == "fpn" and card["gsd_m"] == 0.5 and card["highest_m"] > 0
    assert set(result["baselines"]) == {"flat_ground", "mean_height"}
    predictor = open_predictor(result["weights"], "cpu")
    metres, sigma = predictor.heights(np.zeros((3, 64, 96), np.float32), lambda _, shape: np.ones(shape, np.float32), 2)
    assert metres.shape == sigma.shape == (64, 96) and (sigma > 0).all()


def test_a_training_begun_again_ends_in_the_same_bytes(own: dict[str, Any], tmp_path: Path) -> None:
    results = [train("cityscale", own, tmp_path / name) for name in ("a", "b")]
    assert results[0]["weights"].read_bytes() == results[1]["weights"].read_bytes()


def test_the_metric_loss_goes_down(own: dict[str, Any]) -> None:
    task = CityScaleTask(CityScaleSettings.model_validate(own))
    torch.manual_seed(0)
    model = task.model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, 0)  # only to clear gradients
    batch = task.batch(np.random.default_rng(0), 4)
    losses = []
    for _ in range(30):
        parts = task.losses(model, batch)
        losses.append({name: float(part.detach()) for name, part in parts.items()})
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        with torch.no_grad():
            for p in trained:
                if p.grad is not None:
                    p -= 5e-3 * p.grad.sign()
    assert losses[-1]["metres"] < 0.9 * losses[0]["metres"]
    assert losses[-1]["spread"] < losses[0]["spread"]


def test_cached_windows_are_drawn_once_and_are_what_fresh_ones_would_be(own: dict[str, Any]) -> None:
    values = own | {"data": own["data"] | {"cached_windows": 6}}
    tasks = [CityScaleTask(CityScaleSettings.model_validate(values)) for _ in range(2)]
    batches = [task.batch(np.random.default_rng(5), 3) for task in tasks]
    for name in ("seen", "target", "height_m"):
        assert torch.equal(batches[0][name], batches[1][name])
    backbone, batch = tasks[0]._backbone, batches[0]
    scale = tasks[0].model().scale_of(batch["height_m"], batch["valid"])
    with torch.no_grad():
        again = backbone.encode_relative(batch["height_m"] / scale[:, None, None])
    assert torch.allclose(again, batch["target"], atol=0.02)
    assert set(tasks[0].losses(tasks[0].model(), batch)) == {"denoising", "metres", "log", "spread"}
    folder = Path(own["data"]["folder"])
    assert len(list(folder.glob("latents-*"))) == 1


def test_the_share_of_one_step_predictions_holds_over_many_batches(own: dict[str, Any]) -> None:
    """With 2 windows a batch 0.75 of them are sometimes 1 and sometimes 2."""
    task = CityScaleTask(CityScaleSettings.model_validate(own | {"loss": {"one_step": 0.75}}))
    counts = [int(task.batch(np.random.default_rng(k), 2)["one_step"]) for k in range(60)]
    assert set(counts) == {1, 2} and 1.3 < np.mean(counts) < 1.7


def test_where_the_sun_stood_is_said_where_it_is_known(own: dict[str, Any]) -> None:
    def said(**data: Any) -> str:
        return CityScaleTask(CityScaleSettings.model_validate(own | {"data": own["data"] | data})).card()["sun"]

    assert said() == "anywhere" and said(turn=False) == "south"
    train = {"synthetic": [own["data"]["train"]["synthetic"][0] | {"sun_azimuth_deg": [300, 420]}]}
    assert not _sun_in_the_south(Cities.model_validate(train))
    assert not _sun_in_the_south(Cities.model_validate({"runs": [{"run": "x"}]}))


def test_heights_in_a_fixed_range_have_latents_of_their_own(own: dict[str, Any]) -> None:
    values = own | {"data": own["data"] | {"cached_windows": 4}, "model": own["model"] | {"head": "fixed"}}
    task = CityScaleTask(CityScaleSettings.model_validate(values))
    task.batch(np.random.default_rng(0), 2)
    assert task.model().start_m == 250


def test_going_on_from_weights(own: dict[str, Any], tmp_path: Path) -> None:
    first = train("cityscale", own, tmp_path / "first")
    more = own | {"model": own["model"] | {"start": str(first["weights"])}, "name": "more"}
    task = CityScaleTask(CityScaleSettings.model_validate(more))
    for name, tensor in load(first["weights"])[0].state_dict().items():
        assert torch.equal(task.model().state_dict()[name], tensor)
    other = more | {"model": more["model"] | {"head": "bins"}}
    with pytest.raises(ConfigError, match="of another network"):
        CityScaleTask(CityScaleSettings.model_validate(other)).model()


def test_marigold_is_trained_saved_and_predicts(own: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="make setup EXTRAS=pipelines")
    folder = tiny_marigold(tmp_path / "marigold")
    model = {"kind": "marigold", "base": str(folder), "head": "fpn"}
    loop = own["loop"] | {"steps": 3, "validate_every": 3}
    result = train("cityscale", own | {"model": model, "loop": loop}, tmp_path / "run")
    predictor = open_predictor(result["weights"], "cpu")
    metres, _ = predictor.heights(np.zeros((3, 32, 32), np.float32), lambda _, shape: np.ones(shape, np.float32), 1)
    assert metres.shape == (32, 32) and np.isfinite(metres).all()
    learned, began = (
        load(result["weights"])[0],
        CityScaleTask(CityScaleSettings.model_validate(own | {"model": model})).model(),
    )
    changed = [n for n, p in learned.named_parameters() if not torch.equal(p, began.get_parameter(n))]
    assert any(name.startswith("backbone.unet") for name in changed)
    assert not any(name.startswith("backbone.vae") for name in changed)


def test_what_is_refused(own: dict[str, Any], tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            CityScaleTask(validated(CityScaleSettings, own | changes, "test"))

    refused(ConfigError, "there is no head 'fnp'; accepted: mlp_latent", model=own["model"] | {"head": "fnp"})
    refused(ConfigError, "base names what marigold begins with", model=own["model"] | {"base": "x"})
    refused(ConfigError, "accepted by this backbone: multiples of 32", data=own["data"] | {"window_px": 48})
    other = small_weights(tmp_path / "other.safetensors")
    refused(DataError, "holds 'cityscale'; accepted: 'height_vae'", model=own["model"] | {"vae": str(other)})
