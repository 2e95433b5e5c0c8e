"""Fill one stage's table from several flow runs at once, on whatever workers a pool has.

Every run works on the same table and takes what no other has begun (`flows.running.in_turn`). The
table says what is left, not Prefect: a worker that dies leaves missing rows, and those are made by
the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client

from tasks import progress
from tasks.stages.base import Stage

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Share:
    """What the runs of a fan-out did.

    Attributes:
        runs: flow run id -> name of its last state.
        complete: whether every planned row is there.
    """

    runs: Mapping[UUID, str]
    complete: bool


def fan_out(
    stage: Stage, deployment: str, parameters: Mapping[str, Any], runs: int, key: str
) -> Share:
    """Start runs of a deployment that fill a table, and wait until it is full or all have ended.

    Args:
        stage: Whose table is filled.
        deployment: FLOW/NAME; its flow fills the stage's table when given `parameters`.
        parameters: The same for every run.
        runs: How many at once.
        key: Key of the progress artifact.
    """
    planned = stage.planned()
    table = stage.table()
    states = dict.fromkeys(_start(deployment, parameters, runs), "Scheduled")
    artifact = create_progress_artifact(0.0, key=key, description=stage.title)
    done = 0
    while True:
        coverage = table.completeness(planned)
        present = coverage.planned - coverage.missing
        progress.tick(present - done)
        done = present
        states = _states(states)
        _tell(artifact, 100.0 * present / max(1, coverage.planned))
        if not coverage.missing or all(_is_over(name) for name in states.values()):
            return Share(states, not coverage.missing)
        time.sleep(POLL_SECONDS)


def _start(deployment: str, parameters: Mapping[str, Any], runs: int) -> list[UUID]:
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        return [
            client.create_flow_run_from_deployment(found.id, parameters=dict(parameters)).id
            for _ in range(runs)
        ]


def _states(before: Mapping[UUID, str]) -> dict[UUID, str]:
    """Names of the runs' states; those known before while the server does not answer."""
    try:
        with get_client(sync_client=True) as client:
            found = {run: client.read_flow_run(run).state for run in before}
    except (httpx.HTTPError, OSError):
        return dict(before)
    return {run: (state.name or "") if state else before[run] for run, state in found.items()}


def _tell(artifact: Any, percent: float) -> None:
    try:
        update_progress_artifact(artifact, percent)
    except (httpx.HTTPError, OSError):
        return  # the next round tells it


def _is_over(state: str) -> bool:
    return state not in (
        *("Scheduled", "Pending", "Running", "Late", "Paused", "Suspended", "Retrying"),
        *("AwaitingRetry", "AwaitingConcurrencySlot", "Cancelling", "Resuming"),
    )
