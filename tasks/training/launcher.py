"""A training in processes of its own, as several devices need it.

Lightning starts one process for each device by running the program again. That must not be the
command line with its Prefect flow, so it is this module: it reads a job from a file, trains, and
prints a JSON line for each step.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from pydantic import TypeAdapter

from tasks.training.callbacks import Report
from tasks.training.lightning_job import LightningJob
from tasks.training.run_settings import RunSettings
from tasks.training.trainer import train_here

_JOB_FILE = "job.json"


def train_in_processes(job: LightningJob, run: RunSettings, report: Report) -> None:
    """Train in other processes, whose reports this one passes on.

    Raises:
        RuntimeError: they failed; their own messages are on the error stream.
    """
    folder = job.training_folder
    folder.make()
    path = folder.path
    kind = type(job)
    both = {
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "job": TypeAdapter(kind).dump_python(job, mode="json"),
        "run": run.model_dump(mode="json"),
    }
    (path / _JOB_FILE).write_text(json.dumps(both), encoding="utf-8")
    command = [sys.executable, "-m", "tasks.training.launcher", str(path / _JOB_FILE)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"step"'):
                report(*json.loads(line).values())
    if process.returncode:
        raise RuntimeError(
            f"training on {run.devices} devices ended with {process.returncode}; the error "
            "is printed above. Run again: the training resumes from its last saved state"
        )


def main(path: str) -> None:
    """Train the job of a file, for as long as the process that asked for it lives."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    both = json.loads(Path(path).read_text(encoding="utf-8"))
    module, _, name = both["kind"].partition(":")
    job = TypeAdapter(getattr(importlib.import_module(module), name)).validate_python(both["job"])
    run = RunSettings.model_validate(both["run"])
    train_here(job, run, _print)


def _leave_with_parent() -> None:
    """End this process, whatever it waits for, when the standard input that all share closes."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _print(step: int, total: int, loss: float) -> None:
    print(json.dumps({"step": step, "total": total, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
