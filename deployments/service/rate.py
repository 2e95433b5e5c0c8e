"""How often a client may ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 10_000
"""Clients that are remembered; the one that asked longest ago is forgotten first."""


class Rate:
    """A bucket of requests for each client, filled at a constant rate.

    Args:
        rate: Requests a second that flow in.
        burst: Requests that a full bucket holds.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str, count: int = 1) -> float:
        """Take requests out; returns the seconds after which to ask again, 0 where let in."""
        now = time.monotonic()
        with self._lock:
            left, since = self._left.pop(client, (float(self._burst), now))
            left = min(self._burst, left + (now - since) * self._rate)
            wait = max(0.0, (count - left) / self._rate)
            self._left[client] = (left if wait else left - count, now)
            while len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
        return wait
