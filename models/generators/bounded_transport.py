"""HTTP replies that end: each has a total deadline and a largest size, whatever the server does.
What a server echoes of this process's secrets is taken out here, before anybody reads it.

The client's own timeouts are for one read: a server that sends a byte a second never meets them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import openai

from models.redaction import redact_bytes

MOST_BYTES: Final = 4 * 2**20
"""Largest body of a reply: fifteen captions, or a list of thousands of models, have far less."""


class OversizedReply(openai.OpenAIError):
    """The body is too large, or compressed so that its size is unknown; it is not asked again."""


class BoundedTransport(httpx2.AsyncBaseTransport):
    """A transport whose replies arrive within `seconds` and have at most `MOST_BYTES`."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, seconds: float) -> None:
        """Remember the transport that does the work."""
        self._inner = inner
        self._seconds = seconds

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the deadline covers its reply's whole body.

        Raises:
            httpx2.ReadTimeout: It did not arrive in time.
            OversizedReply: It is compressed although plain bytes were asked for.
        """
        request.headers["Accept-Encoding"] = "identity"
        deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._inner.handle_async_request(request)
        except TimeoutError as failure:
            raise httpx2.ReadTimeout("no reply in time", request=request) from failure
        if response.headers.get("Content-Encoding", "identity") != "identity":
            await response.aclose()
            raise OversizedReply("the reply is compressed although plain bytes were asked for")
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(stream, deadline, request)
        headers = [(name, redact_bytes(value)) for name, value in response.headers.raw]
        response.headers = httpx2.Headers(headers)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(
        self, inner: httpx2.AsyncByteStream, deadline: float, request: httpx2.Request
    ) -> None:
        self._inner = inner
        self._deadline = deadline
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, body = aiter(self._inner), bytearray()
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    chunk = await anext(chunks, None)
            except TimeoutError as failure:
                what = f"the reply was not complete in time; {len(body):,} bytes had come"
                raise httpx2.ReadTimeout(what, request=self._request) from failure
            if chunk is None:
                break
            body += chunk
            if len(body) > MOST_BYTES:
                raise OversizedReply(f"the reply is larger than {MOST_BYTES:,} bytes")
        yield redact_bytes(bytes(body))  # as a whole: a secret may lie on the edge of two chunks

    async def aclose(self) -> None:
        await self._inner.aclose()
