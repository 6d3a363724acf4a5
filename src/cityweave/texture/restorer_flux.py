"""The restorer `flux`: FLUX.1-schnell made deterministic, one evaluation from a picture's latent to a clean one.

The latent of the rendered picture is taken for the noisy end of the flow, and one step along what the transformer says
there leads to the clean latent. No noise is drawn and there is no text. What a training adds is either all of the
transformer's weights or, beside them, matrices of low rank (Hu et al. 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cityweave.config import RefineConfig
from cityweave.errors import DataError
from cityweave.io.pipelines import load_part, model_folder
from cityweave.io.weights import fill_model, load_tensors
from cityweave.texture.restorer import Rendered

KIND = "flux_restorer"
PARTS = ("vae", "transformer")
STEP_PX = 16  # a latent is an eighth, and the transformer reads 2 x 2 of it at once
WINDOW_PX, OVERLAP_PX = 1024, 128
_NOISY_END = 1.0
_ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "proj_out")  # layers that get matrices of low rank
_SHARE_HELD = 0.6  # of a GPU's free memory that weights may take; beyond, blocks come and go


def base_folder(model: str) -> Path:
    return model_folder(model, PARTS, "a FLUX.1 model")


class FluxBase:
    """What is never trained here; a network and its running average have one between them."""

    def __init__(self, model: str, dtype: torch.dtype = torch.float32) -> None:
        from diffusers import AutoencoderKL, FluxTransformer2DModel

        folder = base_folder(model)
        classes = dict(zip(PARTS, (AutoencoderKL, FluxTransformer2DModel), strict=True))
        loaded = {part: load_part(folder, part, kind, dtype) for part, kind in classes.items()}
        self.vae, self.transformer = (loaded[part].eval().requires_grad_(False) for part in PARTS)
        self._placed = False
        self.added = nn.ModuleDict()  # matrices of the network that computes at present
        for name, layer in self.adapted():
            layer.register_forward_hook(partial(self._beside, name))
        channels = 4 * self.vae.config.latent_channels
        if self.transformer.config.in_channels != channels:
            raise DataError(
                f"{folder}: the transformer reads {self.transformer.config.in_channels} channels, but 2 x 2 of the "
                f"VAE's latents have {channels}; accepted: both parts of one FLUX.1 model"
            )

    def adapted(self) -> Iterator[tuple[str, nn.Linear]]:
        for name, layer in self.transformer.named_modules():
            if isinstance(layer, nn.Linear) and "blocks" in name and name.endswith(_ADAPTED):
                yield name.replace(".", "/"), layer

    def _beside(self, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + self.added[name](inputs[0]) if name in self.added else output

    def __deepcopy__(self, _: dict[int, Any]) -> FluxBase:
        return self

    def follow(self, device: torch.device) -> None:
        """Where a training puts the network, its base goes along."""
        if not self._placed and self.vae.device != device:
            self.vae.to(device)
            self.transformer.to(device)

    def place(self, device: str) -> None:
        """Onto a GPU: whole where there is room, otherwise each block for as long as it computes."""
        self._placed = True
        self.vae.to(device)
        weights = sum(tensor.numel() * tensor.element_size() for tensor in self.transformer.parameters())
        if weights < _SHARE_HELD * torch.cuda.mem_get_info()[0]:
            self.transformer.to(device)
        else:
            self.transformer.enable_group_offload(
                torch.device(device), torch.device("cpu"), "block_level", 1, use_stream=True, non_blocking=True
            )


class FluxRestorer(nn.Module):
    """[b, c, y, x], of which the first three are colours, black -1 and white 1, to [b, 3, y, x]; sides of 16.

    `rank`: of the matrices that are trained; 0: the model as it is; None: the whole transformer is trained.
    """

    def __init__(self, base: FluxBase, rank: int | None) -> None:
        super().__init__()
        self.base = base
        self.whole = base.transformer.requires_grad_(True) if rank is None else None
        layers = base.adapted() if rank else ()
        self.added = nn.ModuleDict({name: _LowRank(layer, rank or 0) for name, layer in layers})

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        self.base.follow(picture.device)
        self.base.added = self.added
        vae = self.base.vae
        latent = vae.encode(picture[:, :3].to(vae.dtype)).latent_dist.mode()
        low = (latent - vae.config.shift_factor) * vae.config.scaling_factor
        high = low - self._velocity(low)
        decoded: torch.Tensor = vae.decode(high / vae.config.scaling_factor + vae.config.shift_factor).sample
        return decoded

    def _velocity(self, latent: torch.Tensor) -> torch.Tensor:
        transformer = self.base.transformer if self.whole is None else self.whole
        batch, _, rows, cols = latent.shape
        rows, cols = rows // 2, cols // 2
        config, like = transformer.config, {"device": latent.device, "dtype": latent.dtype}
        row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
        places = torch.stack([torch.zeros_like(row), row, col], dim=-1).reshape(-1, 3).to(**like)
        tokens = transformer(
            hidden_states=functional.pixel_unshuffle(latent, 2).flatten(2).transpose(1, 2),
            encoder_hidden_states=torch.zeros(batch, 0, config.joint_attention_dim, **like),
            pooled_projections=torch.zeros(batch, config.pooled_projection_dim, **like),
            timestep=torch.full((batch,), _NOISY_END, **like),
            guidance=torch.ones(batch, **like) if config.guidance_embeds else None,
            img_ids=places,
            txt_ids=torch.zeros(0, 3, **like),
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(tokens.transpose(1, 2).reshape(batch, -1, rows, cols), 2)


class _LowRank(nn.Module):
    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, read: torch.Tensor) -> torch.Tensor:
        down, up = (part.weight.to(read.dtype) for part in (self.down, self.up))
        return functional.linear(functional.linear(read, down), up)


class _Opened:
    def __init__(self, model: FluxRestorer, device: str) -> None:
        self._model, self._device = model.eval(), device

    @torch.inference_mode()
    def restore(self, picture: Rendered) -> np.ndarray:
        """Window by window, at places that follow from the picture's size; overlaps fade from one into the other."""
        rows, cols = picture.rgb.shape[:2]
        colours = torch.from_numpy(picture.rgb).permute(2, 0, 1)[None].to(self._device, self._model.base.vae.dtype)
        colours = functional.pad(colours / 127.5 - 1, (0, -cols % STEP_PX, 0, -rows % STEP_PX), mode="replicate")
        total = torch.zeros(3, *colours.shape[2:], device=self._device)
        mass = torch.zeros(colours.shape[2:], device=self._device)
        for row, col in product(_windows(colours.shape[2]), _windows(colours.shape[3])):
            part = self._model(colours[:, :, row, col])[0].float()
            weight = torch.outer(*(_fade(stretch.stop - stretch.start, self._device) for stretch in (row, col)))
            total[:, row, col] += part * weight
            mass[row, col] += weight
        restored = (total / mass)[:, :rows, :cols].clamp(-1, 1)
        return ((restored + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _windows(size: int) -> list[slice]:
    """Of equal length, overlapping by at least 128 pixels, on places that the transformer's grid allows."""
    if size <= WINDOW_PX:
        return [slice(0, size)]
    count = -(-(size - OVERLAP_PX) // (WINDOW_PX - OVERLAP_PX))
    starts = [(size - WINDOW_PX) * k // (count - 1) // STEP_PX * STEP_PX for k in range(count)]
    return [slice(start, start + WINDOW_PX) for start in starts]


def _fade(size: int, device: str) -> torch.Tensor:
    from_end = torch.arange(size, device=device) + 1
    return (torch.minimum(from_end, from_end.flip(0)) / OVERLAP_PX).clamp(max=1)


def load_flux(path: Path, base: FluxBase) -> FluxRestorer:
    tensors, card = load_tensors(path)
    if card.get("kind") != KIND:
        raise DataError(f"{path} holds weights of {card.get('kind', 'an unknown network')!r}; accepted: {KIND!r}")
    model = FluxRestorer(base, card["rank"])
    fill_model(model, tensors, path)
    return model


def opened(refine: RefineConfig, device: str) -> _Opened:
    assert refine.model is not None  # the configuration sees to it
    on_gpu = device != "cpu"
    if on_gpu:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    else:
        torch.set_num_threads(1)
    base = FluxBase(refine.model, torch.bfloat16 if on_gpu else torch.float32)
    model = load_flux(refine.weights, base) if refine.weights else FluxRestorer(base, 0)
    if on_gpu:
        base.place(device)
        model.added.to(device)
    return _Opened(model, device)
