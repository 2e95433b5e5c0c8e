"""Stages that a profile and their images or queries determine, one function for each."""

from __future__ import annotations

from models.encoders.spec import EncoderSpec
from tasks.choices import CaptionKind
from tasks.methods import settings_of
from tasks.query_sets import BenchmarkRef, Queries
from tasks.query_texts import OWN_TEXTS
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.captions import CaptionStage
from tasks.stages.concepts import ConceptPhraseStage, ConceptVectorStage
from tasks.stages.edited_pictures import EditedPictureStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.image_sets import ImageSet, SelectedImages
from tasks.stages.pair_samples import PairSample
from tasks.stages.paraphrases import ParaphraseStage
from tasks.stages.pseudo_tokens import ImportedTokenStage, OtiTokenStage
from tasks.stages.query_pairs import QueryPairs
from tasks.stages.triplets import QueryTextStage
from tasks.training.triplet_sets import TripletImages, TripletSet


def caption_stage(
    profile: Profile,
    images: str | ImageSet | SelectedImages | PairSample | QueryPairs,
    kind: CaptionKind = "ensemble",
) -> CaptionStage:
    """The captions of some images, or of a whole collection, under a profile.

    Args:
        profile: Captioners and sampling.
        images: The images, or the name of a collection.
        kind: ensemble: the N captions of CVSI. single: the one caption of single-caption methods.
            instructcir: the one caption that modification texts are written from.
    """
    captioner, sampling = {
        "ensemble": (profile.captioner, profile.ensemble),
        "single": (profile.captioner, profile.single),
        "instructcir": (profile.instructcir.captioner, profile.instructcir.captioning),
    }[kind]
    return CaptionStage(
        root=profile.root,
        shard_size=profile.shards.captions,
        images=ImageSet(collection=images) if isinstance(images, str) else images,
        captioner=captioner,
        sampling=sampling,
        pictures=profile.pictures,
    )


def token_stage(profile: Profile, images: ImageFeatureStage) -> OtiTokenStage | ImportedTokenStage:
    """Pseudo tokens of some images under a profile: optimised, or imported."""
    chosen, size = profile.inversion, profile.shards
    if chosen.tokens:
        return ImportedTokenStage(
            root=profile.root,
            shard_size=size.features,
            images=images.images,
            imported=chosen.tokens,
        )
    encoder = images.encoder.changed(dtype="fp32")
    vectors, written = word_stages(profile, encoder)
    return OtiTokenStage(
        root=profile.root,
        shard_size=size.tokens,
        images=images,
        encoder=encoder,
        oti=chosen.oti,
        vectors=vectors,
        phrases=chosen.phrases,
        written=written if chosen.oti.phrase_weight else None,
    )


def word_stages(
    profile: Profile, encoder: EncoderSpec
) -> tuple[ConceptVectorStage, ConceptPhraseStage | None]:
    """Vectors of the profile's concepts, and their phrases where the text generator writes them."""
    chosen, size = profile.inversion, profile.shards
    vectors = ConceptVectorStage(
        root=profile.root, shard_size=4_096, concepts=chosen.concepts, encoder=encoder
    )
    if chosen.phrases:
        return vectors, None
    written = ConceptPhraseStage(
        root=profile.root,
        shard_size=size.tokens,
        concepts=chosen.concepts,
        generator=profile.generator,
        writing=chosen.writing,
    )
    return vectors, written


def caption_feature_stage(
    profile: Profile, collection: str, encoder: EncoderSpec
) -> CaptionFeatureStage:
    """Caption features of the images of a collection."""
    return CaptionFeatureStage(
        root=profile.root,
        shard_size=profile.shards.features,
        captions=caption_stage(profile, collection),
        encoder=encoder,
        mean=profile.cvsi.stored_mean,
    )


def image_stage(profile: Profile, collection: str, method: str) -> ImageFeatureStage:
    """Image features of a collection, prepared as a method's reference images are."""
    own = profile.model_copy(update={"cvsi": settings_of(method, profile.cvsi)})
    return ImageFeatureStage(
        root=profile.root,
        shard_size=profile.shards.features,
        images=ImageSet(collection=collection),
        encoder=own.query_encoder,
        pictures=profile.pictures,
    )


def text_stage(profile: Profile, ref: BenchmarkRef) -> QueryTextStage:
    """Texts that the writer of triplets makes for a benchmark's queries, under a profile."""
    chosen = profile.instructcir
    pairs = QueryPairs(benchmark=ref.with_texts(OWN_TEXTS))
    return QueryTextStage(
        root=profile.root,
        shard_size=profile.shards.triplets,
        pairs=pairs,
        captions=caption_stage(profile, pairs, "instructcir"),
        prompt=chosen.prompt,
        generator=chosen.rewriter,
        temperature=chosen.temperature,
        retry_temperature=chosen.retry_temperature,
        attempts=chosen.attempts,
    )


def paraphrase_stage(profile: Profile, ref: BenchmarkRef, count: int) -> ParaphraseStage:
    """Other wordings of a benchmark's texts, by the profile's text generator."""
    return ParaphraseStage(
        root=profile.root,
        shard_size=profile.shards.rewrites,
        benchmark=ref.with_texts(OWN_TEXTS),
        count=count,
        prompt=profile.prompts.paraphrase,
        generator=profile.generator,
    )


def triplet_features(profile: Profile, triplets: TripletSet) -> ImageFeatureStage:
    """The image features of a set of triplets, made as those of queries are."""
    return ImageFeatureStage(
        root=profile.root,
        shard_size=profile.shards.features,
        images=TripletImages(triplets=triplets),
        encoder=profile.query_encoder,
        pictures=profile.pictures,
    )


def picture_stage(profile: Profile, queries: Queries) -> EditedPictureStage:
    """The edited reference images of some queries under a profile."""
    return EditedPictureStage(
        root=profile.root,
        shard_size=profile.shards.pictures,
        queries=queries,
        editor=profile.editor,
        pictures=profile.pictures,
    )
