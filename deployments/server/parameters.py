"""Parameters are held against their deployment's form where Prefect does not do it.

Prefect checks a run's parameters when somebody starts it. It takes those of a schedule as they
come, and its UI drops the limits of numbers from the form of a schedule. A parameter that the flow
does not have passes everywhere, and each run that is given one crashes without a reason. A change
of a schedule that names no parameters empties them, so that a schedule which was paused and resumed
from a terminal would go on with the deployment's own. Templates, variables and texts of JSON, which
every form offers, are filled in for a run and for a deployment; of a schedule each run would get
them as they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from deployments.server.bodies import content, told_again, whole
from deployments.server.guard import App, Message, Receive, Send, answer
from deployments.server.own_parameters import own_faults

Headers = list[tuple[bytes, bytes]]
Errors = list[Any]
"""What is wrong, as Prefect's UI reads it: texts, and {"property" or "index", "errors"}."""

_ID = "(?P<deployment>[0-9a-fA-F-]{32,36})"  # Prefect takes it without its lines, too
_SCHEDULE = "(?P<schedule>[0-9a-fA-F-]{32,36})"
_ROUTES = {
    "POST": re.compile(f"/api/deployments/{_ID}/(schedules|create_flow_run(/bulk)?)"),
    "PATCH": re.compile(f"/api/deployments/{_ID}/schedules/{_SCHEDULE}"),
}
_FORM = "/api/ui/schemas/validate"
"""What the UI asks before it sends a form. Only the page that asks tells the deployment."""
_PAGE = re.compile(f"/deployments/deployment/{_ID}(/|$)")


class CheckedParameters:
    """An ASGI application in front of Prefect's: 422 for values that each run would refuse.

    Args:
        app: Prefect's application.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        deployment, schedule, is_form = _asked(scope)
        if not deployment:
            await self._app(scope, receive, send)
            return
        message = await whole(receive)
        body = content(message["body"])
        if "/schedules" in scope["path"]:
            completed = await _completed(body, deployment, schedule)
            if completed != body:
                body = completed
                message = {**message, "body": json.dumps(body).encode()}
                scope = {**scope, "headers": _measured(scope["headers"], message["body"])}
        is_off = schedule and isinstance(body, dict) and body.get("active") is False
        for given in () if is_off else _given(body, is_form):  # off is right whatever it holds
            if found := await _faults(deployment, given, is_form):
                await _refuse(send, found, is_form)
                return
        await self._app(scope, told_again(message, receive), send)


def _asked(scope: Message) -> tuple[str, str, bool]:
    """The deployment whose values a request brings, empty for others; schedule; whether a form."""
    if scope["type"] != "http" or scope["method"] not in _ROUTES:
        return "", "", False
    if found := _ROUTES[scope["method"]].fullmatch(scope["path"]):
        return found["deployment"], found.groupdict().get("schedule") or "", False
    if (scope["method"], scope["path"]) != ("POST", _FORM):
        return "", "", False
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    page = _PAGE.search(urlsplit(headers.get(b"referer", "")).path)
    return (page["deployment"] if page else ""), "", True


def _measured(headers: Headers, body: bytes) -> Headers:
    """Headers of a request with another body."""
    length = b"content-length"
    kept = [(name, value) for name, value in headers if name.lower() != length]
    return [*kept, (length, str(len(body)).encode())]


def _given(body: Any, is_form: bool) -> Iterator[Mapping[str, Any]]:
    """The parameters that a body brings, those of several schedules one after the other."""
    for item in body if isinstance(body, list) else [body]:
        if not isinstance(item, dict) or item.get("enforce_parameter_schema") is False:
            continue
        values = item.get("values" if is_form else "parameters")
        if isinstance(values, dict) and (values or not is_form):
            yield values


async def _refuse(send: Send, errors: Errors, is_form: bool) -> None:
    if is_form:
        told = json.dumps({"errors": errors, "valid": False})
        await answer(send, 200, told, "application/json")
    else:
        told = json.dumps({"detail": "; ".join(_lines(errors))})
        await answer(send, 422, told, "application/json")


def _lines(errors: Errors, *place: str) -> Iterator[str]:
    """Each fault with its place, unless it says that itself."""
    for error in errors:
        if isinstance(error, str):
            where = ".".join(place)
            yield error if not where or error.startswith(where) else f"{where}: {error}"
        else:
            yield from _lines(
                error["errors"], *place, str(error.get("property", error.get("index")))
            )


async def _completed(body: Any, deployment_id: str, schedule_id: str) -> Any:
    """Schedules with the parameters that they keep, and these with their templates filled in."""
    if isinstance(body, list):
        return [await _completed(item, deployment_id, schedule_id) for item in body]
    if not isinstance(body, dict):
        return body
    parameters = body.get("parameters")
    if schedule_id and "parameters" not in body:
        parameters = await _kept(deployment_id, schedule_id)
    if not isinstance(parameters, dict):
        return body
    if "__prefect_kind" in json.dumps(parameters):
        parameters = await _filled_in(parameters)
    return {**body, "parameters": parameters}


async def _filled_in(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters with their templates filled in; as they came where that cannot be done."""
    from prefect.utilities.schema_tools.hydration import HydrationError, hydrate

    try:
        made = hydrate(parameters, await _context(raise_on_error=True))
    except (HydrationError, TypeError):
        return parameters
    return made if isinstance(made, dict) else parameters


