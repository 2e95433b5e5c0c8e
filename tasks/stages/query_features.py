"""Query features by name (`models.retrieval.methods.QUERY_FEATURES`), one table for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa

from models.compodiff.settings import CompoDiffSettings
from models.encoders.spec import EncoderSpec
from models.generators.rewriting import RewriteInput
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.features import FeatureMaker, QueryInputs
from models.retrieval.methods import QUERY_FEATURES
from storage.tables.schemas import OK
from storage.tables.table import Table
from tasks.compodiff import compodiff_identity, sampler
from tasks.engines import (
    encoder_dim,
    encoder_fingerprint,
    load_encoder,
    load_mapping,
    mapping_fingerprint,
)
from tasks.query_sets import QueryItem
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.stages.earlier import earlier_tables
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.over_queries import QueryStage
from tasks.stages.palavra_tokens import PalavraTokenStage
from tasks.stages.pseudo_tokens import ImportedTokenStage, OtiTokenStage, stored_tokens
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage, Tick

if TYPE_CHECKING:
    from models.protocols import FloatArray


AnyTokens = OtiTokenStage | ImportedTokenStage | PalavraTokenStage
"""The stages that make pseudo tokens."""


class QueryFeatureStage(QueryStage):
    """One named feature of a benchmark's queries. Upstream stages it does not need are None."""

    producer: ClassVar[str] = "cirflow/query_features/1"

    feature: str
    encoder: EncoderSpec
    images: ImageFeatureStage
    """Features of the reference images."""
    cvsi: CvsiSettings
    """Text forms and means (D3, D6, D7, D15)."""
    mapping: str = ""
    """Checkpoint of the mapping network, if one is needed."""
    tokens: OtiTokenStage | ImportedTokenStage | PalavraTokenStage | None = None
    compodiff: CompoDiffSettings | None = None
    """CompoDiff's denoiser, if one is needed."""
    captions: CaptionStage | None = None
    edits: RewriteStage | None = None
    objects: RewriteStage | None = None

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.feature} of {self.queries.collection_name} queries"

    def identity(self) -> dict[str, Any]:
        """Feature, encoder, text forms and the specs of its inputs."""
        width = self.cvsi.captions_per_image if QUERY_FEATURES[self.feature].per_caption else 1
        return {
            "feature": self.feature,
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "mapping": dict(mapping_fingerprint(self.mapping)) if self.mapping else {},
            "upstream": {name: stage.spec_key for name, stage in self.inputs.items()},
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
            **self._compodiff_identity(),
        }

    def _compodiff_identity(self) -> dict[str, Any]:
        """Only where there is a denoiser: the keys of other features know nothing of it."""
        if self.compodiff is None:
            return {}
        return {"compodiff": compodiff_identity(self.compodiff, self.encoder)}

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members; the row of a query that lacks an upstream answer says so."""
        items = dict(zip(members, self.items_of(members), strict=True))
        made: dict[str, tuple[Any, str]] = {
            key: (vector, "") for key, vector in self._made_before(items).items()
        }
        rest = [member for member in members if member not in made]
        if rest:
            vectors, reasons = self.make([items[member] for member in rest], Tables())
            made |= dict(zip(rest, zip(vectors, reasons, strict=True), strict=True))
        tick(len(members))
        return self.table().rows(
            query_key=list(members),
            vector=[None if made[key][1] else made[key][0] for key in members],
            status=["missing_input" if made[key][1] else OK for key in members],
            reason=[made[key][1] for key in members],
        )

    def _made_before(self, items: Mapping[str, QueryItem]) -> dict[str, Any]:
        """Vectors that an earlier version made from the same texts, read by an earlier reader."""
        found: dict[str, Any] = {}
        if not any(isinstance(stage, RewriteStage) for stage in self.inputs.values()):
            return found
        if self.cvsi.no_objects == "drop" and self.objects and self.objects.parsing == "verbatim":
            return found  # its forms have changed where nothing is added
        now = self.texts(list(items.values()), Tables())
        for table in earlier_tables(self, checked=("upstream",)):
            replies = self._replies_behind(table)
            if replies is None:
                continue
            before = self.texts(list(items.values()), Tables(replies))
            same = [
                key
                for key, own, earlier in zip(items, now, before, strict=True)
                if key not in found and _written(own) == _written(earlier)
            ]
            rows = table.read(["vector", "status"], same)
            found |= {key: v for key, v, status in rows.iter_rows() if status == OK}
        return found

    def _replies_behind(self, table: Table) -> dict[str, Table] | None:
        """Tables of replies that a table was made from, by the present stage's key.

        None where it was made from something else that is another table now.
        """
        behind: dict[str, Table] = {}
        if table.spec["upstream"].keys() != self.inputs.keys():
            return None
        for name, spec_key in table.spec["upstream"].items():
            stage = self.inputs[name]
            if spec_key == stage.spec_key:
                continue
            earlier = earlier_tables(stage) if isinstance(stage, RewriteStage) else []
            found = next((each for each in earlier if each.spec_key == spec_key), None)
            if found is None:
                return None
            behind[stage.spec_key] = found
        return behind

    def make(self, items: Sequence[QueryItem], upstream: Upstream) -> tuple[FloatArray, list[str]]:
        """Vectors of B queries (B, d), and for each why it must not be used (empty: it may be)."""
        mapping = load_mapping(self.mapping) if self.mapping else None
        compodiff = sampler(self.compodiff, self.encoder) if self.compodiff else None
        maker = FeatureMaker(load_encoder(self.encoder), self.cvsi, mapping, compodiff)
        images = upstream.images(self.images, [item.image_id for item in items])
        known = self.texts(items, upstream)
        queries = [replace(k, image=i) for k, i in zip(known, images, strict=True)]
        if self.tokens is not None:
            tokens = upstream.tokens(self.tokens, [item.image_id for item in items], images)
            queries = [
                replace(query, token=tokens[item.image_id]) if item.image_id in tokens else query
                for query, item in zip(queries, items, strict=True)
            ]
        return QUERY_FEATURES[self.feature].make(maker, queries)

    def shaped(self, vectors: FloatArray) -> FloatArray:
        """Stored vectors (B, d), or (B, N, d) for a feature of every caption."""
        if not QUERY_FEATURES[self.feature].per_caption:
            return vectors
        return vectors.reshape(len(vectors), self.cvsi.captions_per_image, -1)

    def texts(self, items: Sequence[QueryItem], upstream: Upstream) -> list[QueryInputs]:
        """The texts behind some queries, without their image features."""
        own = _captions(self.captions, items, upstream)
        edits = answers_of(self.edits, items, upstream)
        objects = answers_of(self.objects, items, upstream)
        return [
            QueryInputs(
                texts=item.texts,
                captions=own[item.key],
                edits=edits[item.key],
                objects=next(iter(objects[item.key]), None),
            )
            for item in items
        ]

    def shown_texts(self, items: Sequence[QueryItem], upstream: Upstream) -> list[QueryInputs]:
        """The texts behind some queries for people to read: captions even if only rewritten."""
        known = self.texts(items, upstream)
        rewrites = self.edits or self.objects
        if self.captions or rewrites is None:
            return known
        captions = _captions(rewrites.captions, items, upstream)
        return [
            replace(each, captions=captions[item.key])
            for each, item in zip(known, items, strict=True)
        ]


def token_networks(stages: Sequence[Stage]) -> list[str]:
    """Folders and files of the networks that make the pseudo tokens of some stages, each once."""
    found = [s.mapping for s in stages if isinstance(s, QueryFeatureStage)]
    found += [s.network for s in stages if isinstance(s, PalavraTokenStage)]
    return sorted({each for each in found if each})


class Upstream(Protocol):
    """The source of queries' image features, captions and answers."""

    def images(self, stage: ImageFeatureStage, image_ids: Sequence[str]) -> FloatArray:
        """Un-normalised image features (B, d)."""

    def tokens(
        self, stage: AnyTokens, image_ids: Sequence[str], images: FloatArray
    ) -> Mapping[str, FloatArray]:
        """Pseudo tokens (dt,) by image, of those images that have one; their features at hand."""

    def captions(self, stage: CaptionStage, keys: Sequence[str]) -> Mapping[str, list[str]]:
        """Captions by the stage's key of a query, of those that have some."""

    def answers(self, stage: RewriteStage, requests: Sequence[RewriteInput]) -> Mapping[str, str]:
        """Answers by request key, of those requests that were answered."""


