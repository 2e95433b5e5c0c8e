"""Rankings: the best images for every query of a benchmark under one method (equation 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import polars as pl
import pyarrow as pa

from models.editors.imported import ImportedPictures
from models.generators.answer_reader import PARSE_VERSION
from models.metering import device_time
from models.protocols import DeviceName
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.ldre import LDRE, LdreSettings
from models.retrieval.method_records import AnyRecipe, Recipe
from models.retrieval.ranked_lists import group_order
from models.retrieval.systems.instructcir import INSTRUCTCIR_WEIGHTS
from storage.benchmarks.indexing import IndexedCategory
from storage.benchmarks.registry import benchmark_facts
from storage.tables.finding import find_table
from storage.tables.key_columns import KeyColumn
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import Table
from tasks.backbone_names import folders_of
from tasks.compodiff import denoiser_facts
from tasks.engines import backbone_name, embedder_facts
from tasks.galleries import features_of
from tasks.imported_pictures import editors_of
from tasks.mapping_facts import token_network_not_zero_shot
from tasks.methods import configured_method
from tasks.networks import INSTRUCTCIR, network_facts, texts_seen_by
from tasks.query_sets import BenchmarkRef, QueryItem, QuerySet, load_query_set, protocol_of
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.captions import CaptionStage
from tasks.stages.concepts import ConceptPhraseStage
from tasks.stages.edited_features import EditedQueryStage
from tasks.stages.edited_pictures import EditedPictureStage
from tasks.stages.embedded_features import EmbeddedImageStage, EmbeddedQueryStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.query_features import QueryFeatureStage, token_networks
from tasks.stages.reformulation_features import ReformulatedImageStage, ReformulatedQueryStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage, Tick, inputs_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from models.encoders.spec import EncoderSpec
    from models.retrieval.gallery import Gallery, Rows

AnyQueryFeature: TypeAlias = (
    QueryFeatureStage | ReformulatedQueryStage | EditedQueryStage | EmbeddedQueryStage
)
AnyGalleryFeature: TypeAlias = (
    ImageFeatureStage | CaptionFeatureStage | ReformulatedImageStage | EmbeddedImageStage
)

ON_TOP = " + "
"""Follows the name of a backbone on which a network was trained; the kind of network comes next."""
DEPTH = 50
"""Images kept for each query: as many as the servers of CIRR and CIRCO ask for."""


class RankingStage(Stage):
    """The top images of every query of a benchmark under one method."""

    table_name: ClassVar[str] = "rankings"
    producer: ClassVar[str] = "cirflow/rankings/1"

    benchmark: BenchmarkRef
    method: str
    cvsi: CvsiSettings
    weights: Mapping[str, float] = INSTRUCTCIR_WEIGHTS
    """Family -> weight of the second method in a late fusion."""
    ldre: LdreSettings = LDRE
    """How LDRE weighs captions."""
    query_features: Mapping[str, AnyQueryFeature]
    gallery_features: Mapping[str, AnyGalleryFeature]
    device: DeviceName = "cpu"
    """Device that multiplies features."""
    depth: int = DEPTH
    """Images kept for each query."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"{self.method} on {self.benchmark.title}"

    @property
    def recipe(self) -> AnyRecipe:
        """How the method ranks on this benchmark's family."""
        family = self.benchmark.load().family
        return configured_method(self.method, self.cvsi, self.weights, self.ldre).recipe(family)

    @property
    def excludes_reference(self) -> bool:
        """Whether a query's reference is taken out of its ranking (D11)."""
        return self.cvsi.excludes_reference(self.benchmark.load().exclude_reference)

    def identity(self) -> dict[str, Any]:
        """Recipe, features, queries and galleries by content."""
        recipe = self.recipe
        query_set = load_query_set(self.root, self.benchmark)
        return {
            "method": self.method,
            **self._identity_of(recipe),
            **self._label(),
            **self.benchmark.texts.identity,
            "exclude_reference": self.excludes_reference,
            "queries": content_key(_query_list(query_set)),
            "galleries": content_key(_gallery_list(query_set)),
            "depth": self.depth,
            **self._gaps(recipe, query_set),
        }

    def _gaps(self, recipe: AnyRecipe, query_set: QuerySet) -> dict[str, Any]:
        """The images that cannot be found, if there are some: other images, another ranking."""
        features = [self.gallery_features[name] for name in recipe.gallery]
        lacking = without_row(features, query_set.gallery_ids())
        said = {"images": len(lacking), "key": content_key(lacking)}
        return {"without": said} if lacking else {}

    def second_stage(self) -> tuple[dict[str, Any], list[str]]:
        """What a protocol says of the stages that order the best images again, empty without one;
        and why numbers are not zero-shot after them."""
        return {}, []

    def failures(self) -> dict[str, Any]:
        """What a protocol says of rows behind the ranking that a second stage had to do without."""
        return {}

    def _label(self) -> dict[str, Any]:
        """The label of scores that are not zero-shot, which tells them apart; else empty."""
        said = {key: value for key, value in _trained_protocol(self).items() if "zero_shot" in key}
        return {} if said["zero_shot"] else said

    def _identity_of(self, recipe: AnyRecipe) -> dict[str, Any]:
        if not isinstance(recipe, Recipe):
            return {"parts": [[weight, self._identity_of(part)] for weight, part in recipe.parts]}
        other = recipe.combined_by.fingerprint if recipe.combined_by else {}
        return {
            **({"combined_by": other} if other else {}),
            "query": {
                name: [weight, self.query_features[name].spec_key]
                for name, weight in recipe.query.items()
            },
            "gallery": {
                name: [weight, self.gallery_features[name].spec_key]
                for name, weight in recipe.gallery.items()
            },
            "norms": dict(recipe.norms),
            "similarity": recipe.similarity,
        }

    def planned(self) -> list[str]:
        """Category and id of every query."""
        return sorted(query_id(*key) for key in _all_queries(self.benchmark))

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Rank the members."""
        query_set = load_query_set(self.root, self.benchmark)
        made: dict[str, dict[str, Any]] = {}
        usable = self.usable()
        for category in query_set.benchmark.galleries:
            ranked = self.rank(query_set, category, usable)
            made |= _category_rows(ranked)
        tick(len(members))
        columns = ("category", "names", "scores", "subset_names", "status", "reason")
        picked = [made[member] for member in members]
        return self.table().rows(
            query_id=list(members), **{c: [row[c] for row in picked] for c in columns}
        )

    def without_features(self) -> dict[str, int]:
        """Category -> gallery images that lack a feature: part of the gallery, and never found."""
        query_set = load_query_set(self.root, self.benchmark)
        usable = _usable({n: self.gallery_features[n].table() for n in self.recipe.gallery})
        return {
            category: sum(query_set.image_ids.get(name) not in usable for name in names)
            for category, names in query_set.benchmark.galleries.items()
        }

    def usable(self) -> tuple[frozenset[str], frozenset[str]]:
        """Images and queries that have every feature."""
        recipe = self.recipe
        return (
            _usable({n: self.gallery_features[n].table() for n in recipe.gallery}),
            _usable({n: self.query_features[n].table() for n in recipe.query}),
        )

    def features(
        self,
        query_set: QuerySet,
        category: str,
        usable: tuple[frozenset[str], frozenset[str]] | None = None,
    ) -> CategoryFeatures:
        """The features that the method weighs, of queries and images that have every one.

        Args:
            query_set: The benchmark's queries.
            category: One of its galleries.
            usable: What `usable` says, where it was asked before: benchmarks have up to hundreds
                of galleries.
        """
        recipe = self.recipe
        gallery_tables = {n: self.gallery_features[n].table() for n in recipe.gallery}
        images, asked = usable or self.usable()
        view = query_set.view(category, images)
        items = [query_set.item_of(query) for query in view.queries]
        rows = [i for i, item in enumerate(items) if item is not None and item.key in asked]
        if not rows:
            lacking = query_set.not_asked() or ["its features failed; see their tables"]
            raise ValueError(
                f"no query of {self.benchmark.name} {self.benchmark.split} {category} can be "
                f"answered, such as: {lacking[0]}"
            )
        keys = [item.key for i in rows if (item := items[i]) is not None]
        ids = [query_set.image_ids[name] for name in view.gallery]
        return CategoryFeatures(
            category=category,
            view=view,
            rows=rows,
            queries={n: self._query_vectors(n, keys) for n in recipe.query},
            gallery={name: features_of(table, ids) for name, table in gallery_tables.items()},
            excluded=view.references[rows] if self.excludes_reference else None,
            most=self.depth,
        )

    def rank(
        self,
        query_set: QuerySet,
        category: str,
        usable: tuple[frozenset[str], frozenset[str]] | None = None,
    ) -> RankedCategory:
        """Rank all queries of one category that have every feature."""
        from models.retrieval.search import top_k

        made = self.features(query_set, category, usable)
        with device_time():
            vectors, images = self.vectors(made)
            top = top_k(
                vectors, images.blocks(), made.depth, excluded=made.excluded, device=self.device
            )
        return RankedCategory(made, top.indices, top.scores, vectors, images)

    def vectors(self, made: CategoryFeatures) -> tuple[npt.NDArray[np.float32], Gallery]:
        """Query vectors (R, d), and the gallery that they are multiplied with."""
        from models.retrieval.gallery import Gallery

        images = Gallery(made.gallery, self.recipe.gallery_vectors)
        return self.recipe.query_vectors(made.queries, made.gallery).astype("float32"), images

    def _query_vectors(self, name: str, keys: Sequence[str]) -> npt.NDArray[Any]:
        stage = self.query_features[name]
        vectors = stage.table().vectors(keys)
        return stage.shaped(vectors) if isinstance(stage, QueryFeatureStage) else vectors


@dataclass(frozen=True)
class CategoryFeatures:
    """The features of one category.

    Attributes:
        category: the gallery's name.
        view: its queries, and the images that have every feature.
        rows: places in the view of the queries that have every feature, R of them.
        queries: feature -> (R, d), or (R, N, d) for features of every caption.
        gallery: feature -> (G, d), mapped.
        excluded: (R,) gallery index of each reference, where it is taken out.
        most: images to rank for every query.
    """

    category: str
    view: IndexedCategory
    rows: Sequence[int]
    queries: Mapping[str, npt.NDArray[Any]]
    gallery: Mapping[str, Rows]
    excluded: npt.NDArray[np.int64] | None
    most: int = DEPTH

    @property
    def depth(self) -> int:
        """How many images are ranked for every query: as many as there are, if fewer than most."""
        return min(self.most, len(self.view.gallery) - (self.excluded is not None))


@dataclass(frozen=True)
class RankedCategory:
    """A ranked category: its features, top lists (R, depth), and the vectors searched with."""

    made: CategoryFeatures
    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]
    images: Gallery


def depth_of(ref: BenchmarkRef) -> int:
    """Images ranked for each query: all of the largest gallery where `map` asks for them."""
    if not benchmark_facts(ref.name).metrics.whole_precision:
        return DEPTH
    return max([DEPTH, *map(len, ref.load().galleries.values())])


def query_id(category: str, own_id: str) -> str:
    """A query's key in the rankings table."""
    return f"{category}/{own_id}" if category else own_id


