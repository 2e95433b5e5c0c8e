"""Trainings of small networks: how they run, and how they are stopped on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from tasks.training.composed import ComposedJob
    from tasks.training.folder import History
    from tasks.training.reformulation_job import ReformulationJob
    from tasks.training.run_settings import RunSettings
    from tasks.training.triplet_sets import TripletSet

NOISE = ("in_proj_bias", "key.bias")
"""A shift of all keys changes nothing, so that the gradient is that of rounding."""

Train: TypeAlias = "Callable[..., tuple[History, dict[str, Any]]]"
"""Runs stage one of a job; returns its history and kept weights."""


def run_settings(**changes: Any) -> RunSettings:
    """Train on the CPU, without logs, and save every third step."""
    from tasks.training.run_settings import RunSettings

    return RunSettings(
        **{"accelerator": "cpu", "log_steps": 1, "save_steps": 3, "loggers": ()} | changes
    )


def silent(step: int, total: int, loss: float) -> None:
    """Report nothing."""


def job_at(root: Path, triplets: TripletSet, **changes: Any) -> ReformulationJob:
    """A small job whose files lie in a folder."""
    from tests.fakes.triplet_tables import small_job  # slow to import

    return small_job(str(root), triplets, **changes)


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def stop_after(steps: int) -> Callable[[int, int, float], None]:
    """A report that ends the process at a step."""

    def report(step: int, total: int, loss: float) -> None:
        if step == steps:
            raise Interrupted

    return report


def composed_job(
    name: str,
    root: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
    own: Mapping[str, Any],
    training: Mapping[str, Any],
    start: str = "",
    label: str = "",
) -> ComposedJob:
    """A job that trains a composed query encoder.

    Args:
        name: Of the system.
        root: Where its files lie.
        triplets: What it is trained on.
        clip: Its backbone.
        own: Values of the system's settings.
        training: Values of its training's settings.
        start: Folder of the network that it continues; empty: none.
        label: Benchmark whose texts the triplets hold; empty: none.
    """
    from models.composed.registry import system
    from tasks.training.composed import ComposedJob

    record = system(name)
    settings, chosen = record.settings(**own), record.training.changed(**training)
    return ComposedJob.of(str(root), name, triplets, clip, settings, chosen, label, start)


def published_folder(job: ComposedJob, stop: int = 0, **run: Any) -> Path:
    """The folder of a trained network.

    Args:
        job: The training.
        stop: The step at which it is interrupted; 0: it is not.
        run: Values of `RunSettings`.
    """
    from tasks.training.composed import train_composed_network
    from tasks.training.run_settings import RunSettings
    from tasks.training.shown_progress import ShownProgress

    def report(self: ShownProgress, step: int, total: int, loss: float) -> None:
        if step == stop:
            raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        if stop:
            patch.setattr(ShownProgress, "report", report)
        train_composed_network.fn(job, RunSettings(accelerator="cpu", loggers=(), **run), {})
    return Path(job.root, job.folder)
