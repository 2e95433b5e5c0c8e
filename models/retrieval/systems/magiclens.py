"""MagicLens: picture and text as two tokens of a small transformer."""

from __future__ import annotations

from typing import Final

from models.retrieval.features import Feature
from models.retrieval.method_records import Method
from models.retrieval.systems.composed import composed_features, composed_method

_QUERY, _IMAGE = composed_features("magiclens", "MagicLens")
FEATURES: Final[tuple[Feature, ...]] = (_QUERY,)
GALLERY: Final[tuple[Feature, ...]] = (_IMAGE,)

METHODS: Final[tuple[Method, ...]] = (
    composed_method(
        "magiclens",
        "MagicLens",
        "MagicLens, ICML 2024",
        "A small transformer reads the vectors of image and text; gallery images pass through it "
        "with an empty text.",
    ),
)
