"""A composed query encoder at work: pictures and texts in, float32 arrays out, not normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.devices import autocast_of, pick_device
from models.metering import device_time
from models.reordered import Reordered

if TYPE_CHECKING:
    from PIL import Image

    from models.composed.network import ComposedNetwork
    from models.protocols import Dtype, FloatArray


class ComposedEncoder:
    """Encodes queries and galleries by a network on a device."""

    def __init__(
        self, network: ComposedNetwork, device: str = "auto", dtype: Dtype = "fp32", batch: int = 64
    ) -> None:
        """Bring a loaded network to a device.

        Args:
            network: The network, in evaluation mode.
            device: `auto`, or a torch device.
            dtype: Precision of the computation; weights stay in fp32.
            batch: Images in one forward pass.
        """
        self._device = pick_device(device)
        self._network = network.to(self._device)
        self._dtype = dtype
        self._batch = batch

    @device_time()
    def encode_gallery(self, images: Sequence[Image.Image]) -> FloatArray:
        """Gallery vectors (B, d)."""
        out = np.zeros((len(images), self._network.dim), dtype=np.float32)
        done = 0
        with torch.inference_mode(), autocast_of(self._device, self._dtype):
            for pixels in self._network.preprocess.batches(images, self._batch):
                encoded = self._network.target(pixels.to(self._device))
                out[done : done + len(pixels)] = encoded.float().cpu().numpy()
                done += len(pixels)
        return out

    @device_time()
    def encode_queries(self, images: Sequence[Image.Image], texts: Sequence[str]) -> FloatArray:
        """Query vectors (B, d) of reference images under texts.

        Texts are sorted by length inside, so that little padding is computed, and the results are
        in the order given.

        Args:
            images: B pictures; a sequence that decodes on access is indexed once per query.
            texts: B modification texts.

        Raises:
            ValueError: The arguments are of different lengths.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts do not pair up")
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        out = np.zeros((len(texts), self._network.dim), dtype=np.float32)
        done = 0
        with torch.inference_mode(), autocast_of(self._device, self._dtype):
            for pixels in self._network.preprocess.batches(Reordered(images, order), self._batch):
                rows = order[done : done + len(pixels)]
                done += len(pixels)
                read = self._network.tokenised([texts[i] for i in rows])
                moved = {name: values.to(self._device) for name, values in read.items()}
                encoded = self._network.query(pixels.to(self._device), moved)
                out[rows] = encoded.float().cpu().numpy()
        return out
