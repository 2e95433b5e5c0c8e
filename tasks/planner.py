"""From a profile and a question to stages: the one place that knows which table needs which.

A question is a benchmark to rank, a collection to caption or embed, or a query of a person. Stages
that are equal are one object, so that their identity is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from models.imported_texts import ImportedCaptions
from models.retrieval.features import COMPOSED
from models.retrieval.method_records import AnyRecipe
from models.retrieval.methods import GALLERY_FEATURES, QUERY_FEATURES, method
from models.retrieval.systems.compodiff import COMPODIFF
from models.retrieval.systems.composed_embedding import EMBEDDER
from models.retrieval.systems.instructpix2pix import EDITED
from models.retrieval.systems.query_weights import WEIGHTS
from storage.benchmarks.registry import excludes_reference
from tasks.choices import CaptionKind
from tasks.imported_texts import captions_of_an_image
from tasks.methods import configured_method, late_weights, settings_of
from tasks.profile_stages import caption_stage, picture_stage, token_stage
from tasks.query_sets import BenchmarkRef, Queries, TripletQueries
from tasks.settings import Profile, ReformulationSettings
from tasks.stages.caption_features import CaptionFeatureStage, CaptionVectorStage
from tasks.stages.captions import CaptionStage
from tasks.stages.edited_features import EditedQueryStage
from tasks.stages.embedded_features import EmbeddedImageStage, EmbeddedQueryStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.image_sets import ImageSet, Part
from tasks.stages.list_verifications import ListVerificationStage
from tasks.stages.palavra_tokens import PalavraTokenStage
from tasks.stages.query_features import AnyTokens, QueryFeatureStage
from tasks.stages.questioned import QuestionedStage
from tasks.stages.questions import QuestionStage
from tasks.stages.rankings import AnyGalleryFeature, AnyQueryFeature, RankingStage, depth_of
from tasks.stages.reformulation_features import ReformulatedImageStage, ReformulatedQueryStage
from tasks.stages.rerank_scores import RerankScoreStage
from tasks.stages.reranked import RerankedStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage, inputs_of
from tasks.stages.verifications import VerificationStage
from tasks.stages.verified import AnyVerifications, VerifiedStage
from tasks.stages.weighted import WeightedStage
from tasks.training.triplet_sets import TripletSet
from tasks.training.weighed_family import WeighedFamily

StageT = TypeVar("StageT", bound=Stage)


@dataclass(frozen=True)
class EvaluationPlan:
    """The rankings of a benchmark; all other stages follow from their inputs."""

    rankings: tuple[RankingStage, ...]

    @property
    def upstream(self) -> list[Stage]:
        """Stages that the rankings read, inputs first."""
        return inputs_of(self.rankings)


def plan_evaluation(
    profile: Profile, ref: BenchmarkRef, methods: Sequence[str], caption_pool: int = 0
) -> EvaluationPlan:
    """The stages that rank a benchmark's queries by some methods.

    Args:
        profile: Models and settings.
        ref: The benchmark.
        methods: Names of methods.
        caption_pool: If positive, at least so many captions are made of a gallery image, and the
            vector of each is stored, so that any number of them is averaged without encoding.

    Raises:
        ValueError: an unknown method, or one that does not run here (with the reason).
    """
    known: dict[str, Stage] = {}
    pinned = ref.pinned(profile.root)
    builders = (_Builder(profile, n, pinned, pinned, known, caption_pool) for n in methods)
    return EvaluationPlan(tuple(builder.ranking(pinned) for builder in builders))


def gallery_stages(
    profile: Profile, collection: str, method: str = "cvsi"
) -> Mapping[str, AnyGalleryFeature]:
    """The stages that make a collection's features for a method to search, by feature name.

    Raises:
        ValueError: an unknown method, or one that does not run under the profile.
    """
    builder = _Builder(profile, method, collection)
    recipes = [builder.recipe(family) for family in builder.profile.cvsi.weights]
    return builder.gallery_features(dict.fromkeys(n for recipe in recipes for n in recipe.gallery))


def query_stages(
    profile: Profile, queries: Queries, collection: str, method: str, family: str
) -> Mapping[str, AnyQueryFeature]:
    """The stages of the query features that a method weighs for a family, by feature name.

    Raises:
        ValueError: an unknown method or family, or a method that does not run under the profile.
    """
    builder = _Builder(profile, method, collection, queries)
    return builder.query_features(builder.recipe(family), family)


def weighed_family(
    profile: Profile, triplets: TripletSet, method: str, family: str
) -> WeighedFamily:
    """What a gate of a method is trained on for a benchmark family.

    Raises:
        ValueError: a method that does not run under the profile.
    """
    name = f"{method}{WEIGHTS}"
    settings = settings_of(name, profile.cvsi)
    queries = {
        each: TripletQueries(
            root=triplets.root,
            spec_key=triplets.spec_key,
            count=triplets.count,
            collection_name=each,
        )
        for each in triplets.collections
    }
    return WeighedFamily(
        recipe=_Builder(profile, name, triplets.collections[0]).recipe(family),
        excludes_reference=settings.excludes_reference(excludes_reference(family)),
        queries={
            each: query_stages(profile, own, each, name, family) for each, own in queries.items()
        },
        galleries={each: gallery_stages(profile, each, name) for each in queries},
    )


@dataclass
class _Builder:
    """Builds the stages of one method; equal stages are built once.

    Attributes:
        profile: Models and settings; the method may bring CVSI settings of its own.
        method: Its name.
        source: The benchmark whose images are used, or the name of a collection.
        queries: Where queries come from, if there are any.
        known: Every stage built so far.
        caption_pool: See `plan_evaluation`.
    """

    profile: Profile
    method: str
    source: BenchmarkRef | str
    queries: Queries | None = None
    known: dict[str, Stage] = field(default_factory=dict)
    caption_pool: int = 0

    def __post_init__(self) -> None:
        """Take the method's own settings, if it has some."""
        settings = settings_of(self.method, self.profile.cvsi)
        self.profile = self.profile.model_copy(update={"cvsi": settings})

    def recipe(self, family: str) -> AnyRecipe:
        """The features that the method weighs, and their weights."""
        weights = late_weights(self.method, self.profile)
        row = configured_method(self.method, self.profile.cvsi, weights, self.profile.ldre)
        return row.recipe(family)

    def ranking(self, ref: BenchmarkRef) -> RankingStage:
        family = ref.load().family
        recipe = self.recipe(family)
        stage = RankingStage(
            root=self.profile.root,
            shard_size=1_000_000,
            benchmark=ref,
            method=self.method,
            cvsi=self.profile.cvsi.changed(gallery_dtype=self.profile.gallery_encoder.precision),
            weights=late_weights(self.method, self.profile),
            ldre=self.profile.ldre,
            depth=depth_of(ref),
            query_features=self.query_features(recipe, family),
            gallery_features=self.gallery_features(recipe.gallery),
        )
        row = method(self.method)
        if row.verifies:
            return self._verified(stage, row.verifies, ref, family)
        if row.weighs:
            fields = {name: getattr(stage, name) for name in type(stage).model_fields}
            return WeightedStage(**fields, gate=self.profile.gate_of(row.weighs))
        return self._reranked(stage, row.reranks, family) if row.reranks else stage

    def _reranked(self, stage: RankingStage, first: str, family: str) -> RerankedStage:
        """The ranking of a method that reads the best images of another one again."""
        count = self.profile.rerank.candidates_of(family)
        deep = {"method": first, "depth": max(stage.depth, count)}
        scores = RerankScoreStage(
            root=self.profile.root,
            shard_size=self.profile.shards.rerank,
            first=self._keep(stage.model_copy(update=deep)),
            network=self.profile.composed_network(self.method),
            count=count,
            pictures=self.profile.pictures,
        )
        fields = {name: getattr(stage, name) for name in type(stage).model_fields}
        return RerankedStage(**fields, scores=self._keep(scores))

    def _verified(
        self, stage: RankingStage, first: str, ref: BenchmarkRef, family: str
    ) -> VerifiedStage:
        """The ranking of a method whose best images a verifier looks at."""
        chosen = self.profile.verify
        if reason := chosen.why_not:
            raise ValueError(reason)
        own = dataclasses.replace(self, method=first).ranking(ref)
        deep = own.model_copy(update={"depth": max(own.depth, chosen.candidates)})
        verifications = self._verifications(self._keep(deep), ref, family)
        fields = {name: getattr(stage, name) for name in RankingStage.model_fields}
        return VerifiedStage(
            **fields, verifications=self._keep(verifications), fusing=chosen.fusing
        )

    def _verifications(
        self, first: RankingStage, ref: BenchmarkRef, family: str
    ) -> AnyVerifications:
        """What a verifier is asked about the best images of a ranking."""
        chosen = self.profile.verify
        fields: dict[str, Any] = {
            "root": self.profile.root,
            "first": first,
            "verifier": chosen.asked_verifier,
            "count": chosen.candidates,
            "pictures": self.profile.pictures,
        }
        pairs = self.profile.shards.verifications
        if chosen.mode == "listwise":
            size = self.profile.shards.rerank
            return ListVerificationStage(**fields, shard_size=size, settings=chosen.listwise)
        if chosen.mode == "questions":
            asked = QuestionStage(
                root=self.profile.root,
                shard_size=self.profile.shards.rewrites,
                benchmark=ref,
                settings=chosen.questions,
                generator=self.profile.generator if chosen.writes_questions else None,
            )
            return QuestionedStage(**fields, shard_size=pairs, asked=self._keep(asked))
        edits = self._edits(family, True) if chosen.reads_captions else None
        return VerificationStage(**fields, shard_size=pairs, edits=edits)

    def gallery_features(self, names: Mapping[str, object]) -> dict[str, AnyGalleryFeature]:
        return {name: self._gallery_feature(name) for name in names}

    def query_features(self, recipe: AnyRecipe, family: str) -> dict[str, AnyQueryFeature]:
        return {name: self._query_stage(name, family) for name in recipe.query}

    def _query_stage(self, name: str, family: str) -> AnyQueryFeature:
        if name == EDITED:
            return self._edited(name)
        if EMBEDDER in QUERY_FEATURES[name].needs:
            return self._embedded_queries()
        network = self._network(QUERY_FEATURES[name].needs)
        if network is not None:
            return self._reformulated(name, network)
        return self._query_feature(name, family)

    def _images(self, part: Part) -> ImageSet:
        if isinstance(self.source, str):
            return ImageSet(collection=self.source)
        return ImageSet(collection=self.source.collection_name, benchmark=self.source, part=part)

    def _captions(self, part: Part, single: bool = False) -> CaptionStage:
        kind: CaptionKind = "single" if single else "ensemble"
        return self._keep(caption_stage(self.profile, self._images(part), kind))

    def _gallery_feature(self, feature: str) -> AnyGalleryFeature:
        if EMBEDDER in GALLERY_FEATURES[feature].needs:
            return self._embedded_images()
        network = self._network(GALLERY_FEATURES[feature].needs)
        if network is not None:
            return self._keep(
                ReformulatedImageStage(
                    root=self.profile.root,
                    shard_size=self.profile.shards.features,
                    images=self._images("gallery"),
                    network=network,
                    pictures=self.profile.pictures,
                )
            )
        if feature == "image":
            return self._image_features("gallery")
        return self._caption_features()

    def _embedded_images(self) -> EmbeddedImageStage:
        stage = EmbeddedImageStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            images=self._images("gallery"),
            embedder=self.profile.embedder,
            pictures=self.profile.pictures.of_engine(self.profile.embedder),
        )
        return self._keep(stage)

    def _embedded_queries(self) -> EmbeddedQueryStage:
        stage = EmbeddedQueryStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            queries=self._known_queries(),
            embedder=self.profile.embedder,
            pictures=self.profile.pictures.of_engine(self.profile.embedder),
        )
        return self._keep(stage)

    def _caption_features(self) -> CaptionFeatureStage:
        cvsi, encoder = self.profile.cvsi, self.profile.query_encoder
        size = {"root": self.profile.root, "shard_size": self.profile.shards.features}
        made = max(cvsi.captions_of_target, cvsi.captions_per_image, self.caption_pool)
        captioner = self.profile.captioner
        if isinstance(captioner, ImportedCaptions) and made > cvsi.captions_of_target:
            held = captions_of_an_image(self.profile.root, captioner.texts)
            made = max(cvsi.captions_of_target, min(made, held))
        several = {"cvsi": cvsi.changed(captions_per_image=made)}
        images = self._images("gallery")
        captions = self._keep(caption_stage(self.profile.model_copy(update=several), images))
        first = cvsi.captions_of_target if cvsi.captions_of_target < made else 0
        stored = CaptionVectorStage(**size, captions=captions, encoder=encoder)
        stage = CaptionFeatureStage(
            **size,
            captions=captions,
            encoder=encoder,
            mean=cvsi.stored_mean,
            first=first,
            vectors=self._keep(stored) if first or self.caption_pool else None,
        )
        return self._keep(stage)

    def _image_features(self, part: Part) -> ImageFeatureStage:
        gallery = part == "gallery"
        stage = ImageFeatureStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            images=self._images(part),
            encoder=self.profile.gallery_encoder if gallery else self.profile.query_encoder,
            pictures=self.profile.pictures,
        )
        return self._keep(stage)

    def _network(self, needs: Sequence[str]) -> ReformulationSettings | None:
        """The network that makes a feature itself; None where none does."""
        if "reformulation" in needs:
            return self.profile.network
        own = [need.removeprefix(COMPOSED) for need in needs if need.startswith(COMPOSED)]
        return self.profile.composed_network(own[0]) if own else None

    def _reformulated(self, feature: str, network: ReformulationSettings) -> ReformulatedQueryStage:
        stage = ReformulatedQueryStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            feature=feature,
            queries=self._known_queries(),
            network=network,
            pictures=self.profile.pictures,
        )
        return self._keep(stage)

    def _edited(self, feature: str) -> EditedQueryStage:
        stage = EditedQueryStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            feature=feature,
            edited=self._keep(picture_stage(self.profile, self._known_queries())),
            encoder=self.profile.query_encoder,
            pictures=self.profile.pictures,
        )
        return self._keep(stage)

    def _query_feature(self, feature: str, family: str) -> QueryFeatureStage:
        needs = QUERY_FEATURES[feature].needs
        single = "single_caption" in needs
        captioned = single or "captions" in needs
        edits = "edits" in needs or "single_edit" in needs
        stage = QueryFeatureStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            feature=feature,
            queries=self._known_queries(),
            encoder=self.profile.query_encoder,
            images=self._image_features("references"),
            cvsi=self.profile.cvsi.changed(target_captions=0),  # a query has none
            mapping=self._mapping(needs),
            tokens=self._tokens(needs),
            compodiff=self.profile.compodiff if COMPODIFF in needs else None,
            captions=self._captions("references", single) if captioned else None,
            edits=self._edits(family, "single_edit" in needs) if edits else None,
            objects=self._objects() if "objects" in needs else None,
        )
        return self._keep(stage)

    def _mapping(self, needs: Sequence[str]) -> str:
        kinds = [need.partition(":")[2] for need in needs if need.startswith("mapping:")]
        return self.profile.mapping.of(kinds[0]) if kinds else ""

    def _tokens(self, needs: Sequence[str]) -> AnyTokens | None:
        if "tokens:oti" in needs:
            return self._keep(token_stage(self.profile, self._image_features("references")))
        if "tokens:palavra" not in needs:
            return None
        images = self._image_features("references")
        stage = PalavraTokenStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            images=images,
            encoder=images.encoder.changed(dtype="fp32"),
            network=self.profile.mapping.palavra,
            refining=self.profile.inversion.refining,
        )
        return self._keep(stage)

    def _edits(self, family: str, single: bool) -> RewriteStage:
        cvsi = self.profile.cvsi
        return self._rewrites(
            "edit",
            self.profile.prompts.edit_of(family),
            "first" if single else cvsi.edit_mode,
            single,
            cvsi.fashion_captions == "both_orders",
        )

    def _objects(self) -> RewriteStage:
        return self._rewrites(
            "objects", self.profile.prompts.objects, self.profile.cvsi.objects_content
        )

    def _rewrites(
        self,
        step: Literal["edit", "objects"],
        prompt: str,
        content: Literal["per_caption", "joined", "first"],
        single: bool = False,
        all_orders: bool = False,
    ) -> RewriteStage:
        stage = RewriteStage(
            root=self.profile.root,
            shard_size=self.profile.shards.rewrites,
            step=step,
            queries=self._known_queries(),
            captions=self._captions("references", single),
            content=content,
            all_orders=all_orders,
            prompt=prompt,
            generator=self.profile.generator,
            temperature=self.profile.cvsi.temperature,
            parsing=self.profile.cvsi.answer_parsing,
        )
        return self._keep(stage)

    def _known_queries(self) -> Queries:
        assert self.queries is not None  # a gallery alone has no query features
        return self.queries

    def _keep(self, stage: StageT) -> StageT:
        """The stage, or an equal one that was built before."""
        mark = f"{type(stage).__name__} {stage.model_dump_json()}"
        kept = self.known.setdefault(mark, stage)
        assert isinstance(kept, type(stage))
        return kept
