"""A stream against what it promises: full batches, own answers, no shard left behind."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from models.generators.openai_server import OpenAIServerSettings
from models.metering import Spent, counting_for, current_meter, measuring
from models.protocols import EngineUnavailable, TextReply, TextRequest
from tasks.stages.streams import PATIENCE_S, Stream, StreamClosed, ask
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, echo

BATCH = 16
SIZES = (7, 21, 3, 16, 1, 30, 11, 5, 18, 9)  # 121 items: seven batches and nine items
Engine = Callable[[Iterator[str]], Iterator[TextReply]]


class Batches:
    """An engine that works on batches; `sizes` are theirs. Some items make it raise."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.sizes: list[int] = []
        self.broken = broken

    def __call__(self, items: Iterator[str]) -> Iterator[TextReply]:
        stream = ((item, current_meter()) for item in items)
        while batch := list(itertools.islice(stream, BATCH)):
            self.sizes.append(len(batch))
            with counting_for([meter for _, meter in batch]):
                current_meter().add(Spent(questions=len(batch), answer_tokens=5 * len(batch)))
            for item, _ in batch:
                if item in self.broken:
                    raise EngineUnavailable(f"no answer to {item}")
                yield TextReply(item, item.upper())


def shards_of(sizes: Sequence[int]) -> list[list[str]]:
    """Distinct items, shard by shard."""
    return [[f"s{s}i{i}" for i in range(size)] for s, size in enumerate(sizes)]


Make = Callable[[Engine, list[str]], Any]


def asked(engine: Engine, items: list[str]) -> list[str]:
    """What a shard does: ask for its items, and keep the answers' texts."""
    return [reply.text for reply in ask(engine, items, lambda item: item)]


def replies(engine: Engine, items: list[str]) -> list[TextReply]:
    """The answers whole."""
    return list(ask(engine, items, lambda item: item))


def run(engine: Engine, shards: list[list[str]], make: Make = asked) -> list[Future[Any]]:
    """All shards through one stream, begun as the stream asks for them."""
    futures: list[Future[Any]] = []
    waiting = iter(shards)
    with Stream() as stream, ThreadPoolExecutor() as threads:

        def done() -> bool:
            return stream.is_last and all(future.done() for future in futures)

        while not done():
            stream.wait_for(lambda: stream.is_hungry or done())
            if stream.is_hungry:
                if shard := next(waiting, None):
                    lane = stream.open(len(shard))
                    futures.append(threads.submit(lane.run, make, engine, shard))
                    futures[-1].add_done_callback(lambda _, lane=lane: stream.end(lane))
                else:
                    stream.no_more()
    return futures


def test_batches_are_full_over_shards_and_each_shard_has_its_own_answers() -> None:
    engine, shards = Batches(), shards_of(SIZES)
    futures = run(engine, shards)
    assert engine.sizes == [BATCH] * 7 + [sum(SIZES) % BATCH]
    assert [sorted(f.result()) for f in futures] == [
        sorted(item.upper() for item in shard) for shard in shards
    ]


def test_a_shard_has_its_answers_while_the_next_is_still_asked() -> None:
    """It is published then: a kill loses what is in flight, not all that was begun."""
    seen: list[tuple[int, int]] = []  # shard, items taken of all by its end

    def counting(items: Iterator[str]) -> Iterator[TextReply]:
        for taken, item in enumerate(items, 1):
            counts["taken"] = taken
            yield TextReply(item, item)

    counts = {"taken": 0}

    def make(engine: Engine, items: list[str]) -> list[str]:
        found = asked(engine, items)
        seen.append((int(items[0][1:].partition("i")[0]), counts["taken"]))
        return found

    gate = threading.Event()

    def slow(items: Iterator[str]) -> Iterator[TextReply]:
        for reply in counting(items):
            if reply.key == "s2i0":
                assert gate.wait(10)
            yield reply

    def waiting(engine: Engine, items: list[str]) -> list[str]:
        found = make(engine, items)
        if items[0] == "s1i0":
            gate.set()
        return found

    run(slow, shards_of([40, 40, 40]), waiting)
    assert sorted(shard for shard, _ in seen) == [0, 1, 2]
    assert dict(seen)[1] <= 81


