"""Mean caption features against the loop they replace.

The loop encodes image by image: 15 captions padded to CLIP's 77 tokens, one forward pass each.
Ours encodes the captions of all images together, sorted and cropped. Both average unit vectors.
No caption occurs twice, so nothing is gained by encoding distinct strings once.

    python -m bench.caption_encoding
"""

from __future__ import annotations

import statistics
import sys
from typing import Final

import numpy as np
import torch

from bench.command_line import command_line
from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
from models.encoders.loading import load_encoder
from models.encoders.open_clip import OpenClipEncoder
from models.encoders.spec import EncoderSpec
from models.retrieval.caption_features import caption_means
from models.retrieval.fusion import unit

IMAGES: Final = 8
CAPTIONS: Final = 15
MEAN_TOKENS: Final = 12
DEMANDED_RATIO: Final = 5.0
LARGEST_DIFFERENCE: Final = 1e-6

_VOCABULARY: Final = (
    "dog cat man red blue small large table street grass water window plate ball child "
    "kitchen horse train old white black green standing sitting with near on two"
)


def make_captions(images: int, seed: int = 0) -> list[list[str]]:
    """Distinct captions of 8 to 16 tokens, 12 on average, start and end tokens included."""
    random = np.random.default_rng(seed)
    vocabulary = _VOCABULARY.split()
    seen: set[str] = set()
    captions: list[list[str]] = []
    for _ in range(images):
        own: list[str] = []
        while len(own) < CAPTIONS:
            words = random.integers(MEAN_TOKENS - 4, MEAN_TOKENS + 5) - 2
            caption = " ".join(random.choice(vocabulary, size=words))
            if caption not in seen:
                seen.add(caption)
                own.append(caption)
        captions.append(own)
    return captions


def padded_loop(encoder: OpenClipEncoder, captions: list[list[str]]) -> np.ndarray:
    """The baseline: one padded forward pass of the library's own text tower per image."""
    means = []
    with torch.inference_mode():
        for own in captions:
            ids = encoder.tokenize(own)
            features = unit(encoder.model.encode_text(ids))
            means.append(features.mean(dim=0).numpy())
    return np.stack(means)


def main() -> Verdict:
    """Measure on one thread, and print the verdict."""
    torch.set_num_threads(1)
    encoder = load_encoder(EncoderSpec(name="ViT-B-32", pretrained="random:0", device="cpu"))
    captions = make_captions(IMAGES)
    lengths = [len(encoder.tower.tokens.row(text).ids) for own in captions for text in own]
    padded_loop(encoder, captions[:1])
    caption_means(encoder, captions[:1])
    timing = interleaved(
        lambda: padded_loop(encoder, captions), lambda: caption_means(encoder, captions)
    )
    ratio = statistics.median(timing.ratios)
    difference = float(np.abs(timing.expected - timing.got).max())
    right = difference <= LARGEST_DIFFERENCE
    return report(
        "caption_encoding",
        f"caption features: {ratio:.2f}x a padded per-image loop (demanded {DEMANDED_RATIO}x), "
        f"largest difference {difference:.1e} (allowed {LARGEST_DIFFERENCE:.0e}), "
        f"{np.mean(lengths):.1f} tokens a caption",
        judge(timing.ratios, at_least=DEMANDED_RATIO) if right else "MISSED",
        {
            "ratio": ratio,
            "demanded": DEMANDED_RATIO,
            "difference": difference,
            "allowed_difference": LARGEST_DIFFERENCE,
            "ratios": timing.ratios,
            "baseline_seconds": statistics.median(timing.baseline_seconds),
            "seconds": statistics.median(timing.seconds),
            "captions": IMAGES * CAPTIONS,
        },
    )


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    sys.exit(exit_status([main()]))
