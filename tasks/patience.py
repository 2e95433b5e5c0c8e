"""Waiting for Prefect's server while it is restarted, where Prefect itself does not.

Prefect's clients try again when a server that answered them before does not now. Those that are
made for one call, as artifacts make them, give up at once; a run that has worked for hours must
not fail for that.
"""

from __future__ import annotations

from typing import Final

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

PATIENCE: Final = 300.0
"""Seconds that a call waits for the server."""


def while_server_restarts(seconds: float = PATIENCE) -> Retrying:
    """Call a function with this, and it is called again while the server cannot be reached.

    Raises:
        httpx.TransportError: the server could not be reached for that long.
    """
    return Retrying(
        retry=retry_if_exception_type(httpx.TransportError),
        wait=wait_random_exponential(max=15),
        stop=stop_after_delay(seconds),
        reraise=True,
    )
