"""More flow runs for one stage's table, on any workers of a pool.

Every run fills the same table and first takes shards that no other run has begun
(`storage.tables.turns`). The table says which rows are missing, not Prefect: the run that asks for
help makes all rows that its helpers do not, so that helpers may come late, die, or never start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from tasks.patience import while_server_restarts


def start_helpers(deployment: str, parameters: Mapping[str, Any], count: int) -> None:
    """Start runs of a deployment and do not wait for them.

    Args:
        deployment: FLOW/NAME; its flow fills the table when given `parameters`.
        parameters: The same for every run.
        count: How many.

    Raises:
        ValueError: there is no such deployment.
    """
    with get_client(sync_client=True) as client:
        try:
            found = while_server_restarts()(client.read_deployment_by_name, deployment)
        except ObjectNotFound as error:
            raise ValueError(
                f"there is no deployment {deployment} to start more runs of: bring the "
                "deployments up first (`cirflow up`), or let one run do the work (runs=1)"
            ) from error
        for _ in range(count):
            client.create_flow_run_from_deployment(found.id, parameters=dict(parameters))
