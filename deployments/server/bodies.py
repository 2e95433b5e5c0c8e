"""Bodies of requests that are read before Prefect's application gets them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from deployments.server.guard import Message, Receive


async def whole(receive: Receive) -> Message:
    """The request's body in one message."""
    message: dict[str, Any] = {"more_body": True}
    parts: list[bytes] = []
    while message.get("more_body"):
        message = dict(await receive())
        parts.append(message.get("body", b""))
    return {**message, "body": b"".join(parts)}


def content(body: bytes) -> Any:
    """What a body holds as Prefect reads it; None where it is not JSON, which Prefect refuses."""
    with suppress(ValueError, RecursionError):
        return json.loads(body)
    return None


def told_again(message: Message, receive: Receive) -> Receive:
    """A receiver that begins with a message that was read already."""
    told = iter((message,))

    async def again() -> Message:
        return next(told, None) or await receive()

    return again
