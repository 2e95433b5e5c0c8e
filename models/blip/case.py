"""The network of the CASE-style system: early fusion with reversed queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from models.blip.hard_negatives import hn_nce
from models.blip.learned_scale import LearnedScaleNetwork

if TYPE_CHECKING:
    from models.composed.case import CaseSettings
    from models.training.batches import Batch


class CaseNetwork(LearnedScaleNetwork):
    """Early fusion whose loss also asks for the reference, given target and marked text."""

    settings: CaseSettings

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
