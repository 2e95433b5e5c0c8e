"""BLIP4CIR+Bi, stage one (Liu et al., WACV 2024), on the towers of a CLIP: "Bi on CLIP4CIR"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.bi_settings import BiSumSettings
from models.composed.system_record import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.bi_network import BiOnClip
    from models.encoders.spec import EncoderSpec


def _build(spec: EncoderSpec, settings: BiSumSettings, seed: int) -> BiOnClip:
    from models.composed.bi_network import build_sum

    return build_sum(spec, settings, seed)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> BiOnClip:
    from models.composed.bi_network import rebuild_on_clip

    return rebuild_on_clip(architecture, folder, BiSumSettings)


SYSTEM: Final = ComposedSystem(
    name="blip4cir-bi-sum",
    title="BLIP4CIR+Bi stage one",
    settings=BiSumSettings,
    build=_build,
    rebuild=_rebuild,
    training=ComposedTraining(
        batch_size=128,
        epochs=20,
        learning_rate=5e-5,
        weight_decay=0.05,
        warmup=0.0,
        clip=0.0,
        augmentation="targetpad",
    ),
)
