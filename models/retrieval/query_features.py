"""Query features by name, from what is known of each query: the makers behind `features`.

Sources: CVSI (equations 1, 2, 7), LinCIR, SEARLE and Pic2Word (pseudo tokens), CIReVL (one edited
caption), LDRE (every edited caption).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models.protocols import SplicedText
from models.retrieval.caption_features import caption_features, caption_means
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.fusion import unit
from models.retrieval.query_texts import (
    captioning_text,
    fine_grained_text,
    pic2word_text,
    pseudo_text,
)

if TYPE_CHECKING:
    from models.protocols import FloatArray, ImageTextEncoder
    from models.textual_inversion.network import MappingNetwork


@dataclass(frozen=True)
class QueryInputs:
    """What is known of one query. A feature reads some of it; what it lacks makes it fail.

    Attributes:
        texts: All readings of the modification text, the protocol's own first.
        image: f_v of the reference image (d,), not normalised.
        captions: Captions of the reference image.
        edits: Edited captions.
        objects: The objects most likely added; None where nothing was answered.
    """

    texts: tuple[str, ...]
    image: FloatArray
    captions: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    objects: str | None = None


@dataclass(frozen=True)
class FeatureMaker:
    """The engines and choices that query features are made with.

    Attributes:
        encoder: Image-text encoder.
        cvsi: Text forms and means (D3, D6, D7, D15).
        mapping: Mapping network; needed by features with a pseudo token only.
    """

    encoder: ImageTextEncoder
    cvsi: CvsiSettings
    mapping: MappingNetwork | None = None

    def make(self, feature: str, queries: Sequence[QueryInputs]) -> Made:
        """Vectors of one feature.

        Args:
            feature: A name of `models.retrieval.features.QUERY_FEATURES`.
            queries: B queries.

        Returns:
            Vectors (B, d), or (B, N * d) for features of every caption, and B reasons why a
            vector must not be used ("" = it may).
        """
        if not queries:
            return np.zeros((0, self.encoder.dim), np.float32), []
        return _MAKERS[feature](self, queries)

    def encode_spliced(
        self, queries: Sequence[QueryInputs], forms: Sequence[Sequence[SplicedText]]
    ) -> FloatArray:
        """Texts around each query's pseudo token; several forms become the mean of unit vectors."""
        if self.mapping is None:
            raise ValueError("this feature needs a mapping network; set mapping.checkpoint")
        counts = [len(own) for own in forms]
        tokens = self.mapping.tokens(np.stack([query.image for query in queries]))
        flat = [text for own in forms for text in own]
        features = self.encoder.encode_spliced(flat, np.repeat(tokens, counts, axis=0))
        if max(counts) == 1:
            return features
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(unit(features), starts, axis=0)
        return (sums / np.array(counts)[:, None]).astype(np.float32)


Made = tuple["FloatArray", list[str]]


def _reference_image(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return np.stack([query.image for query in queries]), [""] * len(queries)


def _text(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return maker.encoder.encode_texts([q.texts[0] for q in queries]), [""] * len(queries)


def _pseudo(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    forms = [[pseudo_text(text) for text in query.texts] for query in queries]
    return maker.encode_spliced(queries, forms), [""] * len(queries)


def _pseudo_pic2word(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    # Pic2Word joins FashionIQ's captions second first: the last reading.
    forms = [[pic2word_text(query.texts[-1])] for query in queries]
    return maker.encode_spliced(queries, forms), [""] * len(queries)


def _fine_grained(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    cvsi = maker.cvsi
    both = cvsi.fashion_captions == "both_orders"
    forms = [
        [
            fine_grained_text(
                text,
                query.objects or "",
                final_stop=cvsi.final_stop,
                no_objects=cvsi.no_objects,
            )
            for text in (query.texts if both else query.texts[:1])
        ]
        for query in queries
    ]
    missing = "no answer to which objects are added"
    reasons = [missing if query.objects is None else "" for query in queries]
    return maker.encode_spliced(queries, forms), reasons


def _captioning(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    texts = [captioning_text(q.captions[0], q.texts[0]) if q.captions else "" for q in queries]
    reasons = ["" if text else "the reference image has no caption" for text in texts]
    return maker.encoder.encode_texts(texts), reasons


def _edited_captions(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    # A query without edits still needs a row of the right width; its vector is not used.
    texts = [query.edits or ("",) for query in queries]
    reasons = ["" if query.edits else "no edited caption" for query in queries]
    return caption_means(maker.encoder, texts, maker.cvsi.stored_mean), reasons


def _each(maker: FeatureMaker, texts: Sequence[Sequence[str]]) -> Made:
    """One unit vector per caption, side by side: (B, N * d)."""
    n = maker.cvsi.captions_per_image
    flat = [text for own in texts for text in [*own, *[""] * n][:n]]
    reasons = ["" if len(own) == n else f"{len(own)} captions instead of {n}" for own in texts]
    return caption_features(maker.encoder, flat).reshape(len(texts), -1), reasons


def _each_edited_caption(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return _each(maker, [query.edits for query in queries])


def _each_caption(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return _each(maker, [query.captions for query in queries])


_MAKERS: Final[Mapping[str, Callable[[FeatureMaker, Sequence[QueryInputs]], Made]]] = {
    "reference_image": _reference_image,
    "text": _text,
    "captioning": _captioning,
    "edited_caption": _edited_captions,
    "edited_captions": _edited_captions,
    "each_edited_caption": _each_edited_caption,
    "each_caption": _each_caption,
    "pseudo": _pseudo,
    "pseudo_searle": _pseudo,
    "pseudo_pic2word": _pseudo_pic2word,
    "fine_grained": _fine_grained,
}
