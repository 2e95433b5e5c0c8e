"""The re-ranker at work: scores of one query's candidates, each image read once.

Tokens of images are kept on the CPU while there is room, since candidates of queries overlap.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from models.devices import autocast_of, pick_device
from models.metering import device_time
from models.reordered import Fetched

if TYPE_CHECKING:
    from PIL import Image

    from models.blip.candidate_rerank import RerankNetwork
    from models.protocols import Dtype, FloatArray

ROOM: Final = 2 * 2**30
"""Bytes of image tokens that are kept."""


class CandidateScorer:
    """Scores candidates by a trained network."""

    def __init__(
        self,
        network: RerankNetwork,
        device: str = "auto",
        dtype: Dtype = "fp32",
        batch_size: int = 64,
        room: int = ROOM,
        threads: int = 0,
    ) -> None:
        """Bring a network to a device.

        Args:
            network: The trained network.
            device: `auto`, or a torch device.
            dtype: Precision of the computation; weights stay in fp32.
            batch_size: Images or candidates in one forward pass.
            room: Bytes of image tokens that are kept between queries.
            threads: Pictures prepared at a time; 0: one a core.
        """
        self._device = pick_device(device)
        self._network = network.to(self._device).eval()
        self._dtype = dtype
        self._batch = batch_size
        self._room = room
        self._threads = threads
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    @device_time()
    def scores(
        self,
        reference: str,
        text: str,
        candidates: Sequence[str],
        picture: Callable[[str], Image.Image],
    ) -> FloatArray:
        """Scores (C,) of candidates, the higher the better; comparable within this query alone.

        Args:
            reference: Name of the reference image.
            text: The modification text.
            candidates: Names of C images, each once.
            picture: Name -> picture; asked for each image that is not kept, in threads.
        """
        found: list[torch.Tensor] = []
        with torch.inference_mode(), autocast_of(self._device, self._dtype):
            texts = self._network.tokenised([text])
            texts = {name: values.to(self._device) for name, values in texts.items()}
            fused = self._network.fused(self._tokens([reference], picture), texts)
            for start in range(0, len(candidates), self._batch):
                images = self._tokens(candidates[start : start + self._batch], picture)
                found.append(self._network.scores(fused, texts, images)[0].float().cpu())
        return torch.cat(found).numpy() if found else np.zeros(0, np.float32)

    def _tokens(self, names: Sequence[str], picture: Callable[[str], Image.Image]) -> torch.Tensor:
        """Tokens (C, M, V) of some images on the device."""
        new = [name for name in names if name not in self._kept]
        batches = self._network.preprocess.batches(
            Fetched(new, picture), self._batch, self._device, self._threads
        )
        done = 0
        with closing(batches):
            for pixels in batches:
                tokens = self._network.image_tokens(pixels).float().cpu()
                rows = [each.clone() for each in tokens]  # a row alone can be given up again
                self._kept.update(zip(new[done : done + len(rows)], rows, strict=True))
                done += len(rows)
        for name in names:
            self._kept.move_to_end(name)
        stacked = torch.stack([self._kept[name] for name in names]).to(self._device)
        most = max(1, self._room // (stacked[0].numel() * 4))
        while len(self._kept) > most:
            self._kept.popitem(last=False)
        return stacked
