"""What stands before every route of the server, websockets and the UI included.

A page of any origin may send requests to loopback, and once its own name resolves there (DNS
rebinding) also read the answers. Such requests carry the page's name in `Host` or `Origin`, which
no script can change. Both are compared exactly, port included, without patterns or defaults.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "img-src 'self' data: blob:",
        "style-src 'self' 'unsafe-inline'",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "connect-src {sources}",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Pages load nothing from elsewhere, run no script but the UI's own, and stand in no frame."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Names:
    """Names under which the server answers.

    Attributes:
        hosts: Values of `Host`, lower case, with the port unless it is the scheme's own.
        origins: Values of `Origin` that pages may have.
    """

    hosts: frozenset[str]
    origins: frozenset[str]


def names(port: int, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> Names:
    """Loopback's names at a port, and those that somebody configured.

    Args:
        port: The port that the server listens on.
        hosts: Further values of `Host`, `NAME:PORT`.
        origins: Web addresses of the UI behind a proxy, `https://NAME[:PORT]`; the name is also
            a value of `Host`, since proxies pass it on.

    Raises:
        ValueError: a host without a port, or an origin that is not an address.
    """
    own = [f"{name}:{port}" for name in _LOOPBACK] + (list(_LOOPBACK) if port == 80 else [])
    for host in hosts:
        if not urlsplit(f"//{host}").port:
            raise ValueError(f"{host} names no port: give NAME:PORT, as clients will write it")
    given = [_origin(origin) for origin in origins]
    there = {*own, *hosts, *(urlsplit(origin).netloc for origin in given)}
    pages = {*given, *(f"http://{host}" for host in (*own, *hosts))}
    return Names(frozenset(map(str.lower, there)), frozenset(map(str.lower, pages)))


def _origin(address: str) -> str:
    """What browsers send for an address: no path, no default port."""
    parts = urlsplit(address)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        raise ValueError(f"{address} is not a web address: give https://NAME or https://NAME:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


class Guard:
    """An ASGI application that lets nobody through to another who came by a foreign name.

    Args:
        app: Prefect's application.
        allowed: Names under which it answers.
        pages: Applications of the guard's own, by their exact path.
    """

    def __init__(self, app: App, allowed: Names, pages: dict[str, App] | None = None) -> None:
        self._app = app
        self._allowed = allowed
        self._pages = pages or {}
        # Browsers take no IPv6 address here, and some do not count websockets as 'self'.
        named = sorted(origin for origin in allowed.origins if "[" not in origin)
        sources = " ".join(("'self'", *named, *(o.replace("http", "ws", 1) for o in named)))
        self._policy = POLICY.format(sources=sources)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif fault := foreign(scope, self._allowed):
            await _refuse(scope, receive, send, fault)
        else:
            page = self._pages.get(scope["path"]) if scope["type"] == "http" else None
            await (page or self._app)(scope, receive, self._closed(send))

    def _closed(self, send: Send) -> Send:
        """Add the policy to every answer that has none."""
        added = {
            b"content-security-policy": self._policy.encode(),
            b"x-frame-options": b"DENY",
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"same-origin",
        }

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                there = {name.lower(): value for name, value in headers}
                headers += [(name, value) for name, value in added.items() if name not in there]
                is_page = there.get(b"content-type", b"").startswith(b"text/html")
                if is_page and b"cache-control" not in there:
                    # Of a page that was kept, the files may be another version's, and its policy.
                    headers.append((b"cache-control", b"no-cache"))
                message = {**message, "headers": headers}
            await send(message)

        return sending


def foreign(scope: Message, allowed: Names) -> str:
    """Why a request is refused; empty if it came by names that are allowed.

    A request without an Origin does not come from a page's script: browsers send it with
    everything that changes something and with every websocket.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if len(hosts) != 1 or hosts[0].decode("latin-1").lower() not in allowed.hosts:
        return "Host"
    origins = {value for name, value in headers if name.lower() == b"origin"}
    return "" if all(o.decode("latin-1").lower() in allowed.origins for o in origins) else "Origin"


async def _refuse(scope: Message, receive: Receive, send: Send, header: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    text = (
        f"Refused: the header {header} names no address of this server. Open the address that "
        "`cirflow up` or `cirflow serve` prints. Behind a proxy, start it with --origin; for other "
        "machines, with --name NAME:PORT.\n"
    )
    await answer(send, 403, text)


async def answer(
    send: Send, status: int, text: str, kind: str = "text/plain", policy: str = ""
) -> None:
    """Send a short answer that nobody keeps."""
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(text.encode())).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if policy:
        headers.append((b"content-security-policy", policy.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
