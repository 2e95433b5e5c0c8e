"""Stages of a whole collection: its captions, and the two features that it is searched by."""

from __future__ import annotations

from typing import Literal

from tasks.settings import Profile
from tasks.stages.base import ImageSet
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.captions import CaptionStage
from tasks.stages.image_features import ImageFeatureStage


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
    profile: Profile, collection: str
) -> tuple[ImageFeatureStage, CaptionFeatureStage]:
    """The two features that a gallery is searched by."""
    images = ImageFeatureStage(
        root=profile.root,
        shard_size=profile.shards.features,
        images=ImageSet(collection=collection),
        encoder=profile.gallery_encoder,
    )
    captions = CaptionFeatureStage(
        root=profile.root,
        shard_size=profile.shards.features,
        captions=caption_stage(profile, collection),
        encoder=profile.gallery_encoder,
        mean=profile.cvsi.stored_mean,
    )
    return images, captions
