"""Backbone, heads and what they make together."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="make setup EXTRAS=models")

import torch

from cityweave.cityscale.backbone import denoise, noised
from cityweave.cityscale.heads import HEADS
from cityweave.cityscale.model import FIXED_RANGE_M, LEAST_SCALE_M, CityScale
from cityweave.cityscale.small import SmallBackbone, as_picture, from_picture
from tests.cityscale.tiny import small_model

SEVEN = tuple(name for name in HEADS if name != "fixed")


def inputs(side: int = 64, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 3, side, side) * 2 - 1, torch.randn(batch, 4, side // 4, side // 4)


def test_there_are_seven_heads_in_three_families() -> None:
    assert len(SEVEN) == 7
    assert {name.partition("_")[0] for name in SEVEN} == {"mlp", "fpn", "bins"}


@pytest.mark.parametrize("name", SEVEN)
def test_an_untrained_head_says_the_starting_scale_and_nothing_else(name: str) -> None:
    model = CityScale(SmallBackbone(8, 8, 4), name, 17.0)
    heights = model.predict(*inputs())
    assert torch.allclose(heights.metres, 17.0 * heights.relative, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SEVEN)
def test_a_window_has_one_scale_or_every_cell_its_own(name: str) -> None:
    model = small_model(name)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    seen, noise = inputs()
    features = denoise(model.backbone, model.backbone.encode(seen), noise, torch.ones(2)).features
    said = model.head(features, torch.cat([model.backbone.encode(seen), noise], dim=1))
    assert said.shape == ((2, 1, 1) if name.startswith("mlp") else (2, 16, 16))
    assert said.abs().max() > 0 and torch.isfinite(said).all()


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("attached", [True, False])
def test_metres_teach_the_backbone_only_when_attached(name: str, attached: bool) -> None:
    model = small_model(name, attached).train()
    heights = model(*_encoded(model), torch.ones(2))
    heights.metres.abs().mean().backward()
    moved = [p for p in model.backbone.unet.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert bool(moved) == attached
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.head.parameters())
    assert all(p.grad is None for p in model.backbone.frozen().parameters())


def _encoded(model: CityScale) -> tuple[torch.Tensor, torch.Tensor]:
    picture, noise = inputs()
    return model.backbone.encode(picture), noise


def test_the_expected_error_teaches_nothing_but_its_own_layer() -> None:
    model = small_model().train()
    model(*_encoded(model), torch.ones(2)).spread.mean().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("spread"))
    assert all(p.grad is not None for p in model.spread.parameters())


def test_ground_is_0_and_nothing_is_below_it() -> None:
    model = small_model()
    assert (model.predict(*inputs()).metres >= 0).all()
    ground = torch.zeros(1, 8, 8)
    assert (from_picture(as_picture(ground)) == 0).all()


def test_relative_heights_come_back_from_a_picture() -> None:
    relative = torch.rand(2, 16, 16)
    assert torch.allclose(from_picture(as_picture(relative)), relative, atol=1e-6)


def test_a_window_is_divided_by_its_own_scale() -> None:
    model = small_model()
    height, valid = torch.zeros(2, 64, 64), torch.ones(2, 64, 64)
    height[0, :20, :20] = 40.0
    assert model.scale_of(height, valid).tolist() == [40.0, LEAST_SCALE_M]
    assert small_model("fixed").scale_of(height, valid).tolist() == [FIXED_RANGE_M] * 2


def test_one_step_from_noise_is_minus_the_velocity() -> None:
    backbone = small_model().backbone
    seen, noise = inputs()
    denoised = denoise(backbone, backbone.encode(seen), noise, torch.ones(2))
    assert torch.allclose(denoised.clean, -denoised.velocity, atol=1e-6)
    assert [level.shape[1] for level in denoised.features] == list(backbone.feature_channels)


def test_clean_and_noise_are_legs_of_a_right_angle() -> None:
    backbone = small_model().backbone
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    time = torch.tensor([0.1, 0.5, 1.0])
    noisy, velocity = noised(backbone, clean, noise, time)
    a, s = (leg[:, None, None, None] for leg in backbone.legs(time))
    assert torch.allclose(a**2 + s**2, torch.ones(3, 1, 1, 1), atol=1e-6)
    assert torch.allclose(a * noisy - s * velocity, clean, atol=1e-5)
    assert math.isclose(float(backbone.legs(torch.ones(1))[1]), 1.0)


def test_the_same_picture_and_noise_give_the_same_bits() -> None:
    first, second = (small_model().predict(*inputs()).metres for _ in range(2))
    assert torch.equal(first, second)
