"""The restorer's task: data that are there, a training of seconds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="make setup EXTRAS=models")
pytest.importorskip("stlpips_pytorch", reason="make setup EXTRAS=metrics")

from cityweave.cli import main
from cityweave.errors import ConfigError, DataError
from cityweave.manifest import content_hash, write_json
from cityweave.texture.restorer_small import INPUTS, load_small
from cityweave.train.pairs import ARRAYS, SPLITS, PairData, _recipe, open_data
from cityweave.train.restorer import RestorerSettings, RestorerTask

SIDE = 64


def city(seed: int, views: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """What is there is what is rendered, a tenth of the range brighter."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-0.7, 0.5, (views, 3, SIDE // 8, SIDE // 8)).repeat(8, axis=2).repeat(8, axis=3)
    inputs = np.zeros((views, INPUTS, SIDE, SIDE), np.float16)
    inputs[:, :3], inputs[:, 3] = coarse, 1
    return inputs, np.clip(np.rint((coarse + 0.2 + 1) * 127.5), 0, 255).astype(np.uint8)


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    data: dict[str, Any] = {
        "folder": str(tmp_path / "data"),
        "train": ["runs/a", "runs/b"],
        "validation": ["runs/c"],
        "views": 3,
        "size_px": SIDE,
        "window_px": 32,
        "validation_views": 2,
    }
    settings = PairData.model_validate(data)
    cards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for number, (split, name) in enumerate((("train", "a"), ("train", "b"), ("validation", "c"))):
        place = settings.folder / split / name
        place.mkdir(parents=True)
        files = {}
        for array, made in zip(ARRAYS, city(number), strict=True):
            np.save(place / f"{array}.npy", made)
            files[array] = content_hash(place / f"{array}.npy")
        cards[split].append({"name": name, "recipe": {}, "files": files})
    write_json(settings.folder / "data.json", {"format": 1, "recipe": _recipe(settings), **cards})
    return {
        "name": "tiny",
        "data": data,
        "model": {"width": 4},
        "loop": {"steps": 40, "batch": 2, "warmup_steps": 5, "validate_every": 20, "learning_rate": 0.01, "ema": 0.8},
        "checkpoints": {"every": 20},
    }


def test_training_learns_and_its_weights_can_be_used(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["train", "restorer", "--config", str(file), "--to", str(tmp_path / "training")]) == 0
    (weights,) = (tmp_path / "training").rglob("weights.safetensors")
    model, card = load_small(weights)
    assert card["kind"] == "small_restorer" and card["width"] == 4
    task = RestorerTask(RestorerSettings.model_validate(values))
    figures, baseline = task.validate(model.eval(), "cpu"), task.baselines()["rendered"]
    assert figures["psnr_db"] > baseline["psnr_db"] + 3 and figures["loss"] < baseline["loss"]


def test_flux_learns_by_what_is_added_to_it(values: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="make setup EXTRAS=pipelines")
    from cityweave.config import RefineConfig
    from cityweave.texture.restorer import open_restorer
    from tests.texture.flux import tiny_flux
    from tests.texture.test_restorer import rendered

    base = tiny_flux(tmp_path / "flux")
    values |= {"model": {"kind": "flux", "base": str(base), "rank": 2}}
    values["loop"] |= {"steps": 6, "validate_every": 3, "precision": "bf16"}
    file = tmp_path / "flux.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["train", "restorer", "--config", str(file), "--to", str(tmp_path / "training")]) == 0
    (weights,) = (tmp_path / "training").rglob("weights.safetensors")
    trained = RefineConfig(rounds=1, restorer="flux", model=str(base), weights=weights)
    untrained = trained.model_copy(update={"weights": None})
    picture = rendered(48, 48)
    restored, before = (open_restorer(refine, "cpu").restore(picture) for refine in (trained, untrained))
    assert not (restored == before).all()


def test_a_training_goes_on_from_weights(values: dict[str, Any], tmp_path: Path) -> None:
    import torch

    from cityweave.io.weights import save_tensors
    from cityweave.texture.restorer_small import KIND, SmallRestorer

    model, path = SmallRestorer(4), tmp_path / "first.safetensors"
    save_tensors(path, model.state_dict(), {"kind": KIND, "width": 4})
    values["model"] |= {"start": str(path)}
    begun = RestorerTask(RestorerSettings.model_validate(values)).model().state_dict()
    assert all(torch.equal(begun[name], tensor) for name, tensor in model.state_dict().items())
    save_tensors(path, model.state_dict(), {"kind": "flux_restorer"})
    with pytest.raises(ConfigError, match="holds 'flux_restorer'; accepted: 'small_restorer'"):
        RestorerTask(RestorerSettings.model_validate(values)).model()


def test_batches_follow_from_the_generator_alone(values: dict[str, Any]) -> None:
    task = RestorerTask(RestorerSettings.model_validate(values))
    one, same, other = (task.batch(np.random.default_rng(seed), 4) for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert not (one["inputs"] == other["inputs"]).all()
    assert one["inputs"].shape == (4, INPUTS, 32, 32) and one["truth"].shape == (4, 3, 32, 32)
    # whatever was changed was changed in both
    brighter = one["truth"] - one["inputs"][:, :3]
    assert brighter.min() > 0.2 * 0.84 - 0.01 and brighter.max() < 0.2 * 1.16 + 0.01


def test_damage_and_another_recipe_are_noticed(values: dict[str, Any]) -> None:
    settings = PairData.model_validate(values["data"])
    assert len(open_data(settings, thorough=True).train) == 2
    with pytest.raises(ConfigError, match=r"another recipe \(data.pixel_m"):
        open_data(settings.model_copy(update={"pixel_m": 0.5}))
    path = settings.folder / "train/a/truth.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"truth.npy is gone or damaged; make it again: remove"):
        open_data(settings, thorough=True)
    (settings.folder / "data.json").unlink()
    with pytest.raises(DataError, match="cityweave train data --task restorer"):
        open_data(settings)


def test_a_city_in_both_splits_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="runs/a is in train and in validation"):
        PairData.model_validate(values["data"] | {"validation": ["runs/a"]})
