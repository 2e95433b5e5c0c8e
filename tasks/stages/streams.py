"""One stream of items of several shards through one engine: no engine waits at a shard's end.

A captioner works on batches and a server on requests in flight; a shard alone ends with a batch
that is partly empty, or with slots that nobody fills. So a worker begins the next shard while an
engine still works on the last items of the one before::

    with Stream() as stream:
        lane = stream.open(len(members))       # for each shard, as soon as `stream.is_hungry`
        lane.run(make_and_publish, shard)      # in a thread of its own
        stream.end(lane)

and what makes the shard's rows asks through `ask`. Items are taken shard by shard, in the order in
which shards asked. Each shard has its own answers and is published as soon as it has all of
them. Outside a lane `ask` asks the engine directly.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, Generic, ParamSpec, TypeVar

from models.metering import Meter, count_for, current_meter
from models.protocols import CaptionReply, TextGenerator, TextReply, TextRequest
from models.verifiers.protocol import Choice, Verification

Item = TypeVar("Item")
Reply = TypeVar("Reply", bound=CaptionReply | TextReply | Verification | Choice)
P = ParamSpec("P")
R = TypeVar("R")
Engine = Callable[[Iterator[Item]], Iterator[Reply]]
"""Answers every item exactly once, in any order, and takes items as it is ready for them."""

AHEAD: Final = 64
"""The next shard is begun when fewer items than this are left to take."""
PATIENCE_S: Final = 1.0
"""Seconds that an engine waits for a shard that is about to ask, before it works on what it has."""


_NOTHING: Final = object()


class StreamClosed(RuntimeError):
    """The run ended while a shard waited for answers."""


_LANE: ContextVar[Lane | None] = ContextVar("lane", default=None)


def ask(
    engine: Engine[Item, Reply], items: Iterable[Item], key_of: Callable[[Item], str]
) -> Iterator[Reply]:
    """The answers to some items, as they come.

    Args:
        engine: Asked for the items of all shards of a stream together; all give the same.
        items: Taken in another thread, when the engine is ready for them.
        key_of: The key that an item's answer carries.

    Raises:
        StreamClosed: The run has ended.
    """
    lane = _LANE.get()
    return engine(iter(items)) if lane is None else lane.ask(engine, items, key_of)


def own_seconds(since: float) -> float:
    """Seconds of work of a shard, of which none counts for two shards of a stream.

    Args:
        since: When the shard was begun, by `time.monotonic`.
    """
    lane = _LANE.get()
    return time.monotonic() - since if lane is None else lane.stream.own_seconds(since)


@dataclass(frozen=True)
class StreamedGenerator:
    """A text generator that all shards of a stream ask together.

    Attributes:
        load: Gives the generator, when the first prompt is there.
    """

    load: Callable[[], TextGenerator]

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        """As the generator's own."""
        return ask(lambda taken: self.load().generate(taken), requests, lambda each: each.key)


@dataclass(frozen=True)
class _Failed:
    error: BaseException


@dataclass(eq=False)
class _Call(Generic[Item, Reply]):
    """The items of one shard, and what has become of them."""

    engine: Engine[Item, Reply]
    items: Iterator[Item]
    key_of: Callable[[Item], str]
    meter: Meter
    answers: SimpleQueue[Reply | _Failed | None] = field(default_factory=SimpleQueue)
    taking: threading.Lock = field(default_factory=threading.Lock)
    taken: int = 0
    open: int = 0  # items that the engine has not answered
    is_taken: bool = False  # whether no item is left to take


