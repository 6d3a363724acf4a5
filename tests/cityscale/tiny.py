"""Networks of seconds: a `small` one with random weights, and a Marigold of the real classes and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cityweave.cityscale.model import CityScale
from cityweave.cityscale.small import Autoencoder, SmallBackbone
from cityweave.io.weights import save_tensors


def small_model(head: str = "fpn", attached: bool = True) -> CityScale:
    torch.manual_seed(0)
    model = CityScale(SmallBackbone(8, 8, 4), head, 20.0, attached)
    for layer in (model.backbone.unet.out, *(m for m in model.head.modules() if isinstance(m, torch.nn.Linear))):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return model.eval()


def small_weights(path: Path, **card: Any) -> Path:
    model = small_model()
    save_tensors(path, model.state_dict(), {**model.card(), "gsd_m": 0.5, "window_px": 64, "highest_m": 100.0, **card})
    return path


def vae_weights(path: Path) -> Path:
    torch.manual_seed(0)
    save_tensors(path, Autoencoder(8, 4).state_dict(), {"kind": "height_vae", "width": 8, "channels": 4})
    return path


def tiny_marigold(folder: Path, prediction_type: str = "v_prediction") -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(prediction_type=prediction_type, timestep_spacing="trailing").save_pretrained(folder / "scheduler")
    return folder


def marigold_weights(folder: Path, **card: Any) -> Path:
    from cityweave.cityscale.marigold import MarigoldBackbone

    model = CityScale(MarigoldBackbone.from_folder(str(tiny_marigold(folder / "model"))), "fpn", 20.0)
    path = folder / "marigold.safetensors"
    save_tensors(path, model.state_dict(), {**model.card(), "gsd_m": 0.5, "window_px": 64, "highest_m": 100.0, **card})
    return path
