"""What is asked of `backfill-captions`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from flows.form_fields import Of
from flows.forms import PROFILE_CAPTIONING, Captioning, Overrides, ProfileName, Work
from flows.profiles import resolve_profile
from flows.requests.checks import require_collections, require_engine, require_root
from flows.requests.ray_workers import NO_RAY, RayWorkers
from models.settings import Settings
from storage.collections.known import list_collections
from storage.locations.location import Location
from tasks.at_hand import require_hosts_of_missing
from tasks.choices import CaptionKind, Which
from tasks.profile_stages import caption_stage
from tasks.settings import Profile


class Selector(Settings):
    """The images to caption."""

    which: Which = "missing"
    """missing: no captions yet under these settings. failed: tried before, to be retried. stale:
    captioned under other settings only."""
    since: datetime.date | None = None
    """Ingested on this day (UTC) or later."""
    until: datetime.date | None = None
    """Ingested on this day (UTC) or earlier."""


WITHOUT_CAPTIONS: Final = Selector()


@dataclass(frozen=True)
class BackfillRequest:
    """Captions to make.

    Attributes:
        profile: Engines and settings.
        collection: As it was given; may be `all`.
        names: Its collections.
        kind: The captions.
        selector: The images.
        dry_run: Whether only the cost is wanted.
        runs: Flow runs that share the work.
        ray: Workers of Ray.
        allow_gaps: Share of rows that may fail.
        again: The parameters of a run that helps this one.
    """

    profile: Profile
    collection: str
    names: tuple[str, ...]
    kind: CaptionKind
    selector: Selector
    dry_run: bool
    runs: int
    ray: RayWorkers
    allow_gaps: float
    again: dict[str, Any]


def backfill_captions(
    collection: str = "all",
    kind: CaptionKind = "ensemble",
    selector: Selector = WITHOUT_CAPTIONS,
    captioning: Captioning = PROFILE_CAPTIONING,
    dry_run: bool = False,
    runs: Annotated[int, Field(ge=1)] = 1,
    shard_size: Annotated[int, Of(Work, "shard_size")] = 0,
    ray: RayWorkers = NO_RAY,
    allow_gaps: Annotated[float | None, Of(Work, "allow_gaps")] = None,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
) -> BackfillRequest:
    """Caption the images of a collection that have no captions yet.

    A second run makes only the captions that are still missing. A run ends Completed,
    CompletedWithGaps (some images could not be captioned, but no more than is allowed) or Failed.

    Args:
        collection: Name of an ingested collection, or all.
        kind: ensemble: the N captions of CVSI. single: the one greedy caption. instructcir: the
            one caption that modification texts are written from.
        selector: The images of it.
        dry_run: Report the work and its cost, and stop.
        runs: Flow runs that share the work, this one included; each takes shards that no other has
            begun. The others are runs of the deployment backfill-captions.
        ray: Caption on the workers of a Ray cluster instead.
    """
    chosen = _chosen_profile(profile, settings, kind, captioning, shard_size)
    if kind == "single" and chosen.single_caption == "first":
        raise ValueError(
            "under this profile the single caption is the first of the ensemble "
            "(single_caption=first); backfill kind=ensemble, or set single_caption=greedy"
        )
    if selector.which == "failed" and runs > 1:
        raise ValueError("failed images are retried in one run; choose runs=1")
    if ray.workers and runs > 1:
        raise ValueError("the workers of Ray share the work of one run; choose runs=1")
    if collection != "all":
        require_collections(chosen.root, [collection])
    if kind == "instructcir":
        require_engine("instructcir.captioner", chosen.instructcir.captioner)
    else:
        require_engine("captioner", chosen.captioner)
    if not dry_run:
        require_root(chosen)  # a root that cannot be written to may be asked what it lacks
    names = list_collections(Location(chosen.root)) if collection == "all" else [collection]
    if selector.which == "missing" and not dry_run and not ray.workers:
        require_hosts_of_missing(caption_stage(chosen, name, kind) for name in names)
    again = {
        "kind": kind,
        "selector": selector.model_dump(mode="json"),
        "captioning": captioning.model_dump(mode="json"),
        "shard_size": shard_size,
        "allow_gaps": 1.0,
        "profile": profile,
        "settings": settings,
    }
    gaps = chosen.allow_gaps if allow_gaps is None else allow_gaps
    return BackfillRequest(
        chosen, collection, tuple(names), kind, selector, dry_run, runs, ray, gaps, again
    )


def _chosen_profile(
    profile: str,
    settings: dict[str, Any] | None,
    kind: CaptionKind,
    captioning: Captioning,
    shard_size: int,
) -> Profile:
    """The profile with the form's choices on top.

    Raises:
        ValueError: several captions are chosen for a kind that has one.
    """
    if captioning.per_image and kind != "ensemble":
        raise ValueError(
            f"kind={kind} is one caption an image; captioning.per_image goes with kind=ensemble"
        )
    place = "instructcir.captioner" if kind == "instructcir" else "captioner"
    own = captioning.settings(place) | Work(shard_size=shard_size).settings()
    return resolve_profile(profile, {**(settings or {}), **own})
