"""A process that forks trainings, so that tests can kill many of them cheaply.

Run as ``python -m tests.fakes.reformulation_runs LOG``; it obeys the commands of
`tests.fakes.caption_backfill`, where a shard is a step: each appends a line to LOG. A command's
root is a file of a job and its kind: the training at the job's root, from its last saved state to
its published end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tasks.training import instructcir as reformulation_training
from tasks.training.compodiff import CompoDiffJob, train_denoiser
from tasks.training.composed import ComposedJob, train_composed_network
from tasks.training.reformulation_job import ReformulationJob
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress
from tests.fakes.caption_backfill import serve

RUN = RunSettings(accelerator="cpu", save_steps=3, log_steps=1, loggers=())


KINDS: dict[str, tuple[type[Any], Callable[..., object]]] = {
    ReformulationJob.KIND: (ReformulationJob, reformulation_training._train_and_publish),
    ComposedJob.KIND: (ComposedJob, train_composed_network.fn),
    CompoDiffJob.KIND: (CompoDiffJob, train_denoiser.fn),
}
"""Kind of a job -> its type, and what trains and publishes it."""


def main(log: str) -> None:
    """Train on command."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    # Whatever is imported late is imported here, once for all forks.
    import tasks.training.launcher  # noqa: F401

    def report(self: ShownProgress, step: int, total: int, loss: float) -> None:
        os.write(file, f"{step}\n".encode())

    ShownProgress.report = report  # type: ignore[method-assign]

    def train(job_file: str) -> None:
        asked = json.loads(Path(job_file).read_text())
        job_type, train_and_publish = KINDS[asked["kind"]]
        train_and_publish(TypeAdapter(job_type).validate_python(asked["job"]), RUN, {})

    serve(train, log)


if __name__ == "__main__":
    main(*sys.argv[1:])
