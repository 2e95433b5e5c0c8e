"""A training of a mapping network, or the making of a table, in processes that may be killed.

``python -m tests.fakes.killed_processes`` imports what the work needs and then forks a process for
each line of its input, a JSON list of a kind and its argument. That process says "pid N", does the
work with a line for each step or shard that begins, and ends; then the parent says "ended STATUS".
Tests drive it by `killed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

REPOSITORY = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def killable_processes() -> Iterator[subprocess.Popen[str]]:
    """The parent of processes that may be killed; one serves many tests."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.killed_processes"],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        yield parent
        assert parent.stdin is not None
        parent.stdin.close()


def killed(
    parent: subprocess.Popen[str], kind: str, argument: str, done: Callable[[], bool], kills: int
) -> int:
    """Run a process again and again, killed at random moments, and at last to its end.

    Returns:
        Steps or shards that were begun.
    """
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # shown when the test fails
    assert parent.stdin is not None
    assert parent.stdout is not None
    taken = 0
    for number in range(kills + 1):
        parent.stdin.write(json.dumps([kind, argument]) + "\n")
        parent.stdin.flush()
        pid, lines, status = 0, chance.randint(1, 3), 1
        for line in parent.stdout:
            said, _, value = line.partition(" ")
            if said == "ended":
                status = int(value)
                break
            if said == "pid":
                pid = int(value)
            taken += said in ("step", "shard")
            lines -= said in ("step", "shard")
            if lines <= 0 and number < kills and pid:
                time.sleep(chance.random() * 0.1)
                with contextlib.suppress(ProcessLookupError):  # it had just ended
                    os.kill(pid, signal.SIGKILL)
                pid = 0
        assert status in ((0, -signal.SIGKILL) if number < kills else (0,))
        if done():
            break
    assert done()
    return taken


def train(job_type: type[Any], job_json: str) -> None:
    """Train and publish a job."""
    from tasks.training.inversion import train_inversion
    from tasks.training.run_settings import RunSettings
    from tasks.training.shown_progress import ShownProgress

    job = TypeAdapter(job_type).validate_json(job_json)
    run = RunSettings(accelerator="cpu", log_steps=1, save_steps=2, loggers=())
    report = ShownProgress.report

    def reporting(self: ShownProgress, step: int, total: int, loss: float) -> None:
        print("step", step, flush=True)
        report(self, step, total, loss)

    ShownProgress.report = reporting  # type: ignore[method-assign]
    train_inversion.fn(job, run)


def fill(stage_type: type[Any], stage_json: str) -> None:
    """Make the missing shards of a stage, and those of the stages behind it."""
    from tasks.stages.stage import in_order

    for stage in in_order([stage_type.model_validate_json(stage_json)]):
        table = stage.table()
        for shard in table.plan(stage.planned(), stage.shard_size).shards:
            print("shard", stage.table_name, flush=True)
            table.publish(shard, stage.rows(shard.members, lambda count: None))


def main() -> None:
    """Work on command. A kind is the name of a job's or of a stage's class."""
    # Whatever is imported late is imported here, once for all forks.
    import tasks.training.launcher  # noqa: F401
    from tasks.stages.edited_pictures import EditedPictureStage
    from tasks.stages.pseudo_tokens import OtiTokenStage
    from tasks.stages.rerank_scores import RerankScoreStage
    from tasks.training.inversion import InversionJob
    from tasks.training.palavra import PalavraJob
    from tests.fakes.caption_backfill import worker

    jobs = {each.__name__: each for each in (InversionJob, PalavraJob)}
    stages = {each.__name__: each for each in (OtiTokenStage, EditedPictureStage, RerankScoreStage)}

    def work(command: str) -> None:
        print("pid", os.getpid(), flush=True)
        kind, argument = json.loads(command)
        if kind in jobs:
            train(jobs[kind], argument)
        else:
            fill(stages[kind], argument)

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            worker(work, line)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
