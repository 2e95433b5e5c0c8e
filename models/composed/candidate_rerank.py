"""Candidate re-ranking's second stage (Liu et al., TMLR 2024): a cross-encoder over candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.blip.settings import EarlyFusionSettings
from models.composed.system_record import ComposedSystem
from models.settings import Settings
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork
    from models.composed.network import ComposedNetwork


class RerankSettings(Settings):
    """The re-ranker's loss; its network is as large as its filter's text tower."""

    mask_repeats: bool = True
    """Whether other targets that are the same image as a query's own are left out of its
    negatives; the released code counts them."""
    filter_dropout: bool = True
    """Whether the frozen filter's dropout is on while the re-ranker is trained, as in the released
    code."""


def _continued(start: FilterNetwork, settings: RerankSettings, seed: int) -> RerankNetwork:
    from models.blip.candidate_rerank import RerankNetwork

    return RerankNetwork.on_filter(start, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork

    stage_one = FilterNetwork.rebuilt(architecture, folder, EarlyFusionSettings())
    return RerankNetwork(stage_one, RerankSettings())


def _published(path: Path, settings: RerankSettings) -> ComposedNetwork:
    from models.blip.candidate_rerank import published_rerank

    return published_rerank(path, settings)


SYSTEM: Final = ComposedSystem(
    name="candidate-rerank",
    title="Candidate re-ranking",
    settings=RerankSettings,
    starts_from="candidate-filter",
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    training=ComposedTraining(
        batch_size=16,
        epochs=80,
        learning_rate=2e-5,
        new_learning_rate=2e-5,
        weight_decay=0.05,
        warmup=0.0,
        clip=0.0,
        augmentation="targetpad",
    ),
)
