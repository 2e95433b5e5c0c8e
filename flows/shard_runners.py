"""Ways to make the shards of a stage in this process; `flows.ray_workers` has one more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict
from typing import Any, Final

from prefect.states import State

from storage.tables.plans import Shard
from storage.tables.turns import Turns
from tasks.stages.run import run_shard
from tasks.stages.streams import Lane, Stream

Made = tuple[dict[str, Any], State[Any]]
ShardRunner = Callable[[Any, Turns], Generator[Made]]
"""Makes the shards of a stage and ends their turns; yields each with the state that it ended in."""

MOST_THREADS: Final = 64


def in_this_process(stage: Any, turns: Turns) -> Generator[Made]:
    """Make shards in this process; those whose rows an engine answers follow without a gap."""
    return (streamed if stage.streams else one_by_one)(stage, turns)


def one_by_one(stage: Any, turns: Turns) -> Generator[Made]:
    """Make shards one after the other."""
    for shard in turns:
        state = run_shard(stage, asdict(shard), return_state=True)
        turns.end(shard.key)
        yield asdict(shard), state


def streamed(stage: Any, turns: Turns) -> Generator[Made]:
    """Make shards in threads, so many at once as keep the engine busy (`tasks.stages.streams`)."""
    shards, running = iter(turns), 0
    ended: deque[tuple[Shard, Future[State[Any]]]] = deque()
    threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="shard")

    def make(shard: Shard, lane: Lane) -> State[Any]:
        try:
            return lane.run(run_shard, stage, asdict(shard), return_state=True)
        finally:
            turns.end(shard.key)

    def begin(shard: Shard) -> None:
        lane = stream.open(len(shard.members))

        def note(done: Future[State[Any]]) -> None:
            ended.append((shard, done))
            stream.end(lane)

        threads.submit(copy_context().run, make, shard, lane).add_done_callback(note)

    try:
        with Stream() as stream:
            while running or not stream.is_last:
                stream.wait_for(lambda: bool(ended) or stream.is_hungry)
                if ended:
                    shard, future = ended.popleft()
                    running -= 1
                    yield asdict(shard), future.result()
                elif next_shard := next(shards, None):
                    begin(next_shard)
                    running += 1
                else:
                    stream.no_more()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
