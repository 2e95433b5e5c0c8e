"""Train a composed query encoder: triplets in, a checkpoint out."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.requests import train_composed as requests
from flows.requests.prepared import prepared_by
from flows.requests.train_composed import ComposedRequest
from flows.running import train_once
from flows.summaries import summed_up
from tasks.redacted import redacting
from tasks.training.composed import ComposedJob, train_composed_network


@flow(
    name="train-composed",
    flow_run_name=run_names.training("train {system}"),
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_composed)
def train_composed(asked: ComposedRequest) -> State[Any]:
    """Train, unless the network is published."""
    job = ComposedJob.of(
        asked.profile.root,
        asked.system.name,
        asked.triplets,
        asked.profile.encoder,
        asked.network,
        asked.training,
        asked.not_zero_shot,
        asked.start,
    )
    made = train_once(
        f"train {asked.system.title}",
        train_composed_network,
        job,
        sum(job.amounts()),
        asked.run,
        asked.notes,
    )
    return summed_up(made)
