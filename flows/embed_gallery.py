"""Embed a gallery: image features, captions and caption features of a collection."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.ray_workers import runner_of
from flows.requests import embed_gallery as requests
from flows.requests.prepared import prepared_by
from flows.running import RunLog, run_stages
from flows.summaries import summed_up
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown, stages_markdown
from tasks.foreign_pictures import warning_for
from tasks.planner import gallery_stages
from tasks.redacted import redacting
from tasks.report.markdown import plain


@flow(
    name="embed-gallery",
    flow_run_name=run_names.embedding,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.embed_gallery)
def embed_gallery(asked: requests.EmbedRequest) -> State[Any]:
    """Run the stages of each method's gallery features."""
    features = [
        stage
        for method in asked.methods
        for stage in gallery_stages(asked.profile, asked.collection, method).values()
    ]
    log = RunLog()
    with runner_of(asked.ray) as runner:
        run_stages(features, log, asked.profile.allow_gaps, asked.retry_failed, runner)
    warning = warning_for(asked.profile, asked.collection)
    said = {"warning": warning} if warning else {}
    stages = [report.as_json() for report in log.stages]
    text = f"## Features of {plain(asked.collection)}\n\n"
    text += f"**{plain(warning)}**\n\n" if warning else ""
    publish_markdown(
        artifact_key("gallery", asked.collection),
        f"{text}For {', '.join(asked.methods)}.\n\n{stages_markdown(stages)}",
        f"Features of {asked.collection}",
    )
    return summed_up({"stages": stages, **said})
