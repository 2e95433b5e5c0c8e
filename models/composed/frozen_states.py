"""What frozen towers make of images and texts, computed once for the length of a training.

A network on frozen towers then reads no picture, or no text, in any step. Shape legend: B batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import numpy as np
import torch

from models.composed.network import ComposedNetwork, Frozen
from models.devices import autocast_of
from models.training.settings import Precision
from models.training.triplet_batches import Tokenised
from models.training.triplet_data import TripletData
from models.triplets import readings_of

logger = logging.getLogger(__name__)

_BATCH: Final = 64

_Item = TypeVar("_Item")


class KeptStates:
    """States by image id, in the place of pictures."""

    def __init__(self, states: dict[str, np.ndarray]) -> None:
        """Take states (...) of images, all of one shape."""
        self._states = states

    def get(self, image_ids: Sequence[str]) -> list[np.ndarray]:
        """States of images, in order."""
        return [self._states[name] for name in image_ids]


@torch.no_grad()
def with_frozen_states(
    data: TripletData,
    network: ComposedNetwork,
    device: torch.device,
    *,
    precision: Precision,
    room: int,
) -> TripletData:
    """The same triplets with states in the place of pictures and token ids, where these are frozen.

    Images whose states do not all fit are left as pictures.

    Args:
        data: Triplets with pictures, without random crops: those have other states each time.
        network: On the CPU; it is back there afterwards.
        device: Where to compute.
        precision: Of the training.
        room: Most bytes of images' states.
    """
    frozen, mode = network.frozen(), network.training
    if frozen == Frozen():
        return data
    network.to(device).eval()
    with autocast_of(device, precision):
        states = _image_states(data, frozen, device, room)
        tokenised = _text_states(data, network, frozen, device)
    network.to("cpu").train(mode)
    return data.on(None if states is None else KeptStates(states), tokenised)


def _image_states(
    data: TripletData, frozen: Frozen, device: torch.device, room: int
) -> dict[str, np.ndarray] | None:
    """States by image id; None where the image tower is trained, or they need too much memory."""
    if frozen.images is None:
        return None
    names = sorted({image for t in data.all_triplets for image in (t.reference, t.target)})
    states: dict[str, np.ndarray] = {}
    for some in _parts(names):
        pixels = data.normalised(data.still_images(some)).to(device)
        found = frozen.images(pixels).float().cpu().numpy()
        if (needed := found[0].nbytes * len(names)) > room:
            logger.info(
                "The frozen image tower reads each picture again in every step: the states of "
                "%s images need %s MiB; run.cache_mb allows %s.",
                f"{len(names):,}",
                f"{-(-needed // 2**20):,}",
                f"{room // 2**20:,}",
            )
            return None
        states |= zip(some, found, strict=True)
    return states


def _text_states(
    data: TripletData, network: ComposedNetwork, frozen: Frozen, device: torch.device
) -> Tokenised | None:
    """Looks up what the text tower makes of any reading; None where it is trained."""
    if frozen.texts is None:
        return None
    states: dict[str, dict[str, torch.Tensor]] = {}
    for some in _parts(
        sorted({text for t in data.all_triplets for text in (t.text, *readings_of(t))})
    ):
        read = {name: ids.to(device) for name, ids in network.tokenised(some).items()}
        found = {name: each.float().cpu() for name, each in frozen.texts(read).items()}
        states |= {
            text: {name: each[row] for name, each in found.items()} for row, text in enumerate(some)
        }

    def looked_up(texts: Sequence[str]) -> dict[str, torch.Tensor]:
        names = states[texts[0]]
        return {name: torch.stack([states[text][name] for text in texts]) for name in names}

    return looked_up


def _parts(everything: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (everything[start : start + _BATCH] for start in range(0, len(everything), _BATCH))
