"""CoVR (Ventura et al., AAAI 2024): a text read over the reference image, under HN-NCE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from models.blip.settings import EarlyFusionSettings
from models.composed.systems import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.network import ComposedNetwork
    from models.encoders.spec import EncoderSpec


class CovrSettings(EarlyFusionSettings):
    """CoVR's network and loss."""

    hn_nce: Literal["paper", "code"] = "paper"
    """How negatives are weighted: as the paper has it, or as the released code does, which divides
    the first direction's weights by the sums of other rows."""
    alpha: float = Field(1.0, gt=0)
    """Weight of the positive in the loss."""
    beta: float = Field(0.5, ge=0)
    """Sharpness of the weights of negatives; 0 weighs all alike (InfoNCE)."""


def _build(spec: EncoderSpec, settings: CovrSettings, seed: int) -> ComposedNetwork:
    from models.blip.covr import CovrNetwork

    return CovrNetwork.on_backbone(spec, settings, seed)


def _continued(start: Any, settings: CovrSettings, seed: int) -> ComposedNetwork:
    from models.blip.covr import CovrNetwork

    return CovrNetwork.continuing(start, settings)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
    from models.blip.covr import CovrNetwork

    return CovrNetwork.rebuilt(architecture, folder, CovrSettings())


def _published(path: Path, settings: CovrSettings) -> ComposedNetwork:
    from models.blip.covr import published_covr

    return published_covr(path, settings)


SYSTEM: Final = ComposedSystem(
    name="covr",
    title="CoVR",
    settings=CovrSettings,
    build=_build,
    starts_from="covr",
    continued=_continued,
    rebuild=_rebuild,
    published=_published,
    training=ComposedTraining(
        batch_size=512, epochs=5, learning_rate=1e-5, weight_decay=0.05, warmup=0.0, clip=0.0
    ),
)
