"""A training of a mapping network, or the making of a table, as a process that may be killed.

Run as ``python -m tests.fakes.killed_processes KIND JSON``: it does the work, a line on standard
output for each step or shard that begins, and leaves with 0. `killed` runs it from a test.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

REPOSITORY = Path(__file__).resolve().parents[2]


def killed(kind: str, argument: str, done: Callable[[], bool], kills: int) -> int:
    """Run a process again and again, killed at random moments, and at last to its end.

    Returns:
        Steps or shards that were begun.
    """
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # shown when the test fails
    command = [sys.executable, "-m", "tests.fakes.killed_processes", kind, argument]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    taken = 0
    for number in range(kills + 1):
        with subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = chance.randint(1, 3)
            for line in process.stdout:
                taken += line.startswith(("step", "shard"))
                lines -= 1
                if not lines and number < kills:
                    time.sleep(chance.random() * 0.1)
                    process.send_signal(signal.SIGKILL)
            ended = process.wait()
        assert ended in ((0, -signal.SIGKILL) if number < kills else (0,))
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


def main(kind: str, argument: str) -> None:
    """Do the work of a kind: the name of a job's or of a stage's class."""
    from tasks.stages.edited_pictures import EditedPictureStage
    from tasks.stages.pseudo_tokens import OtiTokenStage
    from tasks.stages.rerank_scores import RerankScoreStage
    from tasks.training.inversion import InversionJob
    from tasks.training.palavra import PalavraJob

    jobs = {each.__name__: each for each in (InversionJob, PalavraJob)}
    stages = (OtiTokenStage, EditedPictureStage, RerankScoreStage)
    if kind in jobs:
        train(jobs[kind], argument)
    else:
        fill({each.__name__: each for each in stages}[kind], argument)


if __name__ == "__main__":
    main(*sys.argv[1:])
