"""Systems that let a text generator edit captions of the reference image (CIReVL, LDRE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from models.retrieval.caption_features import caption_features, caption_means
from models.retrieval.features import Feature, FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.ldre import ldre_queries
from models.retrieval.method_records import Features, Method, everywhere


@query_feature("edited_captions", "Mean of f_t over the edits: q_m.", "captions", "edits")
def edited_captions(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    # A query without edits still needs a row of the right width; its vector is not used.
    texts = [query.edits or ("",) for query in queries]
    reasons = ["" if query.edits else "no edited caption" for query in queries]
    return caption_means(maker.encoder, texts, maker.cvsi.stored_mean), reasons


@query_feature(
    "edited_caption", "f_t(edit of the single caption).", "single_caption", "single_edit"
)
def edited_caption(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return edited_captions.make(maker, queries)


def _each(maker: FeatureMaker, texts: Sequence[Sequence[str]]) -> Made:
    """One unit vector per caption, side by side: (B, N * d)."""
    n = maker.cvsi.captions_per_image
    flat = [text for own in texts for text in [*own, *[""] * n][:n]]
    reasons = ["" if len(own) == n else f"{len(own)} captions instead of {n}" for own in texts]
    return caption_features(maker.encoder, flat).reshape(len(texts), -1), reasons


@query_feature("each_edited_caption", "f_t of every edit.", "captions", "edits", per_caption=True)
def each_edited_caption(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return _each(maker, [query.edits for query in queries])


@query_feature(
    "each_caption", "f_t of every caption of the reference.", "captions", per_caption=True
)
def each_caption(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return _each(maker, [query.captions for query in queries])


def _ldre(query: Features, gallery: Features) -> np.ndarray[Any, Any]:
    return ldre_queries(query["each_edited_caption"], query["each_caption"], gallery["image"])


FEATURES: Final[tuple[Feature, ...]] = (
    edited_caption,
    edited_captions,
    each_edited_caption,
    each_caption,
)

METHODS: Final = (
    Method(
        name="cirevl",
        title="CIReVL",
        group="text generator",
        paper="CIReVL: Vision-by-Language for Training-Free CIR, ICLR 2024",
        description="One caption of the reference, edited once by the text generator.",
        make=everywhere({"edited_caption": 1.0}),
    ),
    Method(
        name="ldre",
        title="LDRE",
        group="text generator",
        paper="LDRE: LLM-based Divergent Reasoning and Ensemble for Zero-Shot CIR, SIGIR 2024",
        description="All edited captions, each weighed by how far it leads from its original.",
        make=everywhere({"each_edited_caption": 1.0, "each_caption": 1.0}, _ldre),
    ),
)
