"""Systems that let a text generator edit captions of the reference image (CIReVL, LDRE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from models.retrieval.caption_features import caption_features, caption_means
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.features import Feature, FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.ldre import LDRE, LdreSettings, ldre_queries
from models.retrieval.method_records import (
    AnyRecipe,
    Features,
    Method,
    Recipe,
    RecipeMaker,
    everywhere,
)


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


def ldre_recipe(weighing: LdreSettings) -> RecipeMaker:
    """LDRE's recipe under some settings of its own, the same for every benchmark family."""

    def combine(query: Features, gallery: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        edited, unedited = query["each_edited_caption"], query["each_caption"]
        return ldre_queries(edited, unedited, gallery["image"], weighing)

    weights = {"each_edited_caption": 1.0, "each_caption": 1.0}
    recipe = Recipe(query=weights, combine=combine, combined_by=weighing)
    return lambda family, settings: recipe


def ldre_code_recipe(family: str, settings: CvsiSettings) -> AnyRecipe:
    """The released code: one set of weights for all queries, and for CIRR the plain mean."""
    if family == "cirr":
        return Recipe(query={"edited_captions": 1.0}, norms={"edited_captions": "as_is"})
    return _ldre_code(family, settings)


_ldre_code = ldre_recipe(LdreSettings(scope="global"))

LDRE_CODE: Final = CvsiSettings(
    caption_mean="raw_mean",
    caption_sampling="lavis-1.0-nucleus",
    preprocess="targetpad",
    temperature=1.0,
    answer_parsing="verbatim",
)
"""The released code of LDRE upstream of its weights: sampled edits, used as the model wrote them,
and for CIRR the mean of features that keep their lengths."""

LDRE_PAPER: Final = "LDRE: LLM-based Divergent Reasoning and Ensemble for Zero-Shot CIR, SIGIR 2024"

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
        paper=LDRE_PAPER,
        description="All edited captions, each weighed by how far it leads from its original.",
        make=ldre_recipe(LDRE),
        configured_by=ldre_recipe,
    ),
    Method(
        name="ldre-code",
        title="LDRE (released code)",
        group="text generator",
        paper=LDRE_PAPER,
        description="LDRE with one set of weights for all queries, and for CIRR their plain mean.",
        make=ldre_code_recipe,
        settings=LDRE_CODE,
    ),
)
