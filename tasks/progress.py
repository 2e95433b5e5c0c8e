"""Progress of stages, which report it without knowing the display."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_tick: ContextVar[Callable[[int], None] | None] = ContextVar("tick", default=None)


def tick(count: int) -> None:
    """Report rows just made to the listener, if there is one."""
    listener = _tick.get()
    if listener is not None:
        listener(count)


@contextmanager
def listening(listener: Callable[[int], None]) -> Iterator[None]:
    """Send the ticks of this context to `listener`, one at a time from whatever thread."""
    lock = threading.Lock()

    def locked(count: int) -> None:
        with lock:
            listener(count)

    token = _tick.set(locked)
    try:
        yield
    finally:
        _tick.reset(token)
