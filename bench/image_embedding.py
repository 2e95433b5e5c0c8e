"""Image embedding, preprocessing included, against the bare forward pass on ready tensors.

python -m bench.image_embedding
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import torch
from PIL import Image

from bench.interleaved import best_of_interleaved
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec

IMAGES: Final = 64
SIZE: Final = (500, 375)
BATCH: Final = 16
DEMANDED_RATIO: Final = 0.85
LARGEST_DIFFERENCE: Final = 1e-5


def make_images(count: int, seed: int = 0) -> list[Image.Image]:
    """Decoded pictures of the size of a web photograph, smooth enough to be resized like one."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [Image.fromarray(each).resize(SIZE, Image.Resampling.BICUBIC) for each in small]


def main() -> None:
    """Measure, print one line and one JSON line, and fail where the bound is missed."""
    spec = EncoderSpec(name="ViT-B-32", pretrained="random:0", device="cpu", image_batch=BATCH)
    encoder = load_encoder(spec)
    images = make_images(IMAGES)
    tensors = list(encoder.preprocess.batches(images, BATCH))

    def bare() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([encoder.model.encode_image(batch) for batch in tensors]).numpy()

    bare()
    timing = best_of_interleaved(bare, lambda: encoder.encode_images(images))
    ratio = timing.ratio
    difference = float(np.abs(timing.expected - timing.got).max())
    passed = ratio >= DEMANDED_RATIO and difference <= LARGEST_DIFFERENCE
    print(
        f"image embedding: {ratio:.2f} of the bare forward pass (demanded {DEMANDED_RATIO}), "
        f"{IMAGES / timing.seconds:.1f} images/s: {'ok' if passed else 'MISSED'}"
    )
    print(
        json.dumps(
            {
                "bench": "image_embedding",
                "ratio": ratio,
                "demanded": DEMANDED_RATIO,
                "difference": difference,
                "baseline_seconds": timing.baseline_seconds,
                "seconds": timing.seconds,
                "images": IMAGES,
                "passed": passed,
            }
        )
    )
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