@dataclass(eq=False)
class Lane:
    """A shard's place in a stream."""

    stream: Stream
    rows: int
    call: _Call[Any, Any] | None = None

    def run(self, work: Callable[P, R], *given: P.args, **named: P.kwargs) -> R:
        """The result of some work whose `ask` goes through this lane."""
        token = _LANE.set(self)
        try:
            return work(*given, **named)
        finally:
            _LANE.reset(token)

    def ask(
        self, engine: Engine[Item, Reply], items: Iterable[Item], key_of: Callable[[Item], str]
    ) -> Iterator[Reply]:
        """As `ask`."""
        call = _Call(engine, iter(items), key_of, current_meter())
        self.call = call
        self.stream.enter(call)
        try:
            while (answer := call.answers.get()) is not None:
                if isinstance(answer, _Failed):
                    raise answer.error
                yield answer
        finally:
            self.stream.leave(call)

    @property
    def left(self) -> int:
        """Items to take, as far as is known."""
        if self.call is None:
            return self.rows
        return 0 if self.call.is_taken else max(1, self.rows - self.call.taken)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was taken yet."""
        return self.call is None or not (self.call.taken or self.call.is_taken)


class Stream:
    """Shards whose items one engine answers; see this module's docstring.

    Attributes:
        is_last: No shard comes any more.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lanes: list[Lane] = []
        self._calls: list[_Call[Any, Any]] = []
        self._asked: dict[str, deque[_Call[Any, Any]]] = defaultdict(deque)
        self._counted = 0.0
        self.is_last = self._is_closed = False

    def __enter__(self) -> Stream:
        """Start the thread in which the engine works."""
        threading.Thread(
            target=copy_context().run, args=(self._work,), name="engine", daemon=True
        ).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End; shards that still wait for answers get `StreamClosed`.

        An engine that is at work ends after its batch. Nobody waits for it.
        """
        with self._changed:
            self._is_closed = True
            for call in self._calls:
                call.answers.put(_Failed(StreamClosed("the run ended before all answers came")))
            self._changed.notify_all()

    # -- the side of the run ----------------------------------------------------------------------

    @property
    def is_hungry(self) -> bool:
        """Whether the next shard should be begun."""
        with self._changed:
            if self.is_last or any(lane.is_untouched for lane in self._lanes):
                return False
            return sum(lane.left for lane in self._lanes) < AHEAD

    def open(self, rows: int) -> Lane:
        """A lane for a shard of so many rows."""
        lane = Lane(self, rows)
        with self._changed:
            self._lanes.append(lane)
        return lane

    def end(self, lane: Lane) -> None:
        """Say that a shard is published, or could not be made."""
        with self._changed:
            self._lanes.remove(lane)
            self._changed.notify_all()

    def no_more(self) -> None:
        """Say that no shard comes any more, so that the engine waits for none."""
        with self._changed:
            self.is_last = True
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at whenever a shard or the engine went on."""
        with self._changed:
            self._changed.wait_for(condition)

    def own_seconds(self, since: float) -> float:
        """As the function `own_seconds`."""
        with self._changed:
            since, self._counted = max(since, self._counted), time.monotonic()
            return self._counted - since

    # -- the side of a shard ----------------------------------------------------------------------

    def enter(self, call: _Call[Any, Any]) -> None:
        """Add the items of a shard."""
        with self._changed:
            if self._is_closed:
                raise StreamClosed("the run has ended")
            self._calls.append(call)
            self._changed.notify_all()

    def leave(self, call: _Call[Any, Any]) -> None:
        """Take no further item of a shard; what was taken is answered to nobody."""
        with call.taking:
            self._end(call, None)

    # -- the side of the engine -------------------------------------------------------------------

    def _work(self) -> None:
        """Put all items to the engine, until the stream is closed.

        The engine is asked again when items come after it had none left.
        """
        while (engine := self._next_engine()) is not None:
            error: BaseException | None = None
            try:
                for reply in engine(iter(self._take, _NOTHING)):
                    self._deliver(reply)
            except BaseException as raised:  # those who wait for answers raise it
                error = raised
            self._end_asked(error)

    def _next_engine(self) -> Engine[Any, Any] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._to_take())
            return None if self._is_closed else self._to_take()[0].engine

    def _to_take(self) -> list[_Call[Any, Any]]:
        return [call for call in self._calls if not call.is_taken]

    def _take(self) -> Any:
        """The next item, or `_NOTHING` where the engine should go on with those that it has."""
        while (call := self._next_call()) is not None:
            with call.taking:
                if call.is_taken:
                    continue
                try:
                    item = next(call.items)
                    key = call.key_of(item)
                except StopIteration:
                    self._end_taking(call)
                    continue
                except BaseException as error:  # the shard that the item belongs to raises it
                    self._end(call, _Failed(error))
                    continue
                with self._changed:
                    call.taken += 1
                    call.open += 1
                    self._asked[key].append(call)
                    self._changed.notify_all()
            count_for(call.meter)
            return item
        return _NOTHING

    def _next_call(self) -> _Call[Any, Any] | None:
        """The first shard that has items to take; waits a moment for one that is about to ask."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not self._to_take():
                if self._is_closed:
                    raise StreamClosed("the run has ended")
                awaited = not self.is_last or any(lane.call is None for lane in self._lanes)
                patience = deadline - time.monotonic()
                if not awaited or patience <= 0:
                    return None
                self._changed.wait(patience)
            return self._to_take()[0]

    def _deliver(self, reply: CaptionReply | TextReply) -> None:
        with self._changed:
            call = self._asked[reply.key].popleft()
            call.open -= 1
            call.answers.put(reply)
            if call.is_taken and not call.open:
                self._end(call, None)

    def _end_taking(self, call: _Call[Any, Any]) -> None:
        with self._changed:
            call.is_taken = True
            if not call.open:
                self._end(call, None)
            self._changed.notify_all()

    def _end_asked(self, error: BaseException | None) -> None:
        """End the shards that the engine owes answers to; all, if it raised before the first."""
        with self._changed:
            owed = {call for calls in self._asked.values() for call in calls}
            missing = error or RuntimeError("the engine ended without all answers")
            for call in owed or (set(self._calls) if error else owed):
                self._end(call, _Failed(missing))
            self._asked.clear()

    def _end(self, call: _Call[Any, Any], last: _Failed | None) -> None:
        with self._changed:
            call.is_taken = True
            call.answers.put(last)
            if call in self._calls:
                self._calls.remove(call)
            self._changed.notify_all()
