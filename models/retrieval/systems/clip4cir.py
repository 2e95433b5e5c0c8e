"""CLIP4CIR: fine-tuned CLIP vectors, combined by an MLP; and their plain sum, its first stage."""

from __future__ import annotations

from typing import Final

from models.retrieval.features import Feature
from models.retrieval.method_records import Method
from models.retrieval.systems.composed import composed_features, composed_method

_TITLES: Final = {"clip4cir": "CLIP4CIR", "clip4cir-sum": "CLIP4CIR stage one"}
_PAIRS: Final = tuple(composed_features(name, title) for name, title in _TITLES.items())
FEATURES: Final[tuple[Feature, ...]] = tuple(query for query, _ in _PAIRS)
GALLERY: Final[tuple[Feature, ...]] = tuple(image for _, image in _PAIRS)

METHODS: Final[tuple[Method, ...]] = (
    composed_method(
        "clip4cir",
        _TITLES["clip4cir"],
        "CLIP4CIR, CVPRW 2022",
        "Fine-tuned CLIP vectors of image and text, combined by an MLP and a gate.",
    ),
    composed_method(
        "clip4cir-sum",
        _TITLES["clip4cir-sum"],
        "CLIP4CIR, CVPRW 2022",
        "The sum of image and text by the same fine-tuned towers, without the combiner.",
        ablates="clip4cir",
    ),
)
