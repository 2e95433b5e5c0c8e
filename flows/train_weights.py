"""Train weights for each query: generated triplets in, their features cached, a gate out."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.requests import train_weights as requests
from flows.requests.prepared import prepared_by
from flows.requests.train_weights import WeightsRequest
from flows.running import RunLog, run_stages, train_once
from flows.summaries import summed_up
from tasks.planner import weighed_family
from tasks.redacted import redacting
from tasks.training.query_weights import GateJob, planned_content, train_gates


@flow(
    name="train-weights",
    flow_run_name=run_names.training("train weights of {method}"),
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_weights)
def train_weights(asked: WeightsRequest) -> State[Any]:
    """Make the features of the triplets' queries and collections; train, unless published."""
    profile, triplets = asked.profile, asked.triplets
    families = {
        family: weighed_family(profile, triplets, asked.method, family) for family in asked.families
    }
    content = planned_content(triplets, asked.training)
    job = GateJob(
        profile.root,
        asked.method,
        triplets,
        families,
        asked.training,
        content,
        asked.not_zero_shot,
    )
    log = RunLog()
    if not job.is_published:
        stages = [stage for own in families.values() for stage in own.stages]
        run_stages(stages, log, profile.allow_gaps)
    made = train_once("train weights for each query", train_gates, job, 0, profile.allow_gaps)
    return summed_up({**made, "stages": [report.as_json() for report in log.stages]})
