"""Train CompoDiff's denoiser: triplets in, their image features cached, a denoiser out."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.requests import train_compodiff as requests
from flows.requests.prepared import prepared_by
from flows.requests.train_compodiff import CompoDiffRequest
from flows.running import RunLog, run_stages, train_once
from flows.summaries import summed_up
from tasks.profile_stages import triplet_features
from tasks.redacted import redacting
from tasks.training.compodiff import CompoDiffJob, train_denoiser


@flow(
    name="train-compodiff",
    flow_run_name=run_names.training("train CompoDiff"),
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_compodiff)
def train_compodiff(asked: CompoDiffRequest) -> State[Any]:
    """Make the features of the triplets' images; train, unless the denoiser is published."""
    features = triplet_features(asked.profile, asked.triplets)
    job = CompoDiffJob(
        asked.profile.root,
        asked.triplets,
        "",
        features,
        asked.network,
        asked.training,
        asked.not_zero_shot,
    ).planned()
    if not job.is_published:
        run_stages([features], RunLog(), asked.profile.allow_gaps)
    made = train_once(
        "train CompoDiff", train_denoiser, job, sum(job.amounts()), asked.run, asked.notes
    )
    return summed_up(made)
