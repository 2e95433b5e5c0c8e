"""Stage two: embeddings of the frozen network, and a combiner trained and judged on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import torch

from models.devices import autocast_of, tf32_products
from models.instructcir.combiner import Combiner, new_combiner
from models.instructcir.combiner_training import FrozenFeatures, train_combiner
from models.instructcir.network import ReformulationNetwork
from models.instructcir.settings import CombinerSettings, LossSettings
from models.instructcir.training_settings import ReformulationTraining
from models.training.recall import recall
from models.training.settings import Precision
from models.training.triplet_batches import TripletRows
from models.training.triplet_data import TripletData

_BATCH = 128

_Row = TypeVar("_Row")

Tick = Callable[[int], None]
"""Called with the number of rows just embedded."""


def train_second_stage(
    data: TripletData,
    online: ReformulationNetwork,
    target: ReformulationNetwork,
    *,
    combiner: CombinerSettings,
    loss: LossSettings,
    training: ReformulationTraining,
    device: torch.device,
    shown: Callable[[int, int], None],
) -> tuple[Combiner, dict[str, Any]]:
    """Train a combiner on a frozen network.

    Args:
        data: Training and validation triplets.
        online: The trained network.
        target: Its moving average, or the network again.
        combiner: Kind and start of the combiner.
        loss: The loss that stage one ended with.
        training: Branch of the queries, precision, rate, epochs and seed.
        device: Where to embed.
        shown: Told the rows embedded so far, and all rows to embed.

    Returns:
        The combiner, and numbers by name: the branch, first and last loss, and recall of the
        held-out triplets with the combiner (`combined_*`) and without it (`alone_*`).
    """
    made = new_combiner(online.dim, combiner, training.seed)
    branch = online if training.branch == "online" else target
    parts = [rows for rows in (data.training, data.validation) if rows.triplets]
    total = sum(rows_to_embed(rows, branch is target, made.needs_image) for rows in parts)
    embedded = 0

    def tick(count: int) -> None:
        nonlocal embedded
        embedded += count
        shown(embedded, total)

    def features(rows: TripletRows) -> FrozenFeatures:
        return frozen_features(
            data,
            rows,
            branch,
            target,
            made.needs_image,
            device,
            precision=training.precision,
            tick=tick,
        )

    losses = train_combiner(
        made,
        features(data.training),
        loss,
        learning_rate=training.combiner_learning_rate,
        epochs=training.combiner_epochs,
        batch_size=training.batch_size,
        seed=training.seed,
    )
    found: dict[str, Any] = {
        "branch": training.branch,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
    if data.validation.triplets:
        held_out = features(data.validation)
        with torch.no_grad():
            combined = held_out.combined(made, torch.arange(len(held_out.z)))
        for name, queries in (("alone", held_out.z), ("combined", combined)):
            scores = recall(queries, held_out.targets, held_out.target_ids)
            found |= {f"{name}_{key}": value for key, value in asdict(scores).items()}
    return made, found


@torch.no_grad()
def frozen_features(
    data: TripletData,
    rows: TripletRows,
    query: ReformulationNetwork,
    target: ReformulationNetwork,
    with_image: bool,
    device: torch.device,
    *,
    precision: Precision = "fp32",
    tick: Tick = lambda count: None,
) -> FrozenFeatures:
    """The embeddings that a combiner learns from.

    Args:
        data: The pictures.
        rows: Triplets to embed, without random crops.
        query: The branch that embeds queries.
        target: The branch that embeds targets.
        with_image: Whether references without a text are needed; the queries' branch embeds
            them, as in `ReformulationEncoder`.
        device: Where to compute.
        precision: Of the training.
        tick: Told of each batch; `rows_to_embed` says how many rows come.
    """
    asked = {target: [t.target for t in rows.triplets]}  # branch -> images without a text
    if with_image:
        asked[query] = asked.get(query, []) + [t.reference for t in rows.triplets]
    query.to(device).eval()
    target.to(device).eval()
    with tf32_products(device, precision), autocast_of(device, precision):
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
        rows.target_ids,
    )


def rows_to_embed(rows: TripletRows, shared: bool, with_image: bool) -> int:
    """Queries and distinct images of `frozen_features`; `shared`: one branch embeds both sides."""
    targets, references = (
        {getattr(t, side) for t in rows.triplets} for side in ("target", "reference")
    )
    images = len(targets | references) if shared else len(targets) + len(references)
    return len(rows.triplets) + (images if with_image else len(targets))


def _queries(
    data: TripletData,
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
    data: TripletData,
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
