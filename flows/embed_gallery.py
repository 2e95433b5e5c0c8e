"""Embed a gallery: image features, captions and caption features of a collection."""

from __future__ import annotations

from typing import Any

from prefect import flow

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
from flows.running import RunLog, run_stages
from tasks.planner import gallery_stages
from tasks.redacted import redacting


@flow(
    name="embed-gallery",
    flow_run_name="embed {collection}",
    persist_result=False,
    result_serializer="json",
)
@redacting
def embed_gallery(
    collection: str,
    methods: tuple[MethodName, ...] = ("cvsi",),
    backbone: Clip = PROFILE_CLIP,
    captioning: Captioning = PROFILE_CAPTIONING,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
) -> dict[str, Any]:
    """Make everything that searching a collection needs.

    Args:
        collection: Name of an ingested collection.
        methods: Methods that it will be searched by.
        backbone: The CLIP whose features are made.
    """
    chosen = resolve_profile(profile, with_choices(settings, backbone, captioning, work))
    features = [
        stage for method in methods for stage in gallery_stages(chosen, collection, method).values()
    ]
    log = RunLog()
    run_stages(features, log, chosen.allow_gaps)
    return {"stages": [report.as_json() for report in log.stages]}