class Tables:
    """Upstream tables; the captions of some images are read once.

    Args:
        replies: Tables of replies to read in place of a stage's own, by the stage's key.
    """

    def __init__(self, replies: Mapping[str, Table] | None = None) -> None:
        self._replies = replies or {}
        self._captions: dict[tuple[str, ...], dict[str, list[str]]] = {}

    def images(self, stage: ImageFeatureStage, image_ids: Sequence[str]) -> FloatArray:
        """Un-normalised image features (B, d)."""
        return stage.table().vectors(image_ids)

    def tokens(
        self, stage: AnyTokens, image_ids: Sequence[str], images: FloatArray
    ) -> Mapping[str, FloatArray]:
        """Pseudo tokens (dt,) by image, of those images that have one."""
        return stored_tokens(stage.table(), image_ids)

    def captions(self, stage: CaptionStage, keys: Sequence[str]) -> Mapping[str, list[str]]:
        """Captions by the stage's key of a query, of those that have some."""
        asked = (stage.spec_key, *keys)
        if asked not in self._captions:
            self._captions[asked] = captions_of(stage, keys)
        return self._captions[asked]

    def answers(self, stage: RewriteStage, requests: Sequence[RewriteInput]) -> Mapping[str, str]:
        """Answers by request key, of those requests that were answered."""
        table = self._replies.get(stage.spec_key) or stage.table()
        rows = table.read(["answer", "status"], [request.key for request in requests])
        return {key: answer for key, answer, status in rows.iter_rows() if status == OK}


def _written(inputs: QueryInputs) -> tuple[Any, ...]:
    """The texts of a query, which its features are made from."""
    return inputs.texts, inputs.captions, inputs.edits, inputs.objects


def _captions(
    stage: CaptionStage | None, items: Sequence[QueryItem], upstream: Upstream
) -> dict[str, tuple[str, ...]]:
    """Query key -> captions of its reference, none where there are none."""
    if stage is None:
        return {item.key: () for item in items}
    found = upstream.captions(stage, [stage.key_of(item) for item in items])
    return {item.key: tuple(found.get(stage.key_of(item), ())) for item in items}


def answers_of(
    stage: RewriteStage | None, items: Sequence[QueryItem], upstream: Upstream
) -> dict[str, tuple[str, ...]]:
    """Query key -> answers to its requests in their order, without those that failed."""
    if stage is None:
        return {item.key: () for item in items}
    captions = _captions(stage.captions, items, upstream)
    asked = {item.key: stage.requests_of(item, captions[item.key]) for item in items}
    answers = upstream.answers(stage, [request for own in asked.values() for request in own])
    return {
        key: tuple(answers[request.key] for request in own if request.key in answers)
        for key, own in asked.items()
    }
