"""Weights that can't be used are told apart before any job starts."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="make setup EXTRAS=models")

import torch

from cityweave.cityscale.model import load
from cityweave.cityscale.weights import SHIPPED, read_card, require_cityscale
from cityweave.errors import ConfigError, DataError, MissingCapability
from cityweave.io.weights import save_tensors
from cityweave.plan import load_config
from tests.cityscale.tiny import small_weights


def wanting(values: dict, weights: Path | None, **more: object) -> dict:
    values["sources"]["ortho"] = [{"name": "photo", "path": "photo.tif"}]
    values["dsm"] = {"method": "fused"}
    values["cityscale"] = ({"weights": str(weights)} if weights else {}) | more
    return values


def test_weights_of_ours_are_accepted(city_values: dict, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors")
    require_cityscale(load_config(wanting(city_values, path, window_m=32.0)))
    model, card = load(path)
    assert card == read_card(path) and card["head"] == "fpn" and not model.training


def test_the_weights_that_come_along_are_whole_and_small(city_values: dict) -> None:
    require_cityscale(load_config(wanting(city_values, None)))
    assert SHIPPED.stat().st_size <= 25_000_000
    load(SHIPPED)


def test_weights_that_are_not_there(city_values: dict, tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match=r"is not there; accepted: a \.safetensors file"):
        require_cityscale(load_config(wanting(city_values, tmp_path / "no.safetensors")))


def test_weights_of_an_older_network(city_values: dict, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors", design=1)
    with pytest.raises(DataError, match=r"of an older network \(design 1\); accepted: design 2"):
        require_cityscale(load_config(wanting(city_values, path)))


def test_weights_that_are_cut_off(city_values: dict, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged or cut off"):
        require_cityscale(load_config(wanting(city_values, path)))
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(DataError, match="no safetensors file"):
        require_cityscale(load_config(wanting(city_values, path)))


def test_weights_of_another_kind(city_values: dict, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"a": torch.zeros(3)}, {"kind": "small_restorer"})
    for call in (lambda: require_cityscale(load_config(wanting(city_values, path))), lambda: load(path)):
        with pytest.raises(DataError, match="holds weights of 'small_restorer'; accepted: 'cityscale'"):
            call()


def test_weights_of_another_size(tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors", width=16)
    with pytest.raises(DataError, match="another network"):
        load(path)


def test_a_window_that_the_network_cannot_divide(city_values: dict, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"window_m is 50; accepted with these weights: multiples of 32"):
        require_cityscale(load_config(wanting(city_values, path, window_m=50.0)))


def test_what_heights_from_a_picture_need(city_values: dict, tmp_path: Path) -> None:
    def refused(match: str, **changes: object) -> None:
        with pytest.raises(ConfigError, match=match):
            load_config(city_values | changes)

    refused("needs one orthophoto: sources.ortho has none", dsm={"method": "fused"})
    refused(r"dsm.terrain is flat; accepted with dsm.method cityscale or fused", dsm={"terrain": "flat"})
    refused(r"dsm.flat_m is 3.0; accepted with dsm.method cityscale or fused", dsm={"flat_m": 3.0})
    both = [{"name": name, "path": f"{name}.tif"} for name in "ab"]
    refused("has a, b; accepted", sources={**city_values["sources"], "ortho": both}, dsm={"method": "fused"})
    one = {"ortho": both[:1]}  # and no views: none are needed
    refused("sources.terrain names none; accepted", sources=one, dsm={"method": "cityscale"})
    refused("one picture doesn't tell it", sources=one, dsm={"method": "cityscale", "terrain": "estimated"})
    refused("flat_m is the height", sources=one, dsm={"method": "cityscale", "terrain": "flat"})
    load_config(city_values | {"sources": one, "dsm": {"method": "cityscale", "terrain": "flat", "flat_m": 3.0}})
