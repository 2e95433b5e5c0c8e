"""What Prefect adds to a bare loop over shards.

Ours is what every flow does with a stage: plan it, make shard by shard as tasks with marks, cache
keys and progress, publish the parts, verify, all reported to a server in a process of its own. The
bare loop does the same work on the same number of shards, and publishes nothing. The work is a
Python loop of a fixed number of rounds, which Prefect's own threads have to share a lock with.

Overhead does not depend on how long a shard takes, so that short shards tell what it comes to for
shards of a minute. To see that it does, run shards of a minute (twice three of them):

    python -m bench.orchestration          # 20 shards of about half a second
    python -m bench.orchestration 3 60
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, ClassVar, Final

import pyarrow as pa
from prefect import flow

from bench.interleaved import best_of_interleaved
from flows.running import RunLog, run_stage
from tasks.stages.base import Stage, Tick

SHARDS: Final = 20
SECONDS: Final = 0.5
ALLOWED_RATIO: Final = 1.05
MINUTE: Final = 60.0

_CAPTIONS: Final = ["a small dog beside a red ball on the grass"] * 15


def busy(rounds: int) -> int:
    """Work that holds Python's lock."""
    value = 0
    for number in range(rounds):
        value = (value * 1103515245 + number) & 0x7FFFFFFF
    return value


def rounds_of(seconds: float) -> int:
    """Rounds that keep this machine busy for about so long."""
    sample = 2_000_000
    started = time.perf_counter()
    busy(sample)
    return round(sample * seconds / (time.perf_counter() - started))


class BusyStage(Stage):
    """Captions that take a while."""

    table_name: ClassVar[str] = "captions"
    producer: ClassVar[str] = "bench/orchestration/1"

    shards: int
    rounds: int
    turn: int

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return "busy shards"

    def identity(self) -> dict[str, Any]:
        """Each turn fills a table of its own."""
        return {"turn": self.turn}

    def planned(self) -> list[str]:
        """As many keys as the shards hold."""
        return [f"{number:08d}" for number in range(self.shards * self.shard_size)]

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Work, then rows of the size of the paper's captions."""
        started = time.perf_counter()
        busy(self.rounds)
        _worked.append(time.perf_counter() - started)
        tick(len(members))
        every = len(members)
        return self.table().rows(
            image_id=list(members),
            captions=[_CAPTIONS] * every,
            n=[len(_CAPTIONS)] * every,
            raw=[_CAPTIONS] * every,
            status=["ok"] * every,
            reason=[""] * every,
        )


_worked: list[float] = []


@flow(name="bench", log_prints=False)
def orchestrated(root: str, shards: int, rounds: int, turn: int) -> int:
    """One stage as flows run it; returns the number of rows made."""
    stage = BusyStage(root=root, shard_size=64, shards=shards, rounds=rounds, turn=turn)
    return run_stage(stage, RunLog()).made


@contextmanager
def temporary_server(folder: str) -> Iterator[None]:
    """A Prefect server of its own, which everything is reported to, logs included."""
    from prefect.settings import (
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    for handler in logging.getLogger().handlers:  # the terminal's, not the server's
        handler.setLevel(logging.CRITICAL)
    chosen = {PREFECT_LOCAL_STORAGE_PATH: folder, PREFECT_SERVER_ANALYTICS_ENABLED: False}
    with temporary_settings(chosen), prefect_test_harness(server_startup_timeout=180):
        yield


def main(shards: int = SHARDS, seconds: float = SECONDS) -> None:
    """Measure, print one line and one JSON line, and fail where the bound is missed."""
    rounds = rounds_of(seconds)
    turns = count()
    outside: list[float] = []

    def bare() -> int:
        for _ in range(shards):
            busy(rounds)
        return shards

    with tempfile.TemporaryDirectory() as folder, temporary_server(folder):

        def ours() -> int:
            _worked.clear()
            started = time.perf_counter()
            made = orchestrated(f"{folder}/tables", shards, rounds, next(turns))
            outside.append((time.perf_counter() - started - sum(_worked)) / shards)
            return made // 64

        orchestrated(f"{folder}/tables", 1, 1, next(turns))
        timing = best_of_interleaved(bare, ours)
    if timing.got != timing.expected:
        raise SystemExit(f"{timing.got} of {timing.expected} shards were made")
    overhead = (timing.seconds - timing.baseline_seconds) / shards
    ratio = 1 + overhead / MINUTE
    measured = timing.seconds / timing.baseline_seconds
    passed = ratio <= ALLOWED_RATIO
    print(
        f"orchestration: {overhead:.3f} s a shard over a bare loop, {ratio:.4f}x the time for "
        f"shards of a minute (allowed {ALLOWED_RATIO}x); {measured:.3f}x for "
        f"these of {timing.baseline_seconds / shards:.2f} s: {'ok' if passed else 'MISSED'}"
    )
    print(
        json.dumps(
            {
                "bench": "orchestration",
                "ratio": ratio,
                "allowed": ALLOWED_RATIO,
                "overhead_seconds": overhead,
                "outside_work_seconds": min(outside),
                "baseline_seconds": timing.baseline_seconds,
                "seconds": timing.seconds,
                "shards": shards,
                "passed": passed,
            }
        )
    )
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, float), sys.argv[1:], strict=False)))
