"""CoVR (Ventura et al., AAAI 2024): a text read over the reference image, under HN-NCE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from models.blip.settings import EarlyFusionSettings
from models.composed.early_fusion_system import early_fusion_system
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.early_fusion import EarlyFusionNetwork
    from models.composed.network import ComposedNetwork


class CovrSettings(EarlyFusionSettings):
    """CoVR's network and loss."""

    hn_nce: Literal["paper", "code"] = "paper"
    """How negatives are weighted: as the paper has it, or as the released code does, which divides
    the first direction's weights by the sums of other rows."""
    alpha: float = Field(1.0, gt=0)
    """Weight of the positive in the loss."""
    beta: float = Field(0.5, ge=0)
    """Sharpness of the weights of negatives; 0 weighs all alike (InfoNCE)."""


def _network() -> type[EarlyFusionNetwork]:
    from models.blip.covr import CovrNetwork

    return CovrNetwork


def _published(path: Path, settings: CovrSettings) -> ComposedNetwork:
    from models.blip.covr import published_covr

    return published_covr(path, settings)


SYSTEM: Final = early_fusion_system(
    "covr",
    "CoVR",
    CovrSettings,
    _network,
    ComposedTraining(
        batch_size=512, epochs=5, learning_rate=1e-5, weight_decay=0.05, warmup=0.0, clip=0.0
    ),
    _published,
)
