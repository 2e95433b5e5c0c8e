"""Prefect as installed still does what flows need of it.

Prefect's own bounds admit servers that die at start, refuse deployments or, worst, never create
scheduled runs while all else works. These tests fail on such an environment.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

pytestmark = pytest.mark.prefect


@pytest.fixture
def api(prefect_api: None) -> Any:
    """A client of the running server."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def scheduled_runs(api: Any, deployment_id: uuid.UUID) -> list[dict[str, Any]]:
    asked = {"deployments": {"id": {"any_": [str(deployment_id)]}}}
    reply = api._client.post("/flow_runs/filter", json=asked)
    reply.raise_for_status()
    return [run for run in reply.json() if run["state_type"] == "SCHEDULED"]


def deploy(api: Any, cron: str, active: bool) -> uuid.UUID:
    from prefect import flow
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    @flow(name="nightly")
    def nightly() -> None:
        """Do nothing."""

    schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron=cron), active=active)
    name = f"nightly-{uuid.uuid4().hex[:8]}"
    flow_id = api.create_flow(nightly)
    return api.create_deployment(flow_id=flow_id, name=name, schedules=[schedule])


def test_the_server_answers(api: Any) -> None:
    assert api.api_healthcheck() is None
    assert api.read_flows(limit=1) is not None


def test_an_active_schedule_gets_runs_from_the_scheduler(api: Any) -> None:
    """The harness runs no services, so the scheduler's own loop body is run once, by hand."""
    from prefect.server.services.scheduler import schedule_deployments

    active, paused = deploy(api, "0 2 * * *", True), deploy(api, "0 3 * * *", False)
    asyncio.run(schedule_deployments())
    runs = scheduled_runs(api, active)
    assert len(runs) >= 3
    assert {run["expected_start_time"][11:19] for run in runs} == {"02:00:00"}
    assert scheduled_runs(api, paused) == []
    asyncio.run(schedule_deployments())
    assert len(scheduled_runs(api, active)) == len(runs)  # not scheduled twice


def test_the_server_schedules_a_deployment_when_asked(api: Any) -> None:
    active = deploy(api, "*/5 * * * *", True)
    assert api._client.post(f"/deployments/{active}/schedule", json={}).status_code == 200
    assert len(scheduled_runs(api, active)) >= 3


def test_deploying_may_ask_for_workers_with_null_for_defaults(api: Any) -> None:
    """`prefect deploy` sends explicit nulls for `limit` and `offset`."""
    pool = f"pool-{uuid.uuid4().hex[:8]}"
    made = api._client.post("/work_pools/", json={"name": pool, "type": "process"})
    assert made.status_code == 201
    asked = {"workers": None, "limit": None, "offset": None}
    reply = api._client.post(f"/work_pools/{pool}/workers/filter", json=asked)
    assert (reply.status_code, reply.json()) == (200, [])
