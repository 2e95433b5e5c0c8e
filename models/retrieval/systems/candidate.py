"""Candidate re-ranking: a filter, and a cross-encoder that reads its best images again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from models.retrieval.systems.composed import NO_FOLDER, composed_features, composed_method

_FILTER: Final = "candidate-filter"
_PAPER: Final = "Candidate Set Re-ranking, TMLR 2024"

_QUERY, _IMAGE = composed_features(_FILTER, "Candidate re-ranking's filter")
FEATURES: Final = (_QUERY,)
GALLERY: Final = (_IMAGE,)

_STAGE_ONE: Final = composed_method(
    _FILTER,
    "Candidate re-ranking (filter)",
    _PAPER,
    "First stage: BLIP's text encoder reads the text over the reference image.",
)

METHODS: Final = (
    _STAGE_ONE,
    replace(
        _STAGE_ONE,
        name="candidate-rerank",
        title="Candidate re-ranking",
        description="Second stage: a cross-encoder reads query and candidate.",
        reason=NO_FOLDER.format(name="candidate-rerank"),
        reranks=_FILTER,
    ),
)
