"""Candidate re-ranking's networks that were never trained, saved as trained ones would be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.profiles import tiny
from tests.fakes.networks import ZERO_SHOT

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec


def write_rerankers(
    folder: Path,
    provenance: Mapping[str, Any] = ZERO_SHOT,
    seed: int = 1,
    backbone: EncoderSpec | None = None,
) -> tuple[Path, Path]:
    """Folders of a filter and of a re-ranker on the shipped CLIP, both with random weights.

    Args:
        folder: Of both.
        provenance: How they came to be.
        seed: Of the filter; another seed gives another filter.
        backbone: The CLIP, where it is another one.
    """
    import torch

    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork
    from models.blip.settings import EarlyFusionSettings
    from models.composed.candidate_rerank import RerankSettings
    from models.composed.checkpoint import save_composed
    from tasks.engines import encoder_fingerprint

    backbone = backbone or tiny().query_encoder
    settings = EarlyFusionSettings(text_layers=2)
    stage_one = FilterNetwork.on_backbone(backbone, settings, seed)
    network = RerankNetwork.on_filter(stage_one, RerankSettings(), 2)
    torch.manual_seed(3)
    for parameter in network.cross.parameters():
        parameter.data.normal_(std=0.2)
    places = folder / "filter", folder / "rerank"
    base = dict(encoder_fingerprint(backbone))
    made = (
        ("candidate-filter", stage_one, settings),
        ("candidate-rerank", network, RerankSettings()),
    )
    for place, (name, each, own) in zip(places, made, strict=True):
        save_composed(place, name, each, own, base=base, provenance=provenance)
    return places
