"""What engines spend: calls, tokens and time, counted for the code that measures.

An engine counts where the work is done, a caller measures a piece of work::

    with measuring() as meter:
        rows = ...          # whatever engines do in this context
    meter.spent

Nothing is measured elsewhere, and nothing is kept. An engine that works in a thread of its own
takes the caller's meter along (`current_meter`). Items of one stream may come from several callers:
an engine takes the meter of each item when it takes the item, and counts for that one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Spent:
    """What some work took of engines.

    Attributes:
        questions: prompts and images that an engine was given, each once.
        calls: requests that were sent to a server, those included that failed and were sent again;
            in this process prompts and images that a model worked on.
        prompt_tokens: read by a language model. A server's reply says them; an image in a prompt
            counts as the tokens that stand for it.
        answer_tokens: written, those included that were thrown away.
        device_seconds: that models worked in this process.
        waiting_seconds: between a request to a server and its reply, added up over requests: as
            if one had been sent after the other.
        cut_texts: that were longer than a text tower's context and lost their ends.
    """

    questions: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    device_seconds: float = 0.0
    waiting_seconds: float = 0.0
    cut_texts: int = 0

    def __add__(self, other: Spent) -> Spent:
        """The sum of both."""
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def share(self, first: int, last: int, of: int) -> Spent:
        """What items `first` to `last` of so many took; shares of all items add up to the whole."""
        return Spent(*(_share(getattr(self, f.name), first, last, of) for f in fields(self)))


def _share(whole: Any, first: int, last: int, of: int) -> Any:
    if isinstance(whole, int):
        return whole * last // of - whole * first // of
    return whole * (last - first) / of


class Meter:
    """Adds up what is spent, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = Spent()

    @property
    def spent(self) -> Spent:
        """The sum so far."""
        return self._spent

    def add(self, spent: Spent) -> None:
        """Count."""
        with self._lock:
            self._spent += spent


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def current_meter() -> Meter:
    """The meter of this context; one that nobody reads where nothing is measured."""
    return _METER.get() or Meter()


def count_for(meter: Meter) -> None:
    """From now on this context counts for another meter: that of the item that was taken last."""
    _METER.set(meter)


@contextmanager
def counting_for(meters: Sequence[Meter]) -> Iterator[None]:
    """Divide what is spent inside evenly among the items of a batch.

    Args:
        meters: The meter of each item.
    """
    with measuring() as whole:
        try:
            yield
        finally:
            done = 0
            for meter, count in Counter(meters).items():
                meter.add(whole.spent.share(done, done + count, len(meters)))
                done += count


@contextmanager
def measuring() -> Iterator[Meter]:
    """Measure what engines do in this context."""
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


@contextmanager
def device_time() -> Iterator[None]:
    """Count the time inside as that of models in this process, also where it ends in an error.

    What is inside has to end with results in memory: a GPU may still work on others.
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        current_meter().add(Spent(device_seconds=time.perf_counter() - started))
