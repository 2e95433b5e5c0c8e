"""Embeddings of a frozen network for the second stage, each triplet and each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from models.instructcir.combiner_training import FrozenFeatures
from models.instructcir.network import ReformulationNetwork
from models.instructcir.training_settings import Precision
from tasks.training.data import ReformulationData, TripletRows

_BATCH = 128

_Row = TypeVar("_Row")

Tick = Callable[[int], None]
"""Called with the number of rows just embedded."""


@torch.no_grad()
def frozen_features(
    data: ReformulationData,
    rows: TripletRows,
    query: ReformulationNetwork,
    target: ReformulationNetwork,
    with_image: bool,
    device: torch.device,
    *,
    precision: Precision = "fp32",
    tick: Tick = lambda count: None,
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
        precision: Of the training.
        tick: Told of each batch; `rows_to_embed` says how many rows come.
    """
    asked = {target: [t.target for t in rows.triplets]}  # branch -> images without a text
    if with_image:
        asked[query] = asked.get(query, []) + [t.reference for t in rows.triplets]
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    query.to(device).eval()
    target.to(device).eval()
    with half:
        z, text = _queries(data, rows, query, device, tick)
        found = {
            branch: _images(data, names, branch, device, tick) for branch, names in asked.items()
        }
    query.cpu()
    target.cpu()
    count = len(rows.triplets)
    return FrozenFeatures(
        z,
        text,
        found[query][-count:] if with_image else None,
        found[target][:count],
        torch.tensor([rows.numbers[t.target] for t in rows.triplets]),
    )


def rows_to_embed(rows: TripletRows, shared: bool, with_image: bool) -> int:
    """What `frozen_features` embeds: queries and distinct images; `shared`: one branch for both."""
    targets, references = (
        {getattr(t, side) for t in rows.triplets} for side in ("target", "reference")
    )
    images = len(targets | references) if shared else len(targets) + len(references)
    return len(rows.triplets) + (images if with_image else len(targets))


def _queries(
    data: ReformulationData,
    rows: TripletRows,
    network: ReformulationNetwork,
    device: torch.device,
    tick: Tick,
) -> tuple[torch.Tensor, torch.Tensor]:
    """z and the pure text of each triplet, (N, d) fp32 on the CPU."""
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for some in _batches(range(len(rows.triplets))):
        pixels = data.still_images([rows.triplets[row].reference for row in some])
        texts = rows.text_and_targets(some)["texts"].to(device)
        output = network.query(data.normalised(pixels).to(device), texts)
        parts.append((output.z.float().cpu(), output.text.float().cpu()))
        tick(len(some))
    z, text = (torch.cat(column) for column in zip(*parts, strict=True))
    return z, text


def _images(
    data: ReformulationData,
    names: Sequence[str],
    network: ReformulationNetwork,
    device: torch.device,
    tick: Tick,
) -> torch.Tensor:
    """Images with the null text, (len(names), d) fp32 on the CPU; each is embedded once."""
    distinct = {name: number for number, name in enumerate(sorted(set(names)))}
    null = network.constant_null_text()
    parts: list[torch.Tensor] = []
    for some in _batches(list(distinct)):
        pixels = data.normalised(data.still_images(some)).to(device)
        parts.append(network.target(pixels, null).float().cpu())
        tick(len(some))
    return torch.cat(parts)[torch.tensor([distinct[name] for name in names])]


def _batches(everything: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    return (everything[start : start + _BATCH] for start in range(0, len(everything), _BATCH))