def test_what_a_batch_of_two_shards_took_is_divided_by_their_items() -> None:
    spent: dict[str, Spent] = {}

    def measured(engine: Engine, items: list[str]) -> list[str]:
        with measuring() as meter:
            found = asked(engine, items)
        spent[items[0]] = meter.spent
        return found

    run(Batches(), shards := shards_of(SIZES), measured)
    assert spent == {
        shard[0]: Spent(questions=len(shard), answer_tokens=5 * len(shard)) for shard in shards
    }


def test_an_error_of_a_shards_items_is_that_shards_alone() -> None:
    def reading(engine: Engine, items: list[str]) -> list[str]:
        def read() -> Iterator[str]:
            for item in items:
                if item == "s1i2":
                    raise OSError("the part is gone")
                yield item

        return [reply.text for reply in ask(engine, read(), lambda item: item)]

    engine = Batches()
    futures = run(engine, shards_of([5, 20, 30]), reading)
    assert isinstance(futures[1].exception(), OSError)
    assert [len(futures[place].result()) for place in (0, 2)] == [5, 30]
    assert sum(engine.sizes) == 5 + 2 + 30


def test_an_engine_that_raises_is_asked_again_for_shards_that_it_has_not_begun() -> None:
    engine = Batches(broken=["s0i3"])
    futures = run(engine, shards_of([100, 100, 100]))
    assert isinstance(futures[0].exception(), EngineUnavailable)
    assert [len(future.result()) for future in futures[1:]] == [100, 100]


def test_an_engine_that_forgets_an_item_leaves_no_shard_waiting() -> None:
    def forgetful(items: Iterator[str]) -> Iterator[TextReply]:
        for item in items:
            if item != "s1i0":
                yield TextReply(item, item)

    futures = run(forgetful, shards_of([3, 3, 3]))
    assert isinstance(futures[1].exception(), RuntimeError)
    assert [len(futures[place].result()) for place in (0, 2)] == [3, 3]


def test_shards_that_ask_twice_have_both_answers() -> None:
    def twice(engine: Engine, items: list[str]) -> list[str]:
        return asked(engine, items) + asked(engine, items[:2])

    futures = run(Batches(), shards_of([9, 40, 3]), twice)
    assert [len(future.result()) for future in futures] == [11, 42, 5]


def test_the_end_of_a_run_wakes_those_who_wait() -> None:
    begun = threading.Event()

    def stuck(items: Iterator[str]) -> Iterator[TextReply]:
        yield TextReply(next(items), "")
        begun.set()
        threading.Event().wait(PATIENCE_S)

    with ThreadPoolExecutor() as threads:
        with Stream() as stream:
            future = threads.submit(stream.open(2).run, asked, stuck, ["a", "b"])
            assert begun.wait(10)
        with pytest.raises(StreamClosed):
            future.result(10)


def server_engine(server: FakeOpenAIServer, slots: int) -> Engine:
    """A server as shards ask it; it is not looked for again."""
    settings = OpenAIServerSettings(
        model=MODEL,
        base_url=server.base_url,
        concurrency=slots,
        transport_retries=0,
        health_wait_seconds=0.0,
    )
    generator = settings.load()
    return lambda items: generator.generate(TextRequest(item, item) for item in items)


def test_slots_of_a_server_are_filled_over_shards() -> None:
    """Shards of ten leave none of sixteen slots idle, and one session serves them all."""
    full = threading.Event()

    def waiting(request: Mapping[str, Any]) -> Reply:
        if server.most_in_flight == 16:
            full.set()
        full.wait(20)
        return echo(request)

    with FakeOpenAIServer(then=waiting) as server:
        engine, sessions = server_engine(server, 16), []

        def counted(items: Iterator[str]) -> Iterator[TextReply]:
            sessions.append(engine)
            return engine(items)

        futures = run(counted, shards_of([10, 10, 10, 10]))
        assert server.most_in_flight == 16
        assert len(sessions) == 1
    assert [len(future.result()) for future in futures] == [10] * 4


def test_a_server_that_dies_is_not_asked_by_every_shard() -> None:
    crash = Reply(fault="crash", looks=10**9)
    with FakeOpenAIServer(then=lambda request: crash) as server:
        futures = run(server_engine(server, 8), shards_of([10] * 20), replies)
        assert len(server.requests) + server.refused <= 8 * 3
    found = [reply for future in futures for reply in future.result()]
    assert len(found) == 200
    assert {reply.status for reply in found} == {"engine_error"}


def test_without_a_stream_the_engine_is_asked_directly() -> None:
    engine = Batches()
    assert asked(engine, ["a", "b"]) == ["A", "B"]
    assert engine.sizes == [2]
