"""A process that forks caption backfills, so that a test can kill many of them cheaply.

Run as ``python -m tests.fakes.caption_backfill PROFILE_JSON COLLECTION LOG``. It loads the
captioner once, says ``ready``, then obeys one JSON command a line on standard input:
``{"root": R, "workers": W, "kill": {"shards": N, "seconds": S}}`` forks W processes that run the
caption stage at R through ``flows.running.run_stage``, waits until they have begun N shards, then
S seconds more, and kills them with SIGKILL (never, if `kill` is null). The answer, once all are
gone, is ``{"ends": [exit status or minus the signal, ...], "seconds": wall time}``.

A worker is the flow's own code without Prefect: the two tasks are called through their ``fn``.
Whenever a worker starts to caption a shard it appends one line to LOG first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.engines import load_captioner
from tasks.profile_stages import caption_stage
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.stage import Stage, Tick


@dataclass(frozen=True)
class Finished:
    """What `run_stage` wants of the state that Prefect would return."""

    value: Any

    def result(self, raise_on_failure: bool = True) -> Any:
        """The task's result, also where the body says that it was cached."""
        from prefect.states import State

        return self.value.data if isinstance(self.value, State) else self.value


def without_prefect() -> None:
    """Let `run_stage` call the bodies of its tasks."""
    from flows import running, shard_runners
    from tasks.stages.run import plan_stage, run_shard

    running.plan_stage = lambda stage, retry, return_state: Finished(  # type: ignore[assignment]
        plan_stage.fn(stage, retry)
    )
    shard_runners.run_shard = lambda stage, shard, return_state: Finished(  # type: ignore[assignment]
        run_shard.fn(stage, shard)
    )


def note_shards(log: str, kind: type[Stage]) -> None:
    """Append a line to `log` whenever a shard of a kind of stage is about to be made."""
    rows = kind.rows
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noting(self: Stage, members: Sequence[str], tick: Tick) -> pa.Table:
        line = {"root": self.root, "pid": os.getpid(), "members": list(members)}
        os.write(file, (json.dumps(line) + "\n").encode())
        return rows(self, members, tick)

    kind.rows = noting  # type: ignore[method-assign]


def worker(work: Callable[[str], object], root: str) -> None:
    """The body of a forked process: make what is missing, then leave without farewell."""
    status = 1
    try:
        work(root)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def wait_for_shards(log: str, size: int, count: int, pids: Sequence[int]) -> None:
    """Wait until a log has grown by some lines, or all workers have ended by themselves.

    It is an error if that takes five minutes.
    """
    deadline = time.monotonic() + 300
    while count and not all(has_ended(pid) for pid in pids):
        with open(log, "rb") as file:
            file.seek(size)
            if file.read().count(b"\n") >= count:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the workers have not begun {count} shards")
        time.sleep(0.002)


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it is left for `waitpid`."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def serve(work: Callable[[str], object], log: str) -> None:
    """Obey commands until standard input ends; `work` fills the tables at a root."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(work, log, json.loads(line))), flush=True)


def obey(work: Callable[[str], object], log: str, command: dict[str, Any]) -> dict[str, Any]:
    """Run one command; the answer names the signal or exit status of each worker."""
    size = os.stat(log).st_size
    started = time.monotonic()
    pids = []
    for _ in range(command["workers"]):
        pid = os.fork()
        if pid == 0:
            worker(work, command["root"])
        pids.append(pid)
    if command["kill"] is not None:
        wait_for_shards(log, size, command["kill"]["shards"], pids)
        time.sleep(command["kill"]["seconds"])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return {"ends": ends, "seconds": time.monotonic() - started}


def main(profile_json: str, collection: str, log: str) -> None:
    """Backfill captions on command."""
    from flows import running

    profile = Profile.model_validate_json(profile_json)
    without_prefect()
    note_shards(log, CaptionStage)
    load_captioner(profile.captioner)

    def backfill(root: str) -> None:
        own = profile.model_copy(update={"root": root})
        running.run_stage(caption_stage(own, collection), running.RunLog())

    serve(backfill, log)


if __name__ == "__main__":
    main(*sys.argv[1:])
