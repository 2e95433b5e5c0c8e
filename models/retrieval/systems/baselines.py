"""The baselines of the CIR literature, and the features that others share with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.retrieval.features import Feature, FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.method_records import Method, everywhere
from models.retrieval.query_texts import captioning_text


@query_feature("reference_image", "f_v(reference image): q_v of equation 8.")
def reference_image(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return np.stack([query.image for query in queries]), [""] * len(queries)


@query_feature("text", "f_t(modification text).")
def text(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return maker.encoder.encode_texts([q.texts[0] for q in queries]), [""] * len(queries)


@query_feature("captioning", "f_t('a photo of {caption} that {text}').", "single_caption")
def captioning(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    texts = [captioning_text(q.captions[0], q.texts[0]) if q.captions else "" for q in queries]
    reasons = ["" if text else "the reference image has no caption" for text in texts]
    return maker.encoder.encode_texts(texts), reasons


FEATURES: Final[tuple[Feature, ...]] = (reference_image, text, captioning)

METHODS: Final = (
    Method(
        name="image-only",
        title="Image only",
        group="baseline",
        paper="baseline of the CIR literature",
        description="The reference image's own feature.",
        make=everywhere({"reference_image": 1.0}),
    ),
    Method(
        name="text-only",
        title="Text only",
        group="baseline",
        paper="baseline of the CIR literature",
        description="The modification text's feature.",
        make=everywhere({"text": 1.0}),
    ),
    Method(
        name="image-text-sum",
        title="Image + text sum",
        group="baseline",
        paper="baseline of the CIR literature (Pic2Word, CVPR 2023)",
        description="Sum of the unit features of reference image and modification text.",
        make=everywhere({"reference_image": 0.5, "text": 0.5}),
    ),
    Method(
        name="captioning",
        title="Captioning",
        group="baseline",
        paper="baseline of CVSI's Table I",
        description="'a photo of {caption} that {modification}' with one caption.",
        make=everywhere({"captioning": 1.0}),
    ),
)
