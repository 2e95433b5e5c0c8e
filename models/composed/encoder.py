"""A composed query encoder at work: pictures and texts in, float32 arrays out, not normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.devices import autocast_of, pick_device
from models.encoders.feeding import encoded
from models.metering import device_time
from models.reordered import Reordered
from models.spelling import agreed

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
    def encode_gallery(self, images: Sequence[Image.Image], threads: int = 0) -> FloatArray:
        """Gallery vectors (B, d); `threads` pictures are prepared at a time, 0: one a core."""
        return self._encoded(images, lambda pixels, start: self._network.target(pixels), threads)

    @device_time()
    def encode_queries(
        self, images: Sequence[Image.Image], texts: Sequence[str], threads: int = 0
    ) -> FloatArray:
        """Query vectors (B, d) of reference images under texts.

        Texts are sorted by length inside, so that little padding is computed, and the results are
        in the order given.

        Args:
            images: B pictures; a sequence that decodes on access is indexed once per query.
            texts: B modification texts.
            threads: Pictures prepared at a time; 0: one a core.

        Raises:
            ValueError: The arguments are of different lengths.
        """
        if len(images) != len(texts):
            pictures = f"{len(images)} {agreed(len(images), 'image')}"
            said = f"{len(texts)} {agreed(len(texts), 'text')}"
            raise ValueError(f"{pictures} and {said} do not pair up")
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))

        def query(pixels: torch.Tensor, start: int) -> torch.Tensor:
            rows = order[start : start + len(pixels)]
            read = self._network.tokenised([texts[i] for i in rows])
            moved = {name: values.to(self._device) for name, values in read.items()}
            return self._network.query(pixels, moved)

        out = np.zeros((len(texts), self._network.dim), dtype=np.float32)
        out[order] = self._encoded(Reordered(images, order), query, threads)
        return out

    def _encoded(
        self,
        images: Sequence[Image.Image],
        encode: Callable[[torch.Tensor, int], torch.Tensor],
        threads: int,
    ) -> FloatArray:
        if not len(images):
            return np.zeros((0, self._network.dim), dtype=np.float32)
        with autocast_of(self._device, self._dtype):
            return encoded(
                images,
                encode,
                preprocess=self._network.preprocess,
                batch=self._batch,
                device=self._device,
                threads=threads,
            )
