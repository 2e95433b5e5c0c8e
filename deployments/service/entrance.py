"""What stands before every route: request ids, measures, the token, and limits on bodies."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
import time
from typing import Any, Final

from deployments.server.guard import App, Message, Receive, Send
from deployments.service.errors import Refusal, fault_body
from deployments.service.metrics import Metrics

OPEN = ("/v1/health",)
"""Paths that need no token: they say nothing about pictures."""


BODY_S: Final = 60.0
"""Seconds in which the body of a request must have come."""
BODIES: Final = 8
"""The longest bodies that are held in memory at a time; requests beyond are refused."""


class Entrance:
    """An ASGI application in front of the service's own.

    Args:
        app: The service.
        metrics: Where requests are counted.
        token: What a client must send as `Authorization: Bearer TOKEN`, or as the password that a
            browser asks for (Basic: kept by browsers for this address and port alone); empty: none.
        body_bytes: Longest body. A longer one is refused by its announced length, or where it
            passes the limit, and is never held whole.
        body_s: Seconds in which a body must have come.
    """

    def __init__(
        self, app: App, metrics: Metrics, token: str, body_bytes: int, body_s: float = BODY_S
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._token = token
        self._body_bytes = body_bytes
        self._body_s = body_s
        self._held = 0  # bytes of all bodies whose requests are not answered yet

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; HEAD as GET, without the body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        scope = {**scope, "method": "GET"} if head else scope
        scope["request_id"] = request_id = secrets.token_hex(8)
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (b"x-request-id", request_id.encode())
                message = {**message, "headers": [*message.get("headers", []), named]}
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        with self._metrics.running.track_inprogress():
            await self._answered(scope, receive, sending)
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _answered(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["path"] not in OPEN and not self._knows(headers.get(b"authorization", b"")):
            text = "send the service's token: Authorization: Bearer TOKEN"
            challenge = [(b"www-authenticate", b'Basic realm="cirflow", charset="UTF-8"')]
            await _refuse(scope, send, 401, "unauthorized", text, challenge)
            return
        too_large = f"the request's body is longer than {self._body_bytes} bytes"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._body_bytes:
            await _refuse(scope, send, 413, "too_large", too_large)
            return
        taken, whole = 0, False
        until = asyncio.get_running_loop().time() + self._body_s
        fault: Refusal | None = None

        async def receiving() -> Message:
            nonlocal taken, whole, fault
            if whole:  # what comes now is the end of the connection, whenever that is
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                said = f"the request's body did not come within {self._body_s:g} seconds"
                fault = Refusal(408, "too_slow", said)
                raise fault from None
            more = len(message.get("body", b""))
            taken, self._held = taken + more, self._held + more
            whole = not message.get("more_body", False)
            if taken > self._body_bytes:
                fault = Refusal(413, "too_large", too_large)
            elif self._held > BODIES * self._body_bytes:
                fault = Refusal(503, "busy", "too many large requests at once; ask again later")
            if fault:
                raise fault
            return message

        async def sending(message: Message) -> None:
            if fault is None:  # what the routes say of a body cut short is not true
                await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Refusal:
            if fault is None:
                raise
        finally:
            self._held -= taken
        if fault:
            await _refuse(scope, send, fault.status, fault.code, str(fault))

    def _knows(self, given: bytes) -> bool:
        if not self._token:
            return True
        kind, _, value = given.partition(b" ")
        if kind.lower() == b"basic":
            try:
                value = base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        return secrets.compare_digest(value.strip(), self._token.encode())


async def _refuse(
    scope: Message,
    send: Send,
    status: int,
    code: str,
    message: str,
    further: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = json.dumps(fault_body(code, message, scope["request_id"])).encode()
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),  # what is left of the body is not read
        *(further or []),
    ]
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
