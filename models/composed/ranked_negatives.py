"""Negatives from a network's own ranking of the training images, computed once for a training.

Query and gallery vectors of the network are frozen, so that the ranking holds for all steps.
Shape legend: B batch, G images, d width of vectors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import torch
from torch.nn import functional

from models.composed.network import ComposedNetwork, RankedNegatives
from models.devices import autocast_of
from models.spelling import agreed
from models.training.settings import Precision
from models.training.triplet_batches import Negatives
from models.training.triplet_data import TripletData
from models.triplets import Triplet

_BATCH: Final = 256


@torch.no_grad()
def with_negatives(
    data: TripletData, network: ComposedNetwork, device: torch.device, *, precision: Precision
) -> TripletData:
    """The same triplets, each with images of the ranking of its query.

    Args:
        data: Training triplets, whose images are ranked.
        network: On the CPU; it is back there afterwards.
        device: Where to compute.
        precision: Of the training.

    Raises:
        ValueError: There are too few images.
    """
    wanted = network.negatives
    if wanted is None:
        return data
    mode = network.training
    network.to(device).eval()
    triplets = data.training.triplets
    names = sorted({image for t in triplets for image in (t.reference, t.target)})
    right = right_images(triplets)

    def read(images: Sequence[str]) -> torch.Tensor:
        found = data.still_images(images)
        return (found if found.is_floating_point() else data.normalised(found)).to(device)

    with autocast_of(device, precision):
        vectors = [
            functional.normalize(network.target(read(names[start : start + _BATCH])).float(), dim=1)
            for start in range(0, len(names), _BATCH)
        ]
        gallery = torch.cat(vectors)
        lists: list[list[str]] = []
        for start in range(0, len(triplets), _BATCH):
            some = triplets[start : start + _BATCH]
            texts = data.training.tokenised([t.text for t in some])
            texts = {name: values.to(device) for name, values in texts.items()}
            queries = network.query(read([t.reference for t in some]), texts).float()
            lists += ranked(queries @ gallery.T, some, names, right, wanted)
    network.to("cpu").train(mode)
    return data.on(negatives=Negatives(lists, wanted.count))


def right_images(triplets: Sequence[Triplet]) -> dict[tuple[str, str], set[str]]:
    """Reference and text of a query -> every target that a triplet gives to it."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for triplet in triplets:
        found[triplet.reference, triplet.text].add(triplet.target)
    return found


def ranked(
    similarity: torch.Tensor,
    triplets: Sequence[Triplet],
    names: Sequence[str],
    right: dict[tuple[str, str], set[str]],
    wanted: RankedNegatives,
) -> list[list[str]]:
    """The first images of each query that are not right for it, the best first.

    Args:
        similarity: (B, G) of queries and images.
        triplets: B triplets.
        names: G image ids.
        right: See `right_images`.
        wanted: How many.

    Raises:
        ValueError: There are too few.
    """
    places = {name: place for place, name in enumerate(names)}
    for row, triplet in enumerate(triplets):
        own = right[triplet.reference, triplet.text]
        similarity[row, [places[image] for image in sorted(own)]] = -torch.inf
    best = similarity.topk(min(wanted.among, len(names)))
    lists = [
        [names[place] for place, each in zip(row, values, strict=True) if each > -torch.inf]
        for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    if (fewest := min(map(len, lists))) < wanted.count:
        raise ValueError(
            f"network.negatives is {wanted.count}, and a query has {fewest} "
            f"{agreed(fewest, 'wrong image')} among its first {wanted.among} of {len(names):,}; "
            "lower it, raise network.among, or bring more triplets"
        )
    return lists
