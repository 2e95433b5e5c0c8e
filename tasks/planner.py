"""Which stages an evaluation needs: only those that the asked methods read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from models.instructcir.query_forms import GALLERY_FEATURE, QUERY_FORMS
from models.protocols import CaptionSampling
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.features import QUERY_FEATURES
from models.retrieval.methods import METHODS
from tasks.methods import configured_method, settings_of, why_not_ready
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.captions import CaptionStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.rankings import AnyGalleryFeature, AnyQueryFeature, RankingStage
from tasks.stages.reformulation_features import ReformulatedImageStage, ReformulatedQueryStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import ImageSet, Stage

StageT = TypeVar("StageT", bound=Stage)
Part = Literal["all", "references", "gallery"]


@dataclass(frozen=True)
class EvaluationPlan:
    """Stages in an order that respects what reads what, and the rankings at the end."""

    upstream: tuple[Stage, ...]
    rankings: tuple[RankingStage, ...]


def runnable_methods(profile: Profile) -> list[str]:
    """Methods that need nothing but the profile, and whose models can serve them."""
    suited = (name for name in METHODS if name not in profile.unsuited)
    return [name for name in suited if not why_not_ready(name, profile)]


def plan_evaluation(profile: Profile, ref: BenchmarkRef, methods: Sequence[str]) -> EvaluationPlan:
    """The stages that rank a benchmark's queries by some methods.

    Raises:
        ValueError: an unknown method, or one that does not run here (with the reason).
    """
    upstream: dict[str, Stage] = {}
    rankings = []
    for name in methods:
        builder = _Builder(profile, ref, settings_of(name, profile.cvsi))
        rankings.append(builder.ranking(name))
        for stage in builder.stages:
            upstream.setdefault(type(stage).__name__ + stage.model_dump_json(), stage)
    order: list[type[Stage]] = [
        CaptionStage,
        ImageFeatureStage,
        ReformulatedImageStage,
        CaptionFeatureStage,
        RewriteStage,
        QueryFeatureStage,
        ReformulatedQueryStage,
    ]
    stages = sorted(upstream.values(), key=lambda stage: order.index(type(stage)))
    return EvaluationPlan(tuple(stages), tuple(rankings))


class _Builder:
    """Builds the stages of one method, remembering each."""

    def __init__(self, profile: Profile, ref: BenchmarkRef, settings: CvsiSettings) -> None:
        self.profile = profile.model_copy(update={"cvsi": settings})
        self.ref = ref
        self.family = ref.load().family
        self.stages: list[Stage] = []

    def ranking(self, name: str) -> RankingStage:
        weights = self.profile.instructcir.weights
        recipe = configured_method(name, self.profile.cvsi, weights).recipe(self.family)
        gallery: Mapping[str, AnyGalleryFeature] = {
            feature: self.gallery_feature(feature) for feature in recipe.gallery
        }
        queries: Mapping[str, AnyQueryFeature] = {
            feature: self.reformulated(feature)
            if feature in QUERY_FORMS
            else self.query_feature(feature)
            for feature in recipe.query
        }
        return RankingStage(
            root=self.profile.root,
            shard_size=1_000_000,
            benchmark=self.ref,
            method=name,
            cvsi=self.profile.cvsi,
            weights=weights,
            query_features=queries,
            gallery_features=gallery,
        )

    def images(self, part: Part) -> ImageSet:
        return ImageSet(
            collection=self.ref.collection_name,
            benchmark=self.ref,
            part=part,
        )

    def captions(self, part: Part, sampling: CaptionSampling) -> CaptionStage:
        stage = CaptionStage(
            root=self.profile.root,
            shard_size=self.profile.shards.captions,
            images=self.images(part),
            captioner=self.profile.captioner,
            sampling=sampling,
        )
        return self._keep(stage)

    def image_features(self, part: Part) -> ImageFeatureStage:
        gallery = part == "gallery"
        stage = ImageFeatureStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            images=self.images(part),
            encoder=self.profile.gallery_encoder if gallery else self.profile.query_encoder,
        )
        return self._keep(stage)

    def gallery_feature(self, feature: str) -> AnyGalleryFeature:
        if feature == "image":
            return self.image_features("gallery")
        if feature == GALLERY_FEATURE:
            return self.reformulated_images()
        stage = CaptionFeatureStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            captions=self.captions("gallery", self.profile.ensemble),
            encoder=self.profile.gallery_encoder,
            mean=self.profile.cvsi.stored_mean,
        )
        return self._keep(stage)

    def reformulated_images(self) -> ReformulatedImageStage:
        stage = ReformulatedImageStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            images=self.images("gallery"),
            network=self.profile.network,
        )
        return self._keep(stage)

    def reformulated(self, feature: str) -> ReformulatedQueryStage:
        stage = ReformulatedQueryStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            feature=feature,
            benchmark=self.ref,
            network=self.profile.network,
        )
        return self._keep(stage)

    def query_feature(self, feature: str) -> QueryFeatureStage:
        needs = QUERY_FEATURES[feature].needs
        edits = "edits" in needs or "greedy_edit" in needs
        stage = QueryFeatureStage(
            root=self.profile.root,
            shard_size=self.profile.shards.features,
            feature=feature,
            benchmark=self.ref,
            encoder=self.profile.query_encoder,
            images=self.image_features("references"),
            cvsi=self.profile.cvsi,
            mapping=self._mapping(needs),
            captions=self._captions_for(needs),
            edits=self.rewrites("edit", single="greedy_edit" in needs) if edits else None,
            objects=self.rewrites("objects") if "objects" in needs else None,
        )
        return self._keep(stage)

    def _mapping(self, needs: Sequence[str]) -> str:
        kinds = [need.partition(":")[2] for need in needs if need.startswith("mapping:")]
        return self.profile.mapping.of(kinds[0]) if kinds else ""

    def _captions_for(self, needs: Sequence[str]) -> CaptionStage | None:
        if "greedy_caption" in needs:
            return self.captions("references", self.profile.single)
        if "captions" in needs:
            return self.captions("references", self.profile.ensemble)
        return None

    def rewrites(self, step: Literal["edit", "objects"], single: bool = False) -> RewriteStage:
        cvsi, profile = self.profile.cvsi, self.profile
        content = cvsi.edit_mode if step == "edit" else cvsi.objects_content
        stage = RewriteStage(
            root=profile.root,
            shard_size=profile.shards.rewrites,
            step=step,
            benchmark=self.ref,
            captions=self.captions("references", profile.single if single else profile.ensemble),
            content="first" if single else content,
            all_orders=cvsi.fashion_captions == "both_orders" and step == "edit",
            prompt=profile.prompts.edit_of(self.family)
            if step == "edit"
            else profile.prompts.objects,
            generator=profile.generator,
            temperature=cvsi.temperature,
            parsing=cvsi.answer_parsing,
        )
        return self._keep(stage)

    def _keep(self, stage: StageT) -> StageT:
        self.stages.append(stage)
        return stage
