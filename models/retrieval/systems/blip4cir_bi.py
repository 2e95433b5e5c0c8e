"""BLIP4CIR+Bi: late fusion that was trained on reversed queries too."""

from __future__ import annotations

from typing import Final

from models.retrieval.systems.composed import composed_features, composed_method

_NAME: Final = "blip4cir-bi"
_TITLE: Final = "BLIP4CIR+Bi"

_QUERY, _IMAGE = composed_features(_NAME, _TITLE)
FEATURES: Final = (_QUERY,)
GALLERY: Final = (_IMAGE,)

METHODS: Final = (
    composed_method(
        _NAME,
        _TITLE,
        "BLIP4CIR+Bi, WACV 2024",
        "A combiner of image and text vectors, trained with reversed queries too.",
    ),
)
