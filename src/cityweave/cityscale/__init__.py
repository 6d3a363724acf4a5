"""Heights above ground from one picture: a latent diffusion backbone for relative heights, a head for their scale."""
