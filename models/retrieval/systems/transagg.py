"""TransAgg: text and image tokens meet in a transformer."""

from __future__ import annotations

from typing import Final

from models.retrieval.features import Feature
from models.retrieval.method_records import Method
from models.retrieval.systems.composed import composed_features, composed_method

_QUERY, _IMAGE = composed_features("transagg", "TransAgg")
FEATURES: Final[tuple[Feature, ...]] = (_QUERY,)
GALLERY: Final[tuple[Feature, ...]] = (_IMAGE,)

METHODS: Final[tuple[Method, ...]] = (
    composed_method(
        "transagg",
        "TransAgg",
        "TransAgg, BMVC 2023",
        "All tokens of image and text meet in a transformer; free weights add up its reading, "
        "the text and the image.",
    ),
)
