"""TransAgg (Liu et al., BMVC 2023), on a CLIP or on BLIP's own towers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.system_record import ComposedSystem
from models.composed.transagg_settings import TransAggSettings
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.early_fusion import EarlyFusionNetwork
    from models.composed.network import ComposedNetwork
    from models.encoders.spec import EncoderSpec


def _build(spec: EncoderSpec, settings: TransAggSettings, seed: int) -> ComposedNetwork:
    from models.composed.transagg_network import build

    return build(spec, settings, seed)


def _continued(start: EarlyFusionNetwork, settings: TransAggSettings, seed: int) -> ComposedNetwork:
    from models.composed.transagg_blip import on_early_fusion

    return on_early_fusion(start, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
    from models.composed.transagg_network import rebuild

    return rebuild(architecture, folder)


def _published(path: Path, settings: TransAggSettings) -> ComposedNetwork:
    from models.composed.transagg_network import published

    return published(path, settings)


SYSTEM: Final = ComposedSystem(
    name="transagg",
    title="TransAgg",
    settings=TransAggSettings,
    build=_build,
    continued=_continued,
    starts_from="covr",
    rebuild=_rebuild,
    published=_published,
    training=ComposedTraining(
        batch_size=64,
        epochs=100,
        learning_rate=1e-6,
        new_learning_rate=1e-4,
        weight_decay=0.05,
        warmup=0.0,
        clip=5.0,
        augmentation="targetpad",
    ),
)
"""Its schedule is the published one but for two things: the cosine ends at zero and not at 1 % of
the highest rate, and biases and norms do not decay."""
