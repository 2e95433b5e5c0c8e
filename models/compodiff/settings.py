"""Every choice of CompoDiff as a named value."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from models.settings import Settings

FeatureUnits: TypeAlias = Literal["unit", "as_encoded"]


class DenoiserSettings(Settings):
    """The network and the noise that it learns to take away."""

    depth: int = Field(3, ge=1)
    """Layers (the released network: 12)."""
    heads: int = Field(4, ge=1)
    """Heads of the self-attention (released: 16)."""
    head_width: int = Field(32, ge=2, multiple_of=2)
    """Width of a head (released: 64)."""
    features: FeatureUnits = "unit"
    """Image features as the network reads them: `unit`, of length sqrt(d), or `as_encoded` by the
    backbone, as released."""
    timesteps: int = Field(1000, ge=2)
    """Steps of the cosine noise schedule."""
    drop_image: float = Field(0.1, ge=0, lt=1)
    """Share of training rows without their reference image."""
    drop_text: float = Field(0.1, ge=0, lt=1)
    """Share of training rows without their text, drawn independently."""
    captions: float = Field(0.0, ge=0, lt=1)
    """Share of training rows that have the target's own caption as their text and no reference:
    CompoDiff trains on such text-to-image rows too."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Largest momentum of the moving average of the weights, which answers queries; 0 leaves it
    out. It starts lower and rises with the steps."""


class SamplingSettings(Settings):
    """How a query's image feature is sampled."""

    calls: int = Field(10, ge=1)
    """Evaluations of the network."""
    draws: int = Field(2, ge=1)
    """Features whose mean is taken."""
    eta: float = Field(1.0, ge=0, le=1)
    """Fresh noise of the DDIM steps: 1 as released; 0: none."""
    image_guidance: float = 1.5
    """Weight of the reference image (w_I)."""
    text_guidance: float = 7.5
    """Weight of the text (w_T)."""
    negative_text: str = ""
    """Text that stands for "no text"."""
    reference_share: float = Field(0.1, ge=0, le=1)
    """Share of the reference image's own feature in the query."""
    seed: int = 0
    """Of all noise."""


class CompoDiffSettings(Settings):
    """The denoiser that answers queries, and how it does."""

    checkpoint: str = ""
    """Folder of a denoiser, local or s3://: one that train-compodiff published, or a copy of
    navervision/CompoDiff-Aesthetic; empty: none."""
    text_model: str = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
    """transformers' CLIP text model that the released denoiser reads texts with; one trained here
    reads them with the backbone's own."""
    sampling: SamplingSettings = SamplingSettings()
    """Guidance, calls and draws."""
