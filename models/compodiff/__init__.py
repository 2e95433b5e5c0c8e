"""CompoDiff: a diffusion model over image features that a text and a reference image guide."""
