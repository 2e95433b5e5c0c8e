"""CASE-style: CoVR's network, and queries the other way round (after Levy et al., AAAI 2024).

Neither code nor weights of CASE are public. The image encoder, the fusion and the data are as its
paper describes them; the form of the reversed term and its weight are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import Field

from models.blip.settings import EarlyFusionSettings
from models.composed.early_fusion_system import early_fusion_system
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.early_fusion import EarlyFusionNetwork


class CaseSettings(EarlyFusionSettings):
    """The network and loss; the temperature is learned."""

    rq_weight: float = Field(0.4, ge=0)
    """Weight of the reversed queries: the target under the marked text looks for the reference."""


def _network() -> type[EarlyFusionNetwork]:
    from models.blip.case import CaseNetwork

    return CaseNetwork


SYSTEM: Final = early_fusion_system(
    "case",
    "CASE-style",
    CaseSettings,
    _network,
    ComposedTraining(
        batch_size=512, epochs=5, learning_rate=1e-5, weight_decay=0.05, warmup=0.0, clip=0.0
    ),
)
