"""An OpenAI-compatible server that misbehaves on request, for tests of the client.

It speaks raw HTTP over a socket, so that it can also do what no framework allows: close in
the middle of a body, reset before the headers, hang, or lie about the length.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "edit-model"


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    Attributes:
        status: HTTP status.
        body: JSON value, or bytes to be sent as they are.
        headers: Extra headers.
        kind: Content type.
        fault: `""`, `reset` (before headers), `half` (of the body), `hang` (until the test ends),
            `drip` (a byte now and then, until the test ends), or `crash`: the connection is reset
            and the server is away.
        looks: How often a server that crashed is looked for in vain before it is back.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    fault: str = ""
    looks: int = 3


def chat(*texts: object, finish: object = "stop", indices: Iterable[int] | None = None) -> Reply:
    """A chat completion with one choice per text."""
    numbers = list(indices) if indices is not None else range(len(texts))
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for i, text in zip(numbers, texts, strict=True)
    ]
    return Reply(body=completion(choices))


def chat_bytes(text: bytes) -> Reply:
    """A chat completion whose text is these bytes as they are, which no JSON writer would give."""
    whole = json.dumps(chat("TEXT").body).encode()
    return Reply(body=whole.replace(b"TEXT", text))


def completion(choices: object, kind: str = "chat.completion") -> dict[str, Any]:
    """The envelope around `choices`, whatever they are."""
    return {"id": "1", "object": kind, "created": 1, "model": MODEL, "choices": choices}


def error(status: int, message: str, **headers: str) -> Reply:
    """An error in the form that OpenAI and vLLM use."""
    body = {"error": {"message": message, "type": "error", "code": status}}
    return Reply(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


def echo(request: Mapping[str, Any]) -> Reply:
    """The well-behaved answer: the prompt in capitals."""
    if "prompt" in request:
        choice = {"index": 0, "text": request["prompt"].upper(), "finish_reason": "stop"}
        return Reply(body=completion([choice], "text_completion"))
    content = request["messages"][0]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return chat(*[f"{text} {i}".upper() if i else text.upper() for i in range(request["n"])])


class FakeOpenAIServer:
    """A server on a free port of the loopback interface; use it as a context manager.

    Attributes:
        models: What `/v1/models` lists.
        requests: Decoded bodies of all completion requests so far, with `path` added.
        most_in_flight: The largest number of completion requests ever open at once.
        refused: Completion requests that came while the server was away.
    """

    def __init__(self, *script: Reply, then: Callable[[Mapping[str, Any]], Reply] = echo) -> None:
        """Answer the first requests with `script`, the others with `then`."""
        self._script = iter(script)
        self._then = then
        self._lock = threading.Lock()
        self._looks_until_back = 0
        self._ended = threading.Event()
        self._in_flight = 0
        self.models: object = [MODEL]
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.most_in_flight = 0
        self.refused = 0
        self.health_checks = 0

    def __enter__(self) -> FakeOpenAIServer:
        """Start listening."""
        fake = self

        class Handler(_Handler):
            server_fake = fake

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        """Root of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def is_away(self) -> bool:
        """Whether the server has crashed and is not back yet."""
        return self._looks_until_back > 0

    def look(self) -> bool:
        """Somebody looks for the server; whether it is there."""
        with self._lock:
            self._looks_until_back = max(0, self._looks_until_back - 1)
            return not self.is_away

    def hang(self) -> None:
        """Keep somebody waiting for as long as the test lasts."""
        self._ended.wait()

    def ends_within(self, seconds: float) -> bool:
        """Whether the test ends within that time."""
        return self._ended.wait(seconds)

    def next_reply(self, request: dict[str, Any]) -> Reply:
        """Record a request and choose what happens to it."""
        with self._lock:
            self.requests.append(request)
            reply = next(self._script, None)
        reply = reply or self._then(request)
        if reply.fault == "crash":
            self._looks_until_back = reply.looks
        return reply

    def count(self, change: int) -> None:
        """Keep count of the open completion requests."""
        with self._lock:
            self._in_flight += change
            self.most_in_flight = max(self.most_in_flight, self._in_flight)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 drops connections of a busy client


class _Handler(BaseHTTPRequestHandler):
    server_fake: FakeOpenAIServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        fake = self.server_fake
        if not fake.look():
            return self._reset()
        if self.path == "/health":
            fake.health_checks += 1
            return self._send(Reply(200, {}))
        if isinstance(fake.models, Reply):
            return self._send(fake.models)
        listed = [{"id": name, "object": "model"} for name in fake.models]  # type: ignore[attr-defined]
        return self._send(Reply(200, {"object": "list", "data": listed}))

    def do_POST(self) -> None:
        fake = self.server_fake
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if fake.is_away:
            fake.refused += 1
            return self._reset()
        fake.authorizations.append(self.headers.get("Authorization", ""))
        fake.count(+1)
        try:
            self._send(fake.next_reply(json.loads(raw) | {"path": self.path}))
        finally:
            fake.count(-1)

    def _send(self, reply: Reply) -> None:
        if reply.fault == "hang":
            self.server_fake.hang()
            return self._reset()
        if reply.fault in ("reset", "crash"):
            return self._reset()
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": reply.kind, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if reply.fault == "drip":
            for place in range(len(body)):
                self.wfile.write(body[place : place + 1])
                if self.server_fake.ends_within(0.1):
                    break
            return self._reset()
        if reply.fault == "half":
            self.wfile.write(body[: len(body) // 2])
            return self._reset()
        self.wfile.write(body)

    def _reset(self) -> None:
        """Drop the connection so that the client sees a reset rather than an end of file."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
