"""Stage two of InstructCIR: combine the reformulated embedding with the pure text (equation 3).

The body of equation 3 is not printed; the text says that one trained weight combines original
features from two sides, as earlier papers do. Three readings, all L2-normalised at the end:

- `scalar`: n(lam n(z) + (1 - lam) n(e_T)), lam = sigmoid(a), a trained from 2.
- `clip4cir_scalar`: n(z + lam e_T + (1 - lam) v_ref), v_ref the reference image's embedding
  with the null text; the residual form of CLIP4CIR (Baldrati et al., 2022).
- `clip4cir_mlp`: CLIP4CIR's combiner. Its image side is the reformulated embedding z, which
  equation 3 sets next to the text; with the plain image there, z would have no place.

CLIP4CIR's code reads embeddings as the towers give them. Its two forms with `_unit` scale all of
them to length one first, so that the text weighs as much as the image.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.instructcir.settings import CombinerSettings


class Combiner(nn.Module):
    """Combines z, text and reference image into the vector that is retrieved with."""

    settings: CombinerSettings

    @property
    def needs_image(self) -> bool:
        """Whether the reference image's null-text embedding is looked at."""
        return self.settings.form == "clip4cir_scalar"

    def combine(
        self, z: torch.Tensor, text: torch.Tensor, image_null: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Combine embeddings; the same as calling the module.

        Args:
            z: (B, d) the network's output.
            text: (B, d) e_T, not normalised.
            image_null: (B, d) the reference images with the null text, not normalised; may be
                left out where `needs_image` is false.

        Returns:
            (B, d), L2-normalised.

        Raises:
            ValueError: `image_null` is needed and was not given.
        """
        if self.needs_image and image_null is None:
            raise ValueError(
                f"the combiner {self.settings.kind!r} reads the reference image's null-text "
                "embedding too; give `image_null`"
            )
        return self(z, text, image_null)

    def _read(self, *sides: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings as they are combined: at their own length, or at length one."""
        if not self.settings.reads_unit_vectors:
            return list(sides)
        return [functional.normalize(side, dim=-1) for side in sides]


class ScalarCombiner(Combiner):
    """One trained number; the kinds `scalar` and `clip4cir_scalar`, this also with `_unit`."""

    def __init__(self, settings: CombinerSettings) -> None:
        """Start at the settings' number."""
        super().__init__()
        self.settings = settings
        self.logit = nn.Parameter(torch.tensor(float(settings.start)))

    @property
    def weight(self) -> torch.Tensor:
        """Lambda, in (0, 1)."""
        return self.logit.sigmoid()

    def forward(
        self, z: torch.Tensor, text: torch.Tensor, image_null: torch.Tensor | None
    ) -> torch.Tensor:
        """Equation 3 as read by the kind."""
        weight = self.weight
        if self.settings.kind == "scalar" or image_null is None:
            sides = functional.normalize(z, dim=-1), functional.normalize(text, dim=-1)
            return functional.normalize(weight * sides[0] + (1 - weight) * sides[1], dim=-1)
        z, text, image_null = self._read(z, text, image_null)
        return functional.normalize(z + weight * text + (1 - weight) * image_null, dim=-1)


class MlpCombiner(Combiner):
    """CLIP4CIR's combiner: an MLP on both sides plus their gated sum."""

    def __init__(self, dim: int, settings: CombinerSettings) -> None:
        """Make it for embeddings of width `dim`."""
        super().__init__()
        self.settings = settings
        p, h = settings.projection, settings.hidden
        self.from_image = _layer(dim, p, settings.dropout)
        self.from_text = _layer(dim, p, settings.dropout)
        self.joint = nn.Sequential(_layer(2 * p, h, settings.dropout), nn.Linear(h, dim))
        self.gate = nn.Sequential(_layer(2 * p, h, settings.dropout), nn.Linear(h, 1), nn.Sigmoid())

    def forward(
        self, z: torch.Tensor, text: torch.Tensor, image_null: torch.Tensor | None
    ) -> torch.Tensor:
        """n(MLP(z, e_T) + s e_T + (1 - s) z), s a number per query; `image_null` is not read."""
        z, text = self._read(z, text)
        sides = torch.cat([self.from_text(text), self.from_image(z)], dim=-1)
        share = self.gate(sides)
        return functional.normalize(self.joint(sides) + share * text + (1 - share) * z, dim=-1)


def new_combiner(dim: int, settings: CombinerSettings, seed: int = 0) -> Combiner:
    """An untrained combiner for embeddings of width `dim`."""
    if settings.form != "clip4cir_mlp":
        return ScalarCombiner(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MlpCombiner(dim, settings)


def _layer(width_in: int, width_out: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(dropout))
