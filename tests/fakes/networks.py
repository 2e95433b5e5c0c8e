"""Reformulation networks that were never trained, saved as a trained one would be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.profiles import tiny
from models.instructcir.settings import CombinerSettings

ZERO_SHOT: Mapping[str, Any] = {"zero_shot": True, "triplets": {"rewriter": {"model": "llama"}}}


def write_network(
    folder: Path, provenance: Mapping[str, Any] = ZERO_SHOT, *, combiner: bool = True
) -> Path:
    """A network on the shipped CLIP whose moving average differs from its trained weights."""
    import torch

    from models.instructcir.checkpoint import save_network
    from models.instructcir.combiner import new_combiner
    from models.instructcir.network import build_network

    online, target = (build_network(tiny().query_encoder, seed=seed) for seed in (1, 2))
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.97)
    made = new_combiner(online.dim, CombinerSettings(start=0.5)) if combiner else None
    save_network(folder, online=online, target=target, combiner=made, provenance=provenance)
    return folder
