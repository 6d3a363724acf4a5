"""A FLUX.1 model of a few thousand random weights, in the folders that the real one has."""

from __future__ import annotations

from pathlib import Path


def tiny_flux(folder: Path, channels: int = 4) -> Path:
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=4,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.1,
            scaling_factor=0.36,
        )
        transformer = FluxTransformer2DModel(
            in_channels=4 * channels,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 6, 6),
        )
    vae.save_pretrained(folder / "vae")
    transformer.save_pretrained(folder / "transformer")
    return folder
