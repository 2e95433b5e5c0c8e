"""CASE-style: CoVR's network, and queries the other way round (after Levy et al., AAAI 2024).

Neither code nor weights of CASE are public. The image encoder, the fusion and the data are as its
paper describes them; the form of the reversed term and its weight are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from models.blip.settings import EarlyFusionSettings
from models.composed.systems import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.network import ComposedNetwork
    from models.encoders.spec import EncoderSpec


class CaseSettings(EarlyFusionSettings):
    """The network and loss; the temperature is learned."""

    rq_weight: float = Field(0.4, ge=0)
    """Weight of the reversed queries: the target under the marked text looks for the reference."""


def _build(spec: EncoderSpec, settings: CaseSettings, seed: int) -> ComposedNetwork:
    from models.blip.case import CaseNetwork

    return CaseNetwork.on_backbone(spec, settings, seed)


def _continued(start: Any, settings: CaseSettings, seed: int) -> ComposedNetwork:
    from models.blip.case import CaseNetwork

    return CaseNetwork.continuing(start, settings)


def _rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
    from models.blip.case import CaseNetwork

    return CaseNetwork.rebuilt(architecture, folder, CaseSettings())


SYSTEM: Final = ComposedSystem(
    name="case",
    title="CASE-style",
    settings=CaseSettings,
    build=_build,
    starts_from="covr",
    continued=_continued,
    rebuild=_rebuild,
    training=ComposedTraining(
        batch_size=512, epochs=5, learning_rate=1e-5, weight_decay=0.05, warmup=0.0, clip=0.0
    ),
)
