"""What Prefect adds to the work of a shard.

A flow does with a stage what every flow does: plan it, make shard by shard as tasks with marks,
cache keys and progress, publish the parts, verify, all reported to a server in a process of its
own. The work is a Python loop, so that Prefect's threads have to share a lock with it. What a
shard costs beyond its work is the wall time outside the work, and in it the processor time of the
process's other threads. Other load on the machine only makes that larger.

It does not depend on how long a shard takes, so that short shards tell what it comes to for shards
of a minute. To see that, give each of the five runs one shard of a minute:

    python -m bench.orchestration          # five runs of four shards of half a second
    python -m bench.orchestration 1 60
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import pyarrow as pa
from prefect import flow

from bench.command_line import command_line, some_seconds, whole_number
from bench.verdict import Verdict, exit_status, judge, report
from flows.running import RunLog, run_stage
from tasks.stages.stage import Stage, Tick

RUNS: Final = 5
SHARDS: Final = 4
SECONDS: Final = 0.5
ALLOWED_RATIO: Final = 1.05
MINUTE: Final = 60.0

_CAPTIONS: Final = ["a small dog beside a red ball on the grass"] * 15


def busy(seconds: float) -> None:
    """Work that holds Python's lock, for so much of this thread's processor time."""
    value, end = 0, time.thread_time() + seconds
    while time.thread_time() < end:
        for number in range(10_000):
            value = (value * 1103515245 + number) & 0x7FFFFFFF


@dataclass
class Work:
    """What the shards of one run did, measured where it was done.

    Attributes:
        wall: Seconds inside the work.
        others: Processor seconds of the process's other threads inside it.
    """

    wall: float = 0.0
    others: float = 0.0

    def do(self, seconds: float) -> None:
        """Work, and note what it took."""
        wall, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
        busy(seconds)
        self.wall += time.perf_counter() - wall
        self.others += (time.process_time() - process) - (time.thread_time() - thread)


class BusyStage(Stage):
    """Captions that take a while."""

    table_name: ClassVar[str] = "captions"
    producer: ClassVar[str] = "bench/orchestration/1"
    work: ClassVar[Work]

    shards: int
    seconds: float

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return "busy shards"

    def identity(self) -> dict[str, Any]:
        """Tables of different sizes are different ones."""
        return {"shards": self.shards}

    def planned(self) -> list[str]:
        """As many keys as the shards hold."""
        return [f"{number:08d}" for number in range(self.shards * self.shard_size)]

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Work; then rows of the size of the paper's captions."""
        self.work.do(self.seconds)
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


@flow(name="bench")
def orchestrated(root: str, shards: int, seconds: float) -> int:
    """One stage as flows run it; returns the number of shards made."""
    stage = BusyStage(root=root, shard_size=64, shards=shards, seconds=seconds)
    return run_stage(stage, RunLog()).made // stage.shard_size


@contextmanager
def temporary_server() -> Iterator[str]:
    """A Prefect server, which everything is reported to, logs included; yields a folder."""
    from prefect.settings import (
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    for handler in logging.getLogger().handlers:  # the terminal's, not the server's
        handler.setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        chosen = {PREFECT_LOCAL_STORAGE_PATH: folder, PREFECT_SERVER_ANALYTICS_ENABLED: False}
        with temporary_settings(chosen), prefect_test_harness(server_startup_timeout=180):
            yield folder


def measure(shards: int, seconds: float) -> list[float]:
    """Seconds that a shard costs beyond its work, run by run."""
    overheads = []
    with temporary_server() as folder:
        for run in range(RUNS + 1):  # the first warms up
            work = BusyStage.work = Work()
            started = time.perf_counter()
            made = orchestrated(f"{folder}/{run}", shards, seconds if run else 0.1)
            overhead = time.perf_counter() - started - work.wall + work.others
            if made != shards:
                raise SystemExit(f"{made} of {shards} shards were made")
            overheads.append(overhead / shards)
    return overheads[1:]


def main(shards: int = SHARDS, seconds: float = SECONDS) -> Verdict:
    """Measure, and print the verdict."""
    overheads = measure(shards, seconds)
    overhead = statistics.median(overheads)
    ratios = [1 + each / MINUTE for each in overheads]
    ratio = statistics.median(ratios)
    return report(
        "orchestration",
        f"orchestration: {overhead:.3f} s a shard beyond its work, {ratio:.4f}x the time for "
        f"shards of a minute (allowed {ALLOWED_RATIO}x)",
        judge(ratios, at_most=ALLOWED_RATIO),
        {
            "ratio": ratio,
            "allowed": ALLOWED_RATIO,
            "overhead_seconds": overheads,
            "shards": shards,
            "shard_seconds": seconds,
        },
    )


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("shards", nargs="?", type=whole_number, default=SHARDS, help="of each run")
    parser.add_argument("seconds", nargs="?", type=some_seconds, default=SECONDS, help="of a shard")
    given = parser.parse_args()
    sys.exit(exit_status([main(given.shards, given.seconds)]))
