"""MagicLens (Zhang et al., ICML 2024): picture and text as two tokens of a small transformer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.flax_kind import require_flax
from models.composed.magiclens_settings import MagicLensSettings
from models.composed.system_record import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.magiclens_network import MagicLensNetwork
    from models.encoders.spec import EncoderSpec


def _build(spec: EncoderSpec, settings: MagicLensSettings, seed: int) -> MagicLensNetwork:
    from models.composed.magiclens_network import build

    return build(spec, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> MagicLensNetwork:
    from models.composed.magiclens_network import rebuild

    return rebuild(architecture, folder)


def _published(path: Path, settings: MagicLensSettings) -> MagicLensNetwork:
    from models.composed.magiclens_files import published

    return published(path, settings)


SYSTEM: Final = ComposedSystem(
    name="magiclens",
    title="MagicLens",
    settings=MagicLensSettings,
    build=_build,
    rebuild=_rebuild,
    published=_published,
    require_published=require_flax,
    training=ComposedTraining(
        batch_size=2048,
        epochs=1,
        learning_rate=2e-6,
        new_learning_rate=2e-5,
        weight_decay=0.01,
        warmup=0.0,
        clip=1.0,
    ),
)
"""Rates of towers and head, and the batch, are the paper's; its optimiser is Adafactor."""