def query_items(query_set: QuerySet) -> dict[str, QueryItem]:
    """The queries of a benchmark by content, by their keys in the rankings table."""
    return {query_id(*key): item for key, item in query_set.items.items()}


def _all_queries(ref: BenchmarkRef) -> list[tuple[str, str]]:
    return [(query.category, query.query_id) for query in ref.load().queries]


def _query_list(query_set: QuerySet) -> list[list[str]]:
    return [[query_id(*key), item.key] for key, item in sorted(query_set.items.items())]


def _gallery_list(query_set: QuerySet) -> dict[str, list[str]]:
    return {
        category: [f"{name} {query_set.image_ids.get(name, '')}" for name in names]
        for category, names in query_set.benchmark.galleries.items()
    }


def _usable(tables: Mapping[str, Table]) -> frozenset[str]:
    """Keys that have a usable row in every table."""
    good = [
        set(table.read(["status"]).filter(pl.col("status") == OK)[table.schema.key])
        for table in tables.values()
    ]
    return frozenset(set.intersection(*good)) if good else frozenset()


def _category_rows(ranked: RankedCategory) -> dict[str, dict[str, Any]]:
    """Table rows of a category by query id; a query without features says so."""
    view, category = ranked.made.view, ranked.made.category
    made: dict[str, dict[str, Any]] = {
        query_id(category, query.query_id): {
            "category": category,
            "names": None,
            "scores": None,
            "subset_names": None,
            "status": "missing_input",
            "reason": "a feature of the query is missing; see the query_features tables",
        }
        for query in view.queries
    }
    for place, row in enumerate(ranked.made.rows):
        group = group_order(view.subsets[row], ranked.images, ranked.vectors[place])
        made[query_id(category, view.queries[row].query_id)] |= {
            "names": [view.gallery[i] for i in ranked.indices[place]],
            "scores": ranked.scores[place].tolist(),
            "subset_names": [view.gallery[i] for i in group],
            "status": OK,
            "reason": "",
        }
    return made


