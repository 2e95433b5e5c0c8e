"""The record of a system whose network is an early fusion, from the network's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.blip.settings import EarlyFusionSettings
from models.blip.vocabulary_file import require_worded_weights
from models.composed.system_record import ComposedSystem
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.blip.early_fusion import EarlyFusionNetwork
    from models.composed.network import ComposedNetwork
    from models.encoders.spec import EncoderSpec


def early_fusion_system(
    name: str,
    title: str,
    settings: type[EarlyFusionSettings],
    network: Callable[[], type[EarlyFusionNetwork]],
    training: ComposedTraining,
    published: Callable[[Path, Any], ComposedNetwork] | None = None,
) -> ComposedSystem:
    """A system that is new on a backbone, or goes on from the towers of a `covr`.

    Args:
        name: On the command line, in profiles and folders.
        title: In words.
        settings: Of the network and its loss.
        network: Imports its class, and torch with it.
        training: The defaults of its training.
        published: A network from a published checkpoint; see `ComposedSystem`.
    """

    def build(spec: EncoderSpec, own: EarlyFusionSettings, seed: int) -> ComposedNetwork:
        return network().on_backbone(spec, own, seed)

    def continued(
        start: EarlyFusionNetwork, own: EarlyFusionSettings, seed: int
    ) -> ComposedNetwork:
        return network().continuing(start, own)

    def rebuild(architecture: Mapping[str, Any], folder: Path) -> ComposedNetwork:
        return network().rebuilt(architecture, folder, settings())

    return ComposedSystem(
        name=name,
        title=title,
        settings=settings,
        build=build,
        starts_from="covr",
        continued=continued,
        rebuild=rebuild,
        published=published,
        require_published=require_worded_weights,
        training=training,
    )
