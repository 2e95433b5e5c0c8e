"""Query features by name (`models.retrieval.features.QUERY_FEATURES`), one table for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from models.encoders.spec import EncoderSpec
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.features import QUERY_FEATURES
from models.retrieval.query_features import FeatureMaker, QueryInputs
from storage.tables.schemas import OK
from tasks.engines import (
    encoder_dim,
    encoder_fingerprint,
    load_encoder,
    load_mapping,
    mapping_fingerprint,
)
from tasks.query_sets import BenchmarkRef, QueryItem, load_query_set
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.rewrites import RewriteStage, answers_of
from tasks.stages.stage import Stage, Tick


class QueryFeatureStage(Stage):
    """One named feature of a benchmark's queries. Upstream stages it does not need are None."""

    table_name: ClassVar[str] = "query_features"
    producer: ClassVar[str] = "cirflow/query_features/1"

    feature: str
    benchmark: BenchmarkRef
    encoder: EncoderSpec
    images: ImageFeatureStage = Field(description="Features of the reference images.")
    cvsi: CvsiSettings = Field(description="Text forms and means (D3, D6, D7, D15).")
    mapping: str = Field("", description="Checkpoint of the mapping network, if one is needed.")
    captions: CaptionStage | None = None
    edits: RewriteStage | None = None
    objects: RewriteStage | None = None

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.feature} of {self.benchmark.collection_name} queries"

    def identity(self) -> dict[str, Any]:
        """Feature, encoder, text forms and the specs of what it is made from."""
        upstream = {
            name: stage.spec_key
            for name in ("images", "captions", "edits", "objects")
            if (stage := getattr(self, name)) is not None
        }
        width = self.cvsi.captions_per_image if QUERY_FEATURES[self.feature].per_caption else 1
        return {
            "feature": self.feature,
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "mapping": dict(mapping_fingerprint(self.mapping)) if self.mapping else {},
            "upstream": upstream,
            "contents": {
                "edits": self.edits.content if self.edits else "",
                "objects": self.objects.content if self.objects else "",
                "all_orders": self.edits.all_orders if self.edits else False,
            },
            "forms": {
                "final_stop": self.cvsi.final_stop,
                "no_objects": self.cvsi.no_objects,
                "fashion_captions": self.cvsi.fashion_captions,
                "mean": self.cvsi.stored_mean,
            },
            "dim": encoder_dim(self.encoder) * width,
            "dtype": "float32",
        }

    def planned(self) -> list[str]:
        """Content keys of the queries."""
        return sorted({i.key for i in load_query_set(self.root, self.benchmark).items.values()})

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members; a query that lacks an upstream answer is a row that says so."""
        by_key = {i.key: i for i in load_query_set(self.root, self.benchmark).items.values()}
        maker = FeatureMaker(
            load_encoder(self.encoder),
            self.cvsi,
            load_mapping(self.mapping) if self.mapping else None,
        )
        inputs = self.inputs([by_key[member] for member in members])
        vectors, reasons = maker.make(self.feature, inputs)
        tick(len(members))
        return self.table().rows(
            query_key=list(members),
            vector=vectors,
            status=["missing_input" if reason else OK for reason in reasons],
            reason=reasons,
        )

    def inputs(self, items: Sequence[QueryItem]) -> list[QueryInputs]:
        """What the upstream tables know of some queries."""
        images = self.images.table().vectors([item.image_id for item in items])
        texts = self._texts(items)
        return [replace(known, image=image) for known, image in zip(texts, images, strict=True)]

    def texts_of(self, item: QueryItem) -> QueryInputs:
        """The texts behind one query, for people to read; its captions even if only rewritten."""
        known = self._texts([item])[0]
        rewrites = self.edits or self.objects
        if known.captions or rewrites is None:
            return known
        captions = captions_of(rewrites.captions, [item.image_id])
        return replace(known, captions=tuple(captions.get(item.image_id, ())))

    def _texts(self, items: Sequence[QueryItem]) -> list[QueryInputs]:
        ids = [item.image_id for item in items]
        own = captions_of(self.captions, ids) if self.captions else {}
        edits = _Answers(self.edits, ids)
        objects = _Answers(self.objects, ids)
        return [
            QueryInputs(
                texts=item.texts,
                image=_NO_IMAGE,
                captions=tuple(own.get(item.image_id, ())),
                edits=edits.of(item),
                objects=next(iter(objects.of(item)), None),
            )
            for item in items
        ]


_NO_IMAGE = np.zeros(0, np.float32)


class _Answers:
    """Answers of a rewrite stage, looked up query by query."""

    def __init__(self, stage: RewriteStage | None, image_ids: Sequence[str]) -> None:
        self._stage = stage
        self._answers = answers_of(stage) if stage else {}
        self._captions = captions_of(stage.captions, image_ids) if stage else {}

    def of(self, item: QueryItem) -> tuple[str, ...]:
        """Answers to a query's requests in their order, without those that failed."""
        if self._stage is None:
            return ()
        requests = self._stage.requests_of(item, self._captions.get(item.image_id, []))
        keys = [request.key for request in requests]
        return tuple(self._answers[key] for key in keys if key in self._answers)
