"""The network of the CASE-style system: early fusion with reversed queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from models.blip.early_fusion import EarlyFusionNetwork, FusionParts
from models.blip.hard_negatives import hn_nce
from models.blip.towers import BlipTowers

if TYPE_CHECKING:
    from models.composed.case import CaseSettings
    from models.training.batches import Batch

LARGEST_SCALE: Final = 100.0
"""Bound of the learned 1 / temperature, as in CLIP."""


class CaseNetwork(EarlyFusionNetwork):
    """Early fusion whose loss also asks for the reference, given target and marked text."""

    settings: CaseSettings

    def __init__(self, towers: BlipTowers, parts: FusionParts, settings: Any) -> None:
        """Start the temperature at the settings'."""
        super().__init__(towers, parts, settings)
        # One axis: FSDP shards no scalars.
        self.log_scale = nn.Parameter(torch.full((1,), math.log(self.scale)))

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`, and `reversed_texts` with the mark [DEC] in second place; ids (B, L) each."""
        return {"texts": self.ids(texts), "reversed_texts": self.ids(texts, marked=True)}

    def loss(self, batch: Batch) -> torch.Tensor:
        """InfoNCE in both directions, plus that of the reversed queries times its weight."""
        references = self.towers.image_tokens(batch["references"])
        targets = self.towers.image_tokens(batch["targets"])
        masked = self.settings.mask_repeats
        scale = self.log_scale.exp()
        loss = hn_nce(
            self.fused(references, batch["texts"]),
            self.towers.image_vector(targets),
            scale,
            batch["target_ids"] if masked else None,
            beta=0.0,
        )
        if not self.settings.rq_weight:
            return loss
        return loss + self.settings.rq_weight * hn_nce(
            self.fused(targets, batch["reversed_texts"]),
            self.towers.image_vector(references),
            scale,
            batch["reference_ids"] if masked else None,
            beta=0.0,
        )

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Bring the learned 1 / temperature back to at most 100."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def step_measures(self) -> dict[str, float]:
        """The learned temperature."""
        return {"temperature": math.exp(-float(self.log_scale.detach()))}
