"""What stands in front of Prefect's application is asked by those alone whom Prefect lets in.

Prefect looks at the password inside its application. A refusal names values of the deployment and
of Prefect's variables, so that nobody else may get one.
"""

from __future__ import annotations

import base64
import hmac

from deployments.server.guard import App, Message, Receive, Send


class BehindPassword:
    """An ASGI application whose checks are for those who know the password.

    Args:
        checks: Checks in front of Prefect's application.
        app: Prefect's application, which answers everybody else.
        password: The server's auth string, `user:password`.
    """

    def __init__(self, checks: App, app: App, password: str) -> None:
        self._checks = checks
        self._app = app
        self._password = password.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        is_known = scope["type"] == "http" and hmac.compare_digest(_given(scope), self._password)
        await (self._checks if is_known else self._app)(scope, receive, send)


def _given(scope: Message) -> bytes:
    """The password of a request, read as Prefect reads it; empty where there is none."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
    scheme, _, text = given.strip().partition(b" ")
    try:
        return base64.b64decode(text.strip()) if scheme == b"Basic" else b""
    except ValueError:
        return b""
