"""Retries while Prefect's server is restarted, where Prefect itself does not retry.

Prefect's clients retry when a server that answered them before does not answer now. A client that
is made for one call, as for an artifact, gives up at once; a run that has worked for hours must not
fail for that.
"""

from __future__ import annotations

from typing import Final

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

PATIENCE: Final = 300.0
"""Seconds that a call waits for the server."""


def while_server_restarts(seconds: float = PATIENCE) -> Retrying:
    """Return a caller that calls a function again while the server cannot be reached.

    Raises:
        httpx.TransportError: the server could not be reached for that long.
    """
    return Retrying(
        retry=retry_if_exception_type(httpx.TransportError),
        wait=wait_random_exponential(max=15),
        stop=stop_after_delay(seconds),
        reraise=True,
    )