def ranking_protocol(stage: RankingStage) -> dict[str, Any]:
    """The choices that numbers made from this ranking depend on."""
    query_set = load_query_set(stage.root, stage.benchmark)
    folders = folders_of(*_encoders(stage))
    return {
        **protocol_of(stage.benchmark, query_set),
        "exclude_reference": stage.excludes_reference,
        **stage.recipe.as_json(),
        "cvsi": stage.cvsi.model_dump(),
        **_inputs_protocol(stage),
        **_trained_protocol(stage),
        **stage.failures(),
        **({"answer_reader": PARSE_VERSION} if _reads_answers(stage) else {}),
        **({"backbone_folders": folders} if folders else {}),
    }


def _reads_answers(stage: RankingStage) -> bool:
    """Whether a ranking depends on a language model's answers and how they are read."""
    features = stage.query_features.values()
    return any(isinstance(f, QueryFeatureStage) and (f.edits or f.objects) for f in features)


def _inputs_protocol(stage: RankingStage) -> dict[str, Any]:
    """How files became pictures, how these were captioned, and how long an answer may be."""
    inputs = inputs_of([stage])
    seen = (ImageFeatureStage, CaptionStage, ReformulatedImageStage, EmbeddedImageStage)
    said: dict[str, Any] = {
        "pictures": next(s.pictures.said for s in inputs if isinstance(s, seen))
    }
    if captions := [s.sampling.fingerprint for s in inputs if isinstance(s, CaptionStage)]:
        said["captions"] = [each for i, each in enumerate(captions) if each not in captions[:i]]
    if answers := [s.generator.max_new_tokens for s in inputs if isinstance(s, RewriteStage)]:
        said["answer_tokens"] = max(answers)
    for each in inputs:
        if isinstance(each, EditedPictureStage) and isinstance(each.editor, ImportedPictures):
            said["edited_elsewhere_by"] = editors_of(each.root, each.editor.pictures)
    return said


