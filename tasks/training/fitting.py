"""Train a Lightning job once: held by one process, resumed, kept until it is published."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tasks.training.folder import History
from tasks.training.lightning_job import LightningJob
from tasks.training.run_settings import RunSettings
from tasks.training.shown_progress import ShownProgress

if TYPE_CHECKING:
    from models.training.batches import TrainingData

Finish: TypeAlias = "Callable[[TrainingData, History, Path, ShownProgress], None]"
"""Makes and publishes the result from the data, the history and the file of the kept weights."""


def train_once_in_folder(job: LightningJob, run: RunSettings, finish: Finish) -> None:
    """Train from the last saved state and finish, unless the job is published.

    No more than one process of a machine does so at a time. The state is removed after `finish`.

    Raises:
        TrainingHeld: another process is at it.
    """
    folder = job.training_folder
    with folder.held():
        if job.is_published:  # by a process that held the folder until now
            return
        job.settings.share(run.devices)  # refused before anything is decoded
        folder.fetch()
        with ShownProgress(job.key, *job.amounts()) as shown:
            data, history = _fitted(job, run, shown)
            finish(data, history, folder.path / history.kept["file"], shown)
        folder.clear()


def _fitted(
    job: LightningJob, run: RunSettings, shown: ShownProgress
) -> tuple[TrainingData, History]:
    """Train, if that is not finished; the network that was trained ends with this."""
    # Torch takes seconds to import: a rerun that has nothing to do does without.
    from tasks.training.launcher import train_in_processes
    from tasks.training.trainer import fit

    folder = job.training_folder
    network = job.new_network()
    data = job.load_data(run, network)
    history = folder.finished()
    if history is None and run.devices == 1:
        fit(job, run, data, network, shown.report)
    elif history is None:
        train_in_processes(job, run, shown.report)
    del network
    gc.collect()  # Lightning's trainer holds it in a circle
    history = folder.finished()
    if history is None:
        raise RuntimeError(f"the training in {folder.path} stopped before its end; run it again")
    return data, history
