"""Image embedding, preprocessing included, against the bare forward pass on ready tensors.

python -m bench.image_embedding
"""

from __future__ import annotations

import statistics
import sys
from typing import Final

import numpy as np
import torch
from PIL import Image

from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
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


def main() -> Verdict:
    """Measure on one thread, and print the verdict."""
    torch.set_num_threads(1)
    spec = EncoderSpec(name="ViT-B-32", pretrained="random:0", device="cpu", image_batch=BATCH)
    encoder = load_encoder(spec)
    images = make_images(IMAGES)
    tensors = list(encoder.preprocess.batches(images, BATCH))

    def bare() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([encoder.model.encode_image(batch) for batch in tensors]).numpy()

    bare()
    timing = interleaved(bare, lambda: encoder.encode_images(images))
    ratio = statistics.median(timing.ratios)
    difference = float(np.abs(timing.expected - timing.got).max())
    right = difference <= LARGEST_DIFFERENCE
    return report(
        "image_embedding",
        f"image embedding: {ratio:.2f} of the bare forward pass (demanded {DEMANDED_RATIO})",
        judge(timing.ratios, at_least=DEMANDED_RATIO) if right else "MISSED",
        {
            "ratio": ratio,
            "demanded": DEMANDED_RATIO,
            "difference": difference,
            "ratios": timing.ratios,
            "baseline_seconds": statistics.median(timing.baseline_seconds),
            "seconds": statistics.median(timing.seconds),
            "images": IMAGES,
        },
    )


if __name__ == "__main__":
    sys.exit(exit_status([main()]))
