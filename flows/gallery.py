"""Stages of a whole collection: its captions, and the features that it is searched by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from models.instructcir.query_forms import GALLERY_FEATURE
from tasks.methods import configured_method, settings_of
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.captions import CaptionStage
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.rankings import AnyGalleryFeature
from tasks.stages.reformulation_features import ReformulatedImageStage
from tasks.stages.stage import ImageSet


def caption_stage(
    profile: Profile, collection: str, kind: Literal["ensemble", "single"] = "ensemble"
) -> CaptionStage:
    """The captions of a whole collection under a profile."""
    return CaptionStage(
        root=profile.root,
        shard_size=profile.shards.captions,
        images=ImageSet(collection=collection),
        captioner=profile.captioner,
        sampling=profile.ensemble if kind == "ensemble" else profile.single,
    )


def gallery_stages(
    profile: Profile, collection: str, method: str = "cvsi"
) -> Mapping[str, AnyGalleryFeature]:
    """The features that a gallery is searched by with a method, by name.

    Raises:
        ValueError: an unknown method, or one that does not run under the profile.
    """
    settings = settings_of(method, profile.cvsi)
    profile = profile.model_copy(update={"cvsi": settings})
    row = configured_method(method, settings, profile.instructcir.weights)
    names = dict.fromkeys(
        name for family in settings.weights for name in row.recipe(family).gallery
    )
    return {name: _gallery_stage(profile, collection, name) for name in names}


def _gallery_stage(profile: Profile, collection: str, feature: str) -> AnyGalleryFeature:
    if feature == GALLERY_FEATURE:
        return ReformulatedImageStage(
            root=profile.root,
            shard_size=profile.shards.features,
            images=ImageSet(collection=collection),
            network=profile.network,
        )
    if feature == "image":
        return ImageFeatureStage(
            root=profile.root,
            shard_size=profile.shards.features,
            images=ImageSet(collection=collection),
            encoder=profile.gallery_encoder,
        )
    return CaptionFeatureStage(
        root=profile.root,
        shard_size=profile.shards.features,
        captions=caption_stage(profile, collection),
        encoder=profile.gallery_encoder,
        mean=profile.cvsi.stored_mean,
    )
