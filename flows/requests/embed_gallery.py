"""What is asked of `embed-gallery`."""

from __future__ import annotations

from dataclasses import dataclass

from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_CLIP,
    PROFILE_WORK,
    Captioning,
    Clip,
    MethodName,
    Overrides,
    ProfileName,
    Work,
    with_choices,
)
from flows.profiles import resolve_profile
from flows.requests.checks import require_collections, require_methods, require_root
from flows.requests.ray_workers import NO_RAY, RayWorkers
from tasks.at_hand import require_hosts_of_missing
from tasks.planner import gallery_stages
from tasks.settings import Profile


@dataclass(frozen=True)
class EmbedRequest:
    """A collection, and the methods that it will be searched by."""

    profile: Profile
    collection: str
    methods: tuple[str, ...]
    ray: RayWorkers
    retry_failed: bool


def embed_gallery(
    collection: str,
    methods: tuple[MethodName, ...] = ("cvsi",),
    backbone: Clip = PROFILE_CLIP,
    captioning: Captioning = PROFILE_CAPTIONING,
    work: Work = PROFILE_WORK,
    retry_failed: bool = False,
    ray: RayWorkers = NO_RAY,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
) -> EmbedRequest:
    """Make everything that searching a collection needs.

    Args:
        collection: Name of an ingested collection.
        methods: Methods that it will be searched by.
        backbone: The CLIP whose features are made.
        retry_failed: Retry failed rows, such as features of images that had no captions then.
        ray: Embed and caption on the workers of a Ray cluster instead.
    """
    chosen = resolve_profile(profile, with_choices(settings, backbone, captioning, work))
    require_collections(chosen.root, [collection])
    require_methods(chosen, methods, gallery_only=True)
    require_root(chosen)
    if not ray.workers:
        galleries = [gallery_stages(chosen, collection, method) for method in methods]
        require_hosts_of_missing(stage for each in galleries for stage in each.values())
    return EmbedRequest(chosen, collection, methods, ray, retry_failed)
