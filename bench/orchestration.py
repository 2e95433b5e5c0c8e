"""What Prefect adds to a bare loop over shards.

Ours is what every flow does with a stage: plan it, make shard by shard as tasks with marks, cache
keys and progress, publish the parts, verify, all reported to a server in a process of its own. The
bare loop is a process without Prefect that does the same work and publishes nothing. The work is a
Python loop, so that Prefect's threads have to share a lock with it. Both work in turns of a quarter
of a second and see the same machine; whatever Prefect's threads do in the other's turn is added.

Overhead does not depend on how long a shard takes, so that short shards tell what it comes to for
shards of a minute. To see that, run three shards of a minute:

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
from typing import Any, ClassVar, Final

import pyarrow as pa
from prefect import flow

from bench.bare_loop import BareLoop, busy
from flows.running import RunLog, run_stage
from tasks.stages.stage import Stage, Tick

SHARDS: Final = 20
SECONDS: Final = 0.5
TURN: Final = 0.25
ALLOWED_RATIO: Final = 1.05
MINUTE: Final = 60.0

_CAPTIONS: Final = ["a small dog beside a red ball on the grass"] * 15


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
    bare: ClassVar[BareLoop]

    shards: int
    turns: int
    rounds: int

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
        """Work, in turns with the bare loop; then rows of the size of the paper's captions."""
        for _ in range(self.turns):
            busy(self.rounds)
            self.bare.turn(self.rounds)
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
def orchestrated(root: str, shards: int, turns: int, rounds: int) -> int:
    """One stage as flows run it; returns the number of shards made."""
    stage = BusyStage(root=root, shard_size=64, shards=shards, turns=turns, rounds=rounds)
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


def measure(shards: int, turns: int, rounds: int) -> tuple[float, float]:
    """Seconds of all shards: ours, and the bare loop's."""
    with BareLoop() as warm_up, BareLoop() as bare, temporary_server() as folder:
        BusyStage.bare = warm_up
        orchestrated(f"{folder}/warm-up", 1, 1, 1)
        BusyStage.bare = bare
        started = time.perf_counter()
        made = orchestrated(f"{folder}/tables", shards, turns, rounds)
        ours = time.perf_counter() - started - bare.waited + bare.meanwhile
    if made != shards:
        raise SystemExit(f"{made} of {shards} shards were made")
    return ours, bare.seconds


def main(shards: int = SHARDS, seconds: float = SECONDS) -> None:
    """Measure, print one line and one JSON line, and fail where the bound is missed."""
    ours, bare = measure(shards, round(seconds / TURN), rounds_of(TURN))
    overhead = (ours - bare) / shards
    ratio = 1 + overhead / MINUTE
    passed = ratio <= ALLOWED_RATIO
    print(
        f"orchestration: {overhead:.3f} s a shard over a bare loop, {ratio:.4f}x the time for "
        f"shards of a minute (allowed {ALLOWED_RATIO}x), {ours / bare:.3f}x for these of "
        f"{bare / shards:.2f} s: {'ok' if passed else 'MISSED'}"
    )
    print(
        json.dumps(
            {
                "bench": "orchestration",
                "ratio": ratio,
                "allowed": ALLOWED_RATIO,
                "overhead_seconds": overhead,
                "baseline_seconds": bare,
                "seconds": ours,
                "shards": shards,
                "passed": passed,
            }
        )
    )
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, float), sys.argv[1:], strict=False)))
