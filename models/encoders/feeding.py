"""Pictures through a model: prepared ahead of it, and its results brought back once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL import Image

    from models.encoders.preprocess import ImagePreprocess
    from models.protocols import FloatArray


def encoded(
    images: Sequence[Image.Image],
    encode: Callable[[torch.Tensor, int], torch.Tensor],
    *,
    preprocess: ImagePreprocess,
    batch: int,
    device: torch.device,
    threads: int = 0,
) -> FloatArray:
    """Vectors (B, d) float32 of pictures.

    The device is waited for once, at the end: batches are sent while it works on earlier ones.

    Args:
        images: B pictures, at least one, decoded on access or before.
        encode: Pixels (b, 3, H, W) on the device and the place of their first picture -> (b, d).
        preprocess: From pictures to pixels.
        batch: Pictures in one forward pass.
        device: Where the model lies.
        threads: Pictures prepared at a time; 0: one a core.
    """
    batches = preprocess.batches(images, batch, device, threads)
    with torch.inference_mode(), closing(batches):
        rows = [encode(pixels, at * batch).float() for at, pixels in enumerate(batches)]
        return torch.cat(rows).cpu().numpy()
