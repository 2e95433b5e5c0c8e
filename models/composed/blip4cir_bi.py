"""BLIP4CIR+Bi (Liu et al., WACV 2024): stage two with its combiner, and the published files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.bi_settings import BiCombinerSettings, published_files
from models.composed.system_record import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.bi_network import BiNetwork, BiOnClip


def _continued(start: BiOnClip, settings: BiCombinerSettings, seed: int) -> BiNetwork:
    from models.composed.bi_network import build_combiner

    return build_combiner(start, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> BiNetwork:
    if "clip" in architecture:
        from models.composed.bi_network import rebuild_on_clip

        return rebuild_on_clip(architecture, folder, BiCombinerSettings)
    from models.blip.bi import rebuild_on_blip

    return rebuild_on_blip(architecture, folder)


def _published(path: Path, settings: BiCombinerSettings) -> BiNetwork:
    from models.blip.bi import published_bi

    return published_bi(path, settings)


SYSTEM: Final = ComposedSystem(
    name="blip4cir-bi",
    title="BLIP4CIR+Bi",
    settings=BiCombinerSettings,
    starts_from="blip4cir-bi-sum",
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    require_published=published_files,
    training=ComposedTraining(
        batch_size=512,
        epochs=300,
        learning_rate=2e-5,
        new_learning_rate=2e-5,
        weight_decay=0.0,
        warmup=0.0,
        schedule="constant",
        clip=0.0,
        augmentation="targetpad",
    ),
)
