"""Backfill captions: fill what is missing in the caption cache of a collection."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from flows.gallery import caption_stage
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stage


@flow(name="backfill-captions", flow_run_name="captions of {collection}")
def backfill_captions(
    collection: str,
    profile: str = "tiny",
    settings: dict[str, Any] | None = None,
    kind: Literal["ensemble", "single"] = "ensemble",
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Caption the images of a collection that have no captions yet.

    Args:
        collection: Name of an ingested collection.
        profile: tiny, production, or a TOML file that extends one.
        settings: Dotted setting names and values that replace the profile's.
        kind: N captions per image, or one greedy caption.
        retry_failed: Try again the images whose captioning failed.
    """
    chosen = resolve_profile(profile, settings)
    if kind == "single" and chosen.single_caption == "first":
        raise ValueError(
            "under this profile the single caption is the first of the ensemble "
            "(single_caption=first); backfill kind=ensemble, or set single_caption=greedy"
        )
    log = RunLog()
    stage = caption_stage(chosen, collection, kind)
    run_stage(stage, log, allow_gaps=chosen.allow_gaps, retry_failed=retry_failed)
    return {"stages": [report.as_json() for report in log.stages]}
