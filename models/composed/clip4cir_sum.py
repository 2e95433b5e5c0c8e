"""CLIP4CIR, stage one (Baldrati et al., CVPR workshops 2022): towers that learn to be added."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.clip4cir_settings import SumSettings
from models.composed.system_record import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.clip4cir_network import SumNetwork
    from models.encoders.spec import EncoderSpec


def _build(spec: EncoderSpec, settings: SumSettings, seed: int) -> SumNetwork:
    from models.composed.clip4cir_network import build_sum

    return build_sum(spec, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> SumNetwork:
    from models.composed.clip4cir_network import rebuild_sum

    return rebuild_sum(architecture, folder)


def _published(path: Path, settings: SumSettings) -> SumNetwork:
    from models.composed.clip4cir_network import published_sum

    return published_sum(path, settings)


SYSTEM: Final = ComposedSystem(
    name="clip4cir-sum",
    title="CLIP4CIR stage one",
    settings=SumSettings,
    build=_build,
    rebuild=_rebuild,
    published=_published,
    training=ComposedTraining(
        batch_size=128,
        epochs=100,
        learning_rate=2e-6,
        weight_decay=0.01,
        eps=1e-7,
        warmup=0.0,
        schedule="constant",
        clip=0.0,
        augmentation="targetpad",
        captions="drawn",
    ),
)
