"""Vectors of frozen towers, made once: a network on top of them then never reads a picture again.

Shape legend: B batch, d width of the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from models.composed.network import ComposedNetwork
from models.training.triplet_data import TripletData
from models.triplets import readings_of

_BATCH = 128

_Item = TypeVar("_Item")


@runtime_checkable
class FrozenTowers(Protocol):
    """A network whose towers are not trained. Where it expects pictures or token ids, it takes
    what these functions make of them too."""

    def image_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) -> (B, d)."""

    def text_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts -> (B, d)."""


class FrozenVectors:
    """Every image and text of some triplets as a vector: stands in for pictures and tokenizer."""

    def __init__(self, images: dict[str, np.ndarray], texts: dict[str, torch.Tensor]) -> None:
        """Take vectors (d,) by image id and by text."""
        self._images = images
        self._texts = texts

    def get(self, image_ids: Sequence[str]) -> list[np.ndarray]:
        """Vectors (d,) of images, in order."""
        return [self._images[name] for name in image_ids]

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: (B, d)."""
        return {"texts": torch.stack([self._texts[text] for text in texts])}


@torch.no_grad()
def on_vectors(data: TripletData, network: ComposedNetwork, device: torch.device) -> TripletData:
    """The same triplets with vectors in the place of pictures and token ids.

    Args:
        data: Triplets with pictures, without random crops: those have other vectors each time.
        network: A `FrozenTowers`, on the CPU; it is back there afterwards.
        device: Where to compute.

    Raises:
        TypeError: The network makes no vectors of its own.
    """
    if not isinstance(network, FrozenTowers):
        raise TypeError(f"{type(network).__name__} has no image_vectors and text_vectors")
    network.to(device)
    rows = [*data.training.triplets, *data.validation.triplets]
    images: dict[str, np.ndarray] = {}
    for names in _parts(sorted({image for t in rows for image in (t.reference, t.target)})):
        pixels = data.normalised(data.still_images(names)).to(device)
        found = network.image_vectors(pixels).float().cpu()
        images |= zip(names, found.numpy(), strict=True)
    texts: dict[str, torch.Tensor] = {}
    for some in _parts(sorted({text for t in rows for text in (t.text, *readings_of(t))})):
        texts |= zip(some, network.text_vectors(some).float().cpu(), strict=True)
    network.to("cpu")
    vectors = FrozenVectors(images, texts)
    return data.on(vectors, vectors.tokenised)


def _parts(everything: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (everything[start : start + _BATCH] for start in range(0, len(everything), _BATCH))
