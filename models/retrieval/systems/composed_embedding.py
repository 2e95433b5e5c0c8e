"""Embedding models that read image and text together, alone and together with CVSI."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from models.embedders.protocol import NO_EMBEDDER
from models.retrieval.cvsi_settings import PAPER_WEIGHTS
from models.retrieval.features import Feature
from models.retrieval.method_records import Method, everywhere, late_fusion
from models.retrieval.systems.composed import composed_features, composed_method
from models.retrieval.systems.cvsi import CVSI_METHOD

EMBEDDER: Final = "embedder"
"""The need for an embedding model."""

EMBEDDING: Final = "composed-embedding"
"""The method of an embedding model alone."""

TUNED: Final = "tuned-embedding"
_TUNED_TITLE: Final = "Tuned embedding model"
_TUNED_QUERY, _TUNED_IMAGE = composed_features(TUNED, _TUNED_TITLE)

FEATURES: Final[tuple[Feature, ...]] = (
    Feature(
        "composed_embedding",
        "An embedding model's vector of reference image and text under an instruction.",
        (EMBEDDER,),
    ),
    _TUNED_QUERY,
)
GALLERY: Final = (
    Feature("embedded_image", "The same model's vector of the image alone.", (EMBEDDER,)),
    _TUNED_IMAGE,
)

EMBEDDING_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(dict.fromkeys(PAPER_WEIGHTS, 0.5))
"""Weight of the embedding model in CVSI + embedding: equal shares, as no paper has this fusion."""

_EMBEDDING: Final = Method(
    name=EMBEDDING,
    title="Composed embedding",
    group="trained",
    paper="Qwen3-VL-Embedding, GME, VLM2Vec, MegaPairs (BGE-VL)",
    description="One vector of image and text by an embedding model.",
    make=everywhere({"composed_embedding": 1.0}, gallery="embedded_image"),
    status="needs_checkpoint",
    reason=NO_EMBEDDER,
    weighed_by="embedding_weights",
)

METHODS: Final = (
    _EMBEDDING,
    Method(
        name="cvsi-composed-embedding",
        title="CVSI + composed embedding",
        group="complementary",
        paper="this project",
        description="The weighted sum of both methods' similarities.",
        make=late_fusion(CVSI_METHOD, _EMBEDDING, EMBEDDING_WEIGHTS),
        status="needs_checkpoint",
        reason=NO_EMBEDDER,
        blends=("cvsi", EMBEDDING),
    ),
    composed_method(
        TUNED,
        _TUNED_TITLE,
        "Qwen3-VL-Embedding, GME",
        "One vector of image and text by an embedding model that was tuned on triplets here.",
    ),
)
