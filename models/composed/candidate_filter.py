"""Candidate re-ranking's filter (Liu et al., TMLR 2024): a text read over the reference image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.blip.settings import EarlyFusionSettings
from models.composed.early_fusion_system import early_fusion_system
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.early_fusion import EarlyFusionNetwork
    from models.composed.network import ComposedNetwork


def _network() -> type[EarlyFusionNetwork]:
    from models.blip.candidate_filter import FilterNetwork

    return FilterNetwork


def _published(path: Path, settings: EarlyFusionSettings) -> ComposedNetwork:
    from models.blip.candidate_filter import published_filter

    return published_filter(path, settings)


SYSTEM: Final = early_fusion_system(
    "candidate-filter",
    "Candidate re-ranking (filter)",
    EarlyFusionSettings,
    _network,
    ComposedTraining(
        batch_size=512,
        epochs=10,
        learning_rate=2e-5,
        weight_decay=0.05,
        warmup=0.0,
        clip=0.0,
        augmentation="targetpad",
    ),
    _published,
)
