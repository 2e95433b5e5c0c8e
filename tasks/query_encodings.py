"""The features of one composed query, made in this process; what is made is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from models.generators.rewriting import RewriteInput
from models.retrieval.features import QueryInputs
from storage.tables.schemas import OK
from tasks.engines import load_captioner, load_encoder
from tasks.kept_searches import Kept
from tasks.networks import encode_queries, picture_side
from tasks.query_sets import OneQuery
from tasks.stages.captions import CaptionStage
from tasks.stages.decoded import OnePicture
from tasks.stages.edited_features import EditedQueryStage
from tasks.stages.embedded_features import EmbeddedQueryStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.query_features import AnyTokens
from tasks.stages.rankings import AnyQueryFeature
from tasks.stages.reformulation_features import ReformulatedQueryStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage

if TYPE_CHECKING:
    from models.protocols import FloatArray

T = TypeVar("T")


class _Upstream:
    """The inputs of one query (`Upstream`), made when they are first needed, each once."""

    def __init__(self, image_id: str, picture: OnePicture, kept: Kept) -> None:
        self._image_id = image_id
        self._picture = picture
        self._kept = kept

    def images(self, stage: ImageFeatureStage, image_ids: Sequence[str]) -> FloatArray:
        """The reference image's feature (1, d)."""

        def make() -> FloatArray:
            encoder = load_encoder(stage.encoder)
            return encoder.encode_images([self._picture.at(encoder.preprocess.side)])

        return self._once(stage, make)

    def tokens(
        self, stage: AnyTokens, image_ids: Sequence[str], images: FloatArray
    ) -> dict[str, FloatArray]:
        """The reference image's pseudo token (dt,), optimised now where it was not imported."""
        ids = list(image_ids)
        return dict(zip(ids, self._once(stage, lambda: stage.tokens_of(ids, images)), strict=True))

    def captions(self, stage: CaptionStage, keys: Sequence[str]) -> dict[str, list[str]]:
        """The reference image's captions.

        Raises:
            ValueError: the image could not be captioned (with the reason).
        """

        def make() -> dict[str, list[str]]:
            captioner = load_captioner(stage.captioner)
            side = stage.captioner.picture_side if stage.pictures.draft else None
            asked = [(self._image_id, self._picture.at(side))]
            reply = next(iter(captioner.caption(asked, stage.sampling)))
            if reply.status != OK:
                raise ValueError(
                    f"the image could not be captioned: {reply.status} ({reply.reason})"
                )
            return {self._image_id: list(reply.captions)}

        return self._once(stage, make)

    def answers(self, stage: RewriteStage, requests: Sequence[RewriteInput]) -> dict[str, str]:
        """The text generator's answers, by request key."""

        def make() -> dict[str, str]:
            distinct = list({each.key: each for each in requests}.values())
            replies = stage.ask(distinct, lambda count: None)
            answers = {key: stage.read(reply) for key, reply in replies.items()}
            good = {key: answer.text for key, answer in answers.items() if answer.status == OK}
            if answers and not good:
                first = next(iter(answers.values()))
                raise ValueError(
                    f"{stage.generator.title} wrote no text for the query: {first.status} "
                    f"({first.reason})"
                )
            return good

        return self._once(stage, make)

    def _once(self, stage: Stage, make: Callable[[], T]) -> T:
        return self._kept.once((self._image_id, *_mark(stage)), make)


def _mark(stage: Stage) -> tuple[str, str]:
    return type(stage).__name__, stage.model_dump_json()


def query_features(
    stages: Mapping[str, AnyQueryFeature], query: OneQuery, picture: OnePicture, kept: Kept
) -> tuple[dict[str, FloatArray], QueryInputs]:
    """Query features (1, d) by name, and the texts behind them; each is made once.

    Raises:
        ValueError: a text that a feature needs could not be made.
    """
    upstream = _Upstream(query.image_id, picture, kept)
    (item,) = query.items("").values()
    made: dict[str, FloatArray] = {}
    texts = QueryInputs(texts=item.texts)
    for name, stage in stages.items():
        make = functools.partial(_feature, name, stage, query, picture, upstream)
        made[name], known = kept.once(("feature", *_mark(stage)), make)
        texts = replace(
            texts,
            captions=texts.captions or known.captions,
            edits=texts.edits or known.edits,
            objects=texts.objects or known.objects,
        )
    return made, texts


def _feature(
    name: str, stage: AnyQueryFeature, query: OneQuery, picture: OnePicture, upstream: _Upstream
) -> tuple[FloatArray, QueryInputs]:
    (item,) = query.items("").values()
    none = QueryInputs(texts=item.texts)
    if isinstance(stage, ReformulatedQueryStage):
        shown = picture.at(picture_side(stage.network))
        return encode_queries(stage.network, stage.form, [shown], [query.text]), none
    if isinstance(stage, EmbeddedQueryStage):
        shown = picture.at(stage.embedder.picture_side)
        return stage.of_picture(shown, query.text), none
    if isinstance(stage, EditedQueryStage):
        return stage.of_picture(picture.at(stage.edited.editor.picture_side)), none
    vectors, reasons = stage.make([item], upstream)
    if reasons[0]:
        raise ValueError(f"the query has no {name}: {reasons[0]}")
    (known,) = stage.shown_texts([item], upstream)
    return stage.shaped(vectors), known
