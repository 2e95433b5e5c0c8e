"""Refusals as typed JSON, or as a page where a browser asked for one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from deployments.errors import UserError, told
from deployments.service.routers import navigation
from models.redaction import redact
from models.spelling import unknown
from storage.collections.decoding import ImageProblem
from storage.collections.known import UnknownCollection
from storage.tables.plans import IncompleteTable
from tasks.explorer.evaluations import UnknownEvaluation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Handler = Callable[[Request, Exception], Awaitable[Response]]

logger = logging.getLogger(__name__)

_SHORT = 80
"""Characters of a refused text that the refusal repeats."""


class Fault(BaseModel):
    """Why a request was refused.

    Attributes:
        code: A word for programs.
        message: What was given, what is allowed and what to do next.
        request_id: What the log calls the request.
    """

    code: str
    message: str
    request_id: str


class Faulty(BaseModel):
    """The body of every refusal."""

    error: Fault


class Refusal(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        code: A word for programs.
        message: What was given, what is allowed and what to do next.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


CODES = {
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    422: "invalid",
    429: "too_many_requests",
}


def add_handlers(app: FastAPI) -> None:
    """Answer all errors of an application in one form."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UnknownCollection, _typed(404, "unknown_gallery"))
    app.add_exception_handler(UnknownEvaluation, _typed(404, "unknown_evaluation"))
    app.add_exception_handler(IncompleteTable, _typed(409, "not_embedded"))
    app.add_exception_handler(ImageProblem, _typed(422, "not_a_picture"))
    for kind in (UserError, ValueError, LookupError, OSError):
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(Exception, _unknown)


def fault_body(code: str, message: str, request_id: str) -> dict[str, Any]:
    """The JSON of a refusal."""
    fault = Fault(code=code, message=redact(message), request_id=request_id)
    return Faulty(error=fault).model_dump()


def _answer(
    request: Request,
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = fault_body(code, message, request.scope.get("request_id", ""))
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith("/v1/"):
        from deployments.service.pages import page

        return page(request, "error.html", status=status, title=code, **body["error"])
    return JSONResponse(body, status, headers=dict(headers or {}))


def _typed(status: int, code: str) -> Handler:
    """Answers an error of a known kind with its own message."""

    async def answer(request: Request, error: Exception) -> Response:
        return _answer(request, status, code, str(error))

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(request, error.status, error.code, str(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [_in_words(each) for each in error.errors()[:5]]
    return _answer(request, 422, "invalid", "; ".join(faults))


def _in_words(fault: Mapping[str, Any]) -> str:
    """What pydantic found wrong in a request: the place, the reason and a short value."""
    if fault["type"] == "json_invalid":
        return f"the body is not JSON (character {fault['loc'][-1]}: {fault['ctx']['error']})"
    place = ".".join(map(str, fault["loc"][1:])) or fault["loc"][0]
    given = fault.get("input")
    short = isinstance(given, int | float) or (isinstance(given, str) and len(given) <= _SHORT)
    said = fault["msg"].removeprefix("Value error, ") + (f", not {given!r}" if short else "")
    return f"{place}: {said}"


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "refused")
    said = _of_address(request, error.status_code, error.headers or {}) or str(error.detail)
    return _answer(request, error.status_code, code, said, error.headers)


def _of_address(request: Request, status: int, headers: Mapping[str, str]) -> str:
    """What the router leaves unsaid: which addresses there are, or what this one takes."""
    path = request.url.path
    if status == 404 and path.startswith("/v1/"):
        known = [each for each in request.app.openapi()["paths"] if each.startswith("/v1/")]
        return f"{unknown('address', path, known)}; /docs describes them"
    if status == 404:
        return unknown("address", path, [*(each.path for each in navigation()), "/docs"])
    if status == 405:
        allowed = headers.get("Allow", "none")
        return f"{request.method} is not allowed at {path}; allowed: {allowed}"
    return ""


async def _known(request: Request, error: Exception) -> Response:
    """An error that a person can correct, as the command line would say it."""
    if message := told(error):
        return _answer(request, 422, "invalid", message)
    return await _unknown(request, error)


async def _unknown(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("request_id", "")
    logger.error("request %s failed", request_id, exc_info=error)
    message = f"a fault of the service; its log says more under the request id {request_id}"
    return _answer(request, 500, "fault", message)
