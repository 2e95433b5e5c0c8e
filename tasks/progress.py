"""Progress of stages, which report it without knowing the display."""

from __future__ import annotations

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
    """Send the ticks of this context to `listener`."""
    token = _tick.set(listener)
    try:
        yield
    finally:
        _tick.reset(token)
