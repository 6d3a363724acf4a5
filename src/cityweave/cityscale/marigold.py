"""The backbone `marigold`: UNet, VAE and scheduler of Marigold, or of any model in its folder layout.

The text that the UNet asks for is empty. Its embedding is a part of the weights: it begins as the file
`empty_text.safetensors` of the folder, or as zeros where there is none, and is trained along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cityweave.errors import DataError, MissingCapability
from cityweave.io.pipelines import load_part, model_folder

KIND = "marigold"
PARTS = ("unet", "vae")
TEXT, TEXT_TOKENS = "empty_text.safetensors", 2


class MarigoldBackbone(nn.Module):
    def __init__(self, unet: nn.Module, vae: nn.Module, scheduler: Mapping[str, Any], text: torch.Tensor) -> None:
        super().__init__()
        from diffusers import DDIMScheduler

        self.unet, self.vae = unet, vae.eval().requires_grad_(False)
        self.text = nn.Parameter(text)
        self._scheduler = dict(scheduler)
        own: Any = DDIMScheduler.from_config(self._scheduler)
        if own.config.prediction_type != "v_prediction":
            raise DataError(f"the scheduler is of {own.config.prediction_type}; accepted: v_prediction")
        clean = own.alphas_cumprod.double().sqrt()
        clean[-1] = 0.0  # prediction begins at noise alone, whatever the schedule ends with
        self.register_buffer("clean_leg", clean.float(), persistent=False)
        config: Any = unet.config
        latents = int(vae.config.latent_channels)  # type: ignore[union-attr,arg-type]
        if config.in_channels != 2 * latents or config.out_channels != latents:
            raise DataError(
                f"the UNet reads {config.in_channels} channels and says {config.out_channels}; accepted beside this "
                f"VAE: {2 * latents} (picture and heights) and {latents}"
            )
        self.latent_channels = latents
        self.latent_px = 2 ** (len(vae.config.block_out_channels) - 1)  # type: ignore[union-attr,arg-type]
        self.multiple_px = self.latent_px * 2 ** (len(config.block_out_channels) - 1)
        self.feature_channels = tuple(reversed(config.block_out_channels))
        self._features: list[torch.Tensor] = []
        for block in unet.up_blocks:  # type: ignore[union-attr]
            block.register_forward_hook(self._keep)

    @staticmethod
    def from_folder(model: str) -> MarigoldBackbone:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        folder = model_folder(model, PARTS, "a Marigold model")
        scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
        unet, vae = (
            load_part(folder, part, kind, torch.float32)
            for part, kind in zip(PARTS, (UNet2DConditionModel, AutoencoderKL), strict=True)
        )
        wide = unet.config.cross_attention_dim
        return MarigoldBackbone(unet, vae, scheduler, _text(folder, wide))

    @staticmethod
    def of_card(card: Mapping[str, Any]) -> MarigoldBackbone:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        unet, vae = UNet2DConditionModel.from_config(card["unet"]), AutoencoderKL.from_config(card["vae"])
        text = torch.zeros(1, TEXT_TOKENS, card["unet"]["cross_attention_dim"])
        return MarigoldBackbone(unet, vae, card["scheduler"], text)

    def _keep(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        self._features.append(output)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = self.vae.encode(picture).latent_dist.mode() * self.vae.config.scaling_factor
        return latent

    def encode_relative(self, relative: torch.Tensor) -> torch.Tensor:
        return self.encode((2 * relative - 1)[:, None].expand(-1, 3, -1, -1))

    def decode_relative(self, latent: torch.Tensor) -> torch.Tensor:
        picture = self.vae.decode(latent / self.vae.config.scaling_factor).sample
        relative: torch.Tensor = (picture.float().mean(dim=1) + 1) / 2
        return relative.clamp(min=0)

    def legs(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clean = self.clean_leg[self._steps(time)]
        return clean, (1 - clean**2).sqrt()

    def _steps(self, time: torch.Tensor) -> torch.Tensor:
        return (time * (len(self.clean_leg) - 1)).round().long()

    def velocity(
        self, seen: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self._features = []
        text = self.text.expand(len(seen), -1, -1)
        said = self.unet(torch.cat([seen, noisy], dim=1), self._steps(time), text, return_dict=False)[0]
        features, self._features = self._features, []
        return said, features

    def frozen(self) -> nn.Module:
        return self.vae

    def card(self) -> dict[str, Any]:
        return {
            "backbone": KIND,
            "unet": _plain(self.unet.config),
            "vae": _plain(self.vae.config),
            "scheduler": self._scheduler,
        }


def _text(folder: Path, wide: int) -> torch.Tensor:
    file = folder / TEXT
    if not file.is_file():
        return torch.zeros(1, TEXT_TOKENS, wide)
    from safetensors.torch import load_file

    text: torch.Tensor = load_file(file)["embedding"].float()
    if text.shape != (1, TEXT_TOKENS, wide):
        raise DataError(f"{file} holds a tensor of {tuple(text.shape)}; accepted: (1, {TEXT_TOKENS}, {wide})")
    return text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MissingCapability(f"{path} can't be read ({error}); accepted: the folder of a Marigold model") from None
    return values


def _plain(config: Any) -> dict[str, Any]:
    return {k: v for k, v in json.loads(json.dumps(dict(config), default=str)).items() if k != "_name_or_path"}
