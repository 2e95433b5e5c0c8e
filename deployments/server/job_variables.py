"""Job variables are held against the work pool's template where Prefect does not do it.

Prefect checks a run of a deployment when somebody starts it. It checks neither `POST /flow_runs/`
nor `PATCH /deployments/ID`, whose variables the schedule hands on to a worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from deployments.server.bodies import content, told_again, whole
from deployments.server.guard import App, Message, Receive, Send, answer

_UNCHECKED = {
    "POST": re.compile(r"/api/flow_runs/"),
    "PATCH": re.compile(r"/api/deployments/(?P<deployment>[0-9a-fA-F-]+)"),
}
_NAMED = ("job_variables", "work_pool_name")
"""Fields by which a request can bring variables to a pool."""


class CheckedJobVariables:
    """An ASGI application in front of Prefect's: 422 for variables that the pool does not offer.

    Args:
        app: Prefect's application.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        route = _UNCHECKED.get(scope["method"]) if scope["type"] == "http" else None
        found = route.fullmatch(scope["path"]) if route else None
        if found is None:
            await self._app(scope, receive, send)
            return
        message = await whole(receive)
        body = content(message["body"])
        given = body if isinstance(body, dict) else {}
        if any(map(given.get, _NAMED)) and (fault := await _fault(given, found.groupdict())):
            await answer(send, 422, json.dumps({"detail": fault}), "application/json")
            return
        await self._app(scope, told_again(message, receive), send)


async def _fault(given: Mapping[str, Any], path: Mapping[str, str]) -> str:
    """Why the variables do not fit their pool; empty if they fit, or if no pool is named."""
    from fastapi import HTTPException
    from prefect.server import models
    from prefect.server.api.validation import validate_job_variables_for_deployment
    from prefect.server.database import provide_database_interface
    from prefect.server.schemas.actions import DeploymentUpdate

    async with provide_database_interface().session_context() as session:
        deployment: Any = None
        pool: Any = None
        # Prefect's decorators hide from mypy that both are coroutines.
        read_deployment: Any = models.deployments.read_deployment
        read_pool: Any = models.workers.read_work_pool_by_name
        with suppress(ValueError):  # no id: Prefect says so
            if named := path.get("deployment") or given.get("deployment_id"):
                deployment = await read_deployment(session, UUID(str(named)))
        if name := given.get("work_pool_name"):
            pool = await read_pool(session, str(name))
        elif deployment is not None and deployment.work_queue:
            pool = deployment.work_queue.work_pool
        asked = given.get("job_variables") or {}
        if pool is None or not isinstance(asked, dict):
            return ""
        there = deployment.job_variables if deployment is not None else None
        if not path or not asked:  # a run adds to its deployment's; an update replaces them
            asked = {**(there or {}), **asked}
        try:
            update = DeploymentUpdate(job_variables=asked)
            await validate_job_variables_for_deployment(session, pool, update)
        except HTTPException as error:
            return str(error.detail)
    return ""
