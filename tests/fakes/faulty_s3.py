"""A proxy in front of an S3 server that cuts answers or changes a byte of them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["cut", "flip"]


@dataclass
class Faults:
    """Which answers are spoilt.

    Attributes:
        kind: "cut" ends the body in its middle; "flip" changes a bit there.
        left: number of GETs still to be spoilt.
        suffix: end of the paths that are meant.
        checksums: whether answers carry the checksum that was stored with the object.
        spoilt: number of answers that were.
    """

    kind: Fault = "cut"
    left: int = 0
    suffix: str = ".parquet"
    checksums: bool = True
    spoilt: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, method: str, path: str) -> bool:
        """Whether to spoil this answer; counts it."""
        with self.lock:
            meant = method == "GET" and urlsplit(path).path.endswith(self.suffix) and self.left > 0
            self.left -= meant
            self.spoilt += meant
            return meant


@contextmanager
def faulty_proxy(server: str) -> Iterator[tuple[str, Faults]]:
    """Address of a proxy on loopback, and the faults that it makes."""
    faults = Faults()
    target = urlsplit(server)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection(str(target.hostname), target.port)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = bytearray(answer.read())
            spoil = bool(data) and answer.status < 300 and faults.takes(self.command, self.path)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                summed = name.lower().startswith("x-amz-checksum")
                own = name.lower() in ("connection", "transfer-encoding", "content-length")
                if not own and (faults.checksums or not summed):
                    self.send_header(name, value)
            length = answer.headers.get("Content-Length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            if spoil and faults.kind == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            if spoil:
                data[len(data) // 2] ^= 1
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", faults
    finally:
        proxy.shutdown()
        proxy.server_close()
