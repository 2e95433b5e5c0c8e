"""CLIP4CIR, stage two (Baldrati et al., CVPR 2022): a combiner on the towers of stage one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.clip4cir_settings import CombinerSettings, published_files
from models.composed.system_record import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.clip4cir_network import CombinerNetwork, SumNetwork


def _continued(start: SumNetwork, settings: CombinerSettings, seed: int) -> CombinerNetwork:
    from models.composed.clip4cir_network import build_combiner

    return build_combiner(start, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> CombinerNetwork:
    from models.composed.clip4cir_network import rebuild_combiner

    return rebuild_combiner(architecture, folder)


def _published(path: Path, settings: CombinerSettings) -> CombinerNetwork:
    from models.composed.clip4cir_network import published_combiner

    return published_combiner(path, settings)


SYSTEM: Final = ComposedSystem(
    name="clip4cir",
    title="CLIP4CIR",
    settings=CombinerSettings,
    starts_from="clip4cir-sum",
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    require_published=published_files,
    training=ComposedTraining(
        batch_size=4096,
        epochs=300,
        new_learning_rate=2e-5,
        weight_decay=0.0,
        warmup=0.0,
        schedule="constant",
        clip=0.0,
        augmentation="targetpad",
        captions="drawn",
    ),
)
