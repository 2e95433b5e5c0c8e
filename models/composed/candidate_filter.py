"""Candidate re-ranking's filter (Liu et al., TMLR 2024): a text read over the reference image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.blip.settings import EarlyFusionSettings
from models.composed.systems import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.network import ComposedNetwork
    from models.encoders.spec import EncoderSpec


def _build(spec: EncoderSpec, settings: EarlyFusionSettings, seed: int) -> ComposedNetwork:
    from models.blip.candidate_filter import FilterNetwork

    return FilterNetwork.on_backbone(spec, settings, seed)


def _continued(start: Any, settings: EarlyFusionSettings, seed: int) -> ComposedNetwork:
    from models.blip.candidate_filter import FilterNetwork, padded_pictures

    return padded_pictures(FilterNetwork.continuing(start, settings))


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
    from models.blip.candidate_filter import FilterNetwork

    return FilterNetwork.rebuilt(architecture, folder, EarlyFusionSettings())


def _published(path: Path, settings: EarlyFusionSettings) -> ComposedNetwork:
    from models.blip.candidate_filter import published_filter

    return published_filter(path, settings)


SYSTEM: Final = ComposedSystem(
    name="candidate-filter",
    title="Candidate re-ranking (filter)",
    settings=EarlyFusionSettings,
    build=_build,
    starts_from="covr",
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    training=ComposedTraining(
        batch_size=512,
        epochs=10,
        learning_rate=2e-5,
        weight_decay=0.05,
        warmup=0.0,
        clip=0.0,
        augmentation="targetpad",
    ),
)