async def _context(raise_on_error: bool = False) -> Any:
    """What Prefect's server fills templates in with."""
    from prefect.server.database import provide_database_interface
    from prefect.utilities.schema_tools.hydration import HydrationContext

    async with provide_database_interface().session_context() as session:
        return await HydrationContext.build(
            session=session,
            raise_on_error=raise_on_error,
            render_jinja=True,
            render_workspace_variables=True,
        )


async def _kept(deployment_id: str, schedule_id: str) -> dict[str, Any]:
    """The parameters that a schedule has; empty where the schedule does not exist."""
    from prefect.server import models
    from prefect.server.database import provide_database_interface

    async with provide_database_interface().session_context() as session:
        read: Any = models.deployments.read_deployment_schedules
        with suppress(ValueError):  # no id: Prefect says so
            for schedule in await read(session, UUID(deployment_id)):
                if schedule.id == UUID(schedule_id):
                    return dict(schedule.parameters)
    return {}


async def _faults(deployment_id: str, given: Mapping[str, Any], is_form: bool) -> Errors:
    """What is wrong with parameters on top of the deployment's own; empty where nothing is.

    A form shows what is given; for what is lacking Prefect answers.
    """
    from anyio.to_thread import run_sync
    from prefect.server.database import provide_database_interface
    from prefect.utilities.schema_tools.hydration import hydrate
    from sqlalchemy import select

    try:
        key = UUID(deployment_id)
    except ValueError:
        return []  # no id: Prefect says so
    database = provide_database_interface()
    table: Any = database.Deployment
    # Prefect's own reading brings all that belongs to a deployment, and takes ten times as long.
    columns = (table.parameters, table.parameter_openapi_schema, table.entrypoint)
    asked = select(*columns).where(table.id == key, table.enforce_parameter_schema)
    async with database.session_context() as session:
        deployment = (await session.execute(asked)).first()
    if deployment is None:
        return []
    context = await _context()
    schema = deployment.parameter_openapi_schema or {}
    try:
        given = hydrate(dict(given), context)  # a form may send all of it as one text of JSON
        values = {**hydrate(deployment.parameters, context), **given}
    except TypeError:  # a form says so itself
        return (
            []
            if is_form
            else ["the parameters are not an object, or hold a template that cannot be filled in"]
        )
    found = faults(schema, values, given)
    found = found or await run_sync(own_faults, deployment.entrypoint or "", values)
    if is_form:
        return [each for each in found if isinstance(each, str) or each["property"] in given]
    return found


def faults(schema: Mapping[str, Any], values: Mapping[str, Any], given: Iterable[str]) -> Errors:
    """What a form's schema says against parameters.

    Args:
        schema: The deployment's.
        values: All parameters of a run.
        given: Names of those that are asked for: a deployment's own may be of an earlier version.
    """
    from prefect.utilities.schema_tools.validation import (
        CircularSchemaRefError,
        ValidationError,
        build_error_obj,
        validate,
    )

    known = schema.get("properties")
    if not known:
        return []  # as where nobody said what the flow takes
    if strange := [name for name in given if name not in known]:
        there = ", ".join(known)
        return [f"unknown parameter {name!r}; known: {there}" for name in strange]
    with suppress(CircularSchemaRefError, ValidationError):  # Prefect's own answer says so
        errors: Errors = build_error_obj(validate(dict(values), dict(schema)))["errors"]
        return errors
    return []
