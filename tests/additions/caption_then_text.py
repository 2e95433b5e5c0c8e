"""A baseline of its own: the caption of the reference image, followed by the modification text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from models.retrieval.features import FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.method_records import Method, everywhere


@query_feature("caption_then_text", "f_t('{caption}, {text}').", "single_caption")
def caption_then_text(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    texts = [f"{q.captions[0]}, {q.texts[0]}" if q.captions else "" for q in queries]
    reasons = ["" if text else "the reference image has no caption" for text in texts]
    return maker.encoder.encode_texts(texts), reasons


FEATURES: Final = (caption_then_text,)

METHODS: Final = (
    Method(
        name="caption-then-text",
        title="Caption, then text",
        group="baseline",
        paper="this test",
        description="'{caption}, {modification}' and the reference image.",
        make=everywhere({"caption_then_text": 0.7, "reference_image": 0.3}),
    ),
)