def _trained_protocol(stage: RankingStage) -> dict[str, Any]:
    """The part of trained networks: how they are used, and whether their numbers are zero-shot."""
    said, (again, seen) = _encoder_protocol(stage), stage.second_stage()
    said |= again
    reasons = [said.get("zero_shot_reason", ""), *_behind_the_texts(stage), *seen]
    reasons = list(dict.fromkeys(filter(None, reasons)))
    if reasons or again:
        said |= {"zero_shot": not reasons, "zero_shot_reason": "; ".join(reasons)}
    return said


def _behind_the_texts(stage: RankingStage) -> list[str]:
    """What the makers of texts and of pseudo tokens saw of a benchmark's annotations."""
    inputs = inputs_of([stage])
    writers = [s for s in inputs if isinstance(s, RewriteStage | ConceptPhraseStage)]
    return [
        *(texts_seen_by(writer.spec["generator"]) for writer in writers),
        *(texts_seen_by(s.spec["embedder"]) for s in inputs if isinstance(s, EmbeddedQueryStage)),
        *(token_network_not_zero_shot(network) for network in token_networks(inputs)),
    ]


def _encoder_protocol(stage: RankingStage) -> dict[str, Any]:
    """The part of the network that encodes queries."""
    for feature in stage.query_features.values():
        if isinstance(feature, ReformulatedQueryStage):
            facts = network_facts(feature.network.checkpoint)
            return {
                "zero_shot": facts.zero_shot,
                "zero_shot_reason": facts.zero_shot_reason,
                facts.system: {
                    "checkpoint": facts.name,
                    "branch": feature.form.branch,
                    "combiner": facts.combiner if feature.form.combined else "",
                    "preprocess": dict(facts.preprocess),
                    "dtype": feature.network.dtype,
                },
            }
        if isinstance(feature, QueryFeatureStage) and feature.compodiff:
            reason = denoiser_facts(feature.compodiff.checkpoint).not_zero_shot
            return {
                "zero_shot": not reason,
                "zero_shot_reason": reason,
                "compodiff": feature.compodiff.sampling.model_dump(),
            }
    return {"zero_shot": True}


def _encoders(stage: RankingStage) -> list[EncoderSpec]:
    features = stage.query_features.values()
    own = (ReformulatedQueryStage, EmbeddedQueryStage)
    return [f.encoder for f in features if not isinstance(f, own)]


def on_top_of(system: str) -> str:
    """What a backbone's name gains where a network of a system was trained on it."""
    return f"{ON_TOP}{'reformulation' if system == INSTRUCTCIR else system}"


def backbone_of(stage: RankingStage) -> str:
    """The backbones behind a ranking by content, marked where a network was trained on one."""
    names = []
    for feature in stage.query_features.values():
        if isinstance(feature, ReformulatedQueryStage):
            facts = network_facts(feature.network.checkpoint)
            names.append(f"{facts.backbone}{on_top_of(facts.system)}")
        elif isinstance(feature, EmbeddedQueryStage):
            names.append(str(embedder_facts(feature.embedder)[0]["model"]))
        else:
            names.append(backbone_name(feature.encoder))
    # The name of a network includes the backbone below it, which is not named twice.
    shown = [
        name
        for name in dict.fromkeys(names)
        if not any(other.startswith(f"{name}{ON_TOP}") for other in names)
    ]
    return " & ".join(shown)


def without_row(stages: Iterable[Stage], keys: Sequence[str]) -> list[str]:
    """Keys that failed in one of some tables, sorted; of a table that is not whole yet none."""
    asked, failed = KeyColumn.of(keys), set[str]()
    for stage in stages:
        table = find_table(stage.location, stage.table_name, stage.spec_key)
        covered = table and table.completeness(stage.planned_keys())
        if table and covered and covered.failed and not covered.missing:
            failed |= set(asked) - set(table.usable(asked))
    return sorted(failed)
