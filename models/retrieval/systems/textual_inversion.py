"""Textual inversion: a pseudo token stands for the reference image (LinCIR, SEARLE, Pic2Word)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.retrieval.features import Feature, FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.method_records import Method, everywhere
from models.retrieval.query_texts import pic2word_text, pseudo_text


@query_feature("pseudo", "f_t('a photo of $ that {text}'), $ by LinCIR.", "mapping:lincir")
def pseudo(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    forms = [[pseudo_text(text) for text in query.texts] for query in queries]
    return maker.encode_spliced(queries, forms), [""] * len(queries)


@query_feature("pseudo_searle", "The same with $ by SEARLE.", "mapping:searle")
def pseudo_searle(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return pseudo.make(maker, queries)


@query_feature(
    "pseudo_pic2word", "f_t('a photo of $ , {text}'), $ by Pic2Word.", "mapping:pic2word"
)
def pseudo_pic2word(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    # Pic2Word joins FashionIQ's captions second first: the last reading.
    forms = [[pic2word_text(query.texts[-1])] for query in queries]
    return maker.encode_spliced(queries, forms), [""] * len(queries)


@query_feature("pseudo_oti", "The same with $ optimised for the image.", "tokens:oti")
def pseudo_oti(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    reasons = ["" if len(q.token) else "the reference image has no token" for q in queries]
    if all(reasons):
        return np.zeros((len(queries), maker.encoder.dim), np.float32), reasons
    return pseudo.make(maker, queries)[0], reasons


@query_feature("pseudo_palavra", "The same with $ by a set encoder.", "tokens:palavra")
def pseudo_palavra(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    return pseudo_oti.make(maker, queries)


FEATURES: Final[tuple[Feature, ...]] = (
    pseudo,
    pseudo_searle,
    pseudo_oti,
    pseudo_palavra,
    pseudo_pic2word,
)

_OWN: Final = "no checkpoint ships with the project; name one of yours (mapping.{}=FILE)"

METHODS: Final = (
    Method(
        name="lincir",
        title="LinCIR",
        group="textual inversion",
        paper="LinCIR: Language-only Training of Zero-shot CIR, CVPR 2024",
        description="'a photo of $ that {modification}', $ mapped from the reference image.",
        make=everywhere({"pseudo": 1.0}),
        preprocess="clip",
    ),
    Method(
        name="searle",
        title="SEARLE",
        group="textual inversion",
        paper="SEARLE: Zero-Shot CIR with Textual Inversion, ICCV 2023",
        description="As LinCIR, with SEARLE's mapping network.",
        make=everywhere({"pseudo_searle": 1.0}),
        status="needs_checkpoint",
        reason=_OWN.format("searle"),
    ),
    Method(
        name="searle-oti",
        title="SEARLE-OTI",
        group="textual inversion",
        paper="SEARLE: Zero-Shot CIR with Textual Inversion, ICCV 2023",
        description="As SEARLE, with a token optimised for each reference image.",
        make=everywhere({"pseudo_oti": 1.0}),
        status="needs_checkpoint",
        reason="no vocabulary of concepts is named; set inversion.concepts=FILE, or bring tokens "
        "(cirflow import features FOLDER) and set inversion.tokens=KEY",
    ),
    Method(
        name="palavra",
        title="PALAVRA-style",
        group="textual inversion",
        paper="PALAVRA: 'This is my unicorn, Fluffy', ECCV 2022, in this field by SEARLE",
        description="As SEARLE, with a set encoder's token, refined for each reference image.",
        make=everywhere({"pseudo_palavra": 1.0}),
        status="needs_checkpoint",
        reason="no checkpoint is published; train one (cirflow run train-mapping --set "
        "system=palavra) and set mapping.palavra=FOLDER",
    ),
    Method(
        name="pic2word",
        title="Pic2Word",
        group="textual inversion",
        paper="Pic2Word: Mapping Pictures to Words for Zero-shot CIR, CVPR 2023",
        description="'a photo of $ , {modification}' with Pic2Word's mapping network.",
        make=everywhere({"pseudo_pic2word": 1.0}),
        preprocess="clip",
        status="needs_checkpoint",
        reason=_OWN.format("pic2word"),
    ),
)
