"""Embed a gallery: image features, captions and caption features of a collection."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.gallery import gallery_stages
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stages
from tasks.stages.caption_features import CaptionFeatureStage


@flow(name="embed-gallery", flow_run_name="embed {collection}")
def embed_gallery(
    collection: str,
    profile: str = "tiny",
    settings: dict[str, Any] | None = None,
    methods: list[str] | None = None,
) -> dict[str, Any]:
    """Make everything that searching a collection needs.

    Args:
        collection: Name of an ingested collection.
        profile: tiny, production, or a TOML file that extends one.
        settings: Dotted setting names and values that replace the profile's.
        methods: Methods that it will be searched by; cvsi if empty.
    """
    chosen = resolve_profile(profile, settings)
    features = [
        stage
        for method in methods or ["cvsi"]
        for stage in gallery_stages(chosen, collection, method).values()
    ]
    captions = [each.captions for each in features if isinstance(each, CaptionFeatureStage)]
    log = RunLog()
    run_stages([*captions, *features], log, chosen.allow_gaps)
    return {"stages": [report.as_json() for report in log.stages]}
