"""Early fusion whose temperature is learned, bounded as in CLIP."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import nn

from models.blip.early_fusion import EarlyFusionNetwork, FusionParts
from models.blip.towers import BlipTowers

LARGEST_SCALE: Final = 100.0
"""Bound of 1 / temperature."""


class LearnedScaleNetwork(EarlyFusionNetwork):
    """Early fusion with a learned 1 / temperature.

    Attributes:
        log_scale: Its logarithm.
    """

    def __init__(self, towers: BlipTowers, parts: FusionParts, settings: Any) -> None:
        """Start at the temperature of the settings."""
        super().__init__(towers, parts, settings)
        # One axis: FSDP shards no scalars.
        self.log_scale = nn.Parameter(torch.full((1,), math.log(self.scale)))

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Keep the scale below its bound."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def step_measures(self) -> dict[str, float]:
        """The learned temperature."""
        return {"temperature": math.exp(-float(self.log_scale.detach()))}
