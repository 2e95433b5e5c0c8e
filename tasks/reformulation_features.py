"""Embeddings of a frozen network for the second stage, each triplet once."""

from __future__ import annotations

import torch

from models.reformulation.combiner_training import FrozenFeatures
from models.reformulation.network import ReformulationNetwork
from tasks.reformulation_data import ReformulationData, TripletRows

_BATCH = 128


@torch.no_grad()
def frozen_features(
    data: ReformulationData,
    rows: TripletRows,
    query: ReformulationNetwork,
    target: ReformulationNetwork,
    with_image: bool,
    device: torch.device,
) -> FrozenFeatures:
    """What the second stage learns from.

    Args:
        data: Where the pictures are.
        rows: Triplets to embed, without random crops.
        query: The branch that embeds queries.
        target: The branch that embeds targets.
        with_image: Whether references without a text are needed, by the queries' branch, which
            is where `ReformulationEncoder` takes them from.
        device: Where to compute.
    """
    query.to(device).eval()
    target.to(device).eval()
    null = target.constant_null_text()
    own_null = query.constant_null_text() if with_image else None
    parts: list[tuple[torch.Tensor, ...]] = []
    for batch in data.still_batches(rows, range(len(rows.triplets)), _BATCH):
        references = data.normalised(batch["references"]).to(device)
        output = query.query(references, batch["texts"].to(device))
        found = target.target(data.normalised(batch["targets"]).to(device), null)
        image = query.target(references, own_null) if with_image else found[:0]
        parts.append((output.z.cpu(), output.text.cpu(), found.cpu(), image.cpu()))
    z, text, targets, image = (torch.cat(column).float() for column in zip(*parts, strict=True))
    query.cpu()
    target.cpu()
    ids = torch.tensor([rows.numbers[t.target] for t in rows.triplets])
    return FrozenFeatures(z, text, image if with_image else None, targets, ids)
