"""Publish the folder of a training once, and find it again by its content."""

from __future__ import annotations

import functools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from storage.locations import manifest
from storage.locations.location import Location
from storage.tables.keys import content_key
from tasks import progress
from tasks.cached import shown_as_cached
from tasks.redacted import redacting
from tasks.training.curve_artifacts import show_losses
from tasks.training.spent import FILE, cost_file

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Job(ABC):
    """A training by its inputs. Everything in a job but `root` changes the files.

    Attributes:
        root: where the folder is published.
    """

    KIND: ClassVar[str]
    """The folder of `checkpoints` that holds the results of all such jobs."""
    LAST: ClassVar[str] = "config.json"
    """The file that is written last: it says that the folder is complete."""

    root: str

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The identity of the result."""

    @cached_property
    def key(self) -> str:
        """Content key of the result."""
        return content_key(self.spec)

    @property
    def folder(self) -> str:
        """The folder below the root."""
        return f"checkpoints/{self.KIND}/{self.key}"

    @property
    def place(self) -> str:
        """The whole address of the folder."""
        return Location(self.root).join(self.folder)

    def require_host(self) -> None:  # noqa: B027 - most trainings run where `RunSettings` say
        """Refuse a device of the job's own that is not there; nothing heavy is imported.

        Raises:
            ValueError: Names the device.
        """

    @property
    def is_published(self) -> bool:
        """Whether the folder is complete."""
        return Location(self.root).exists(f"{self.folder}/{self.LAST}")


def publishing_once(title: str) -> Callable[[Callable[Concatenate[Any, P], R]], Task[..., Any]]:
    """Make a Prefect task of a function whose first argument is a job.

    The function skips a published job, which then shows as Cached. Prefect stores no result.
    """

    def make(function: Callable[Concatenate[Any, P], R]) -> Task[..., Any]:
        @functools.wraps(function)
        def run(job: Job, *args: P.args, **kwargs: P.kwargs) -> R | State[R]:
            before = job.is_published
            result = function(job, *args, **kwargs)
            return shown_as_cached(result) if before else result

        return task(task_run_name=title, cache_policy=NO_CACHE, persist_result=False)(
            redacting(run)
        )

    return make


def publish(job: Job, files: Mapping[str, bytes | Path]) -> None:
    """Create the files of a job's folder, `job.LAST` after the others; existing files stay.

    Args:
        job: The training.
        files: File name -> its bytes, or a local file that holds them.
    """
    location = Location(job.root)
    for name in sorted(files, key=lambda name: (name == job.LAST, name)):
        content = files[name]
        data = content.read_bytes() if isinstance(content, Path) else content
        manifest.publish(location, f"{job.folder}/{name}", data)


def result_of(job: Job, record: str = "provenance") -> dict[str, Any]:
    """Where a published network lies, and the numbers of its training.

    Args:
        job: Published.
        record: The part of its configuration that holds them.
    """
    config = json.loads(Location(job.root).read_bytes(f"{job.folder}/{job.LAST}"))
    return {"checkpoint": job.place, **config[record]["summary"]}


class Training(Protocol):
    """A training in this process, whose state is one file."""

    @property
    def step(self) -> int:
        """Steps taken."""

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""

    @property
    def losses(self) -> Sequence[float]:
        """Losses of the last steps; the steps before a resumed state may be missing."""

    def run(self, until: int | None = None) -> object:
        """Train up to a step."""

    def save(self) -> bytes:
        """The state."""

    def load(self, data: bytes) -> None:
        """Continue from a state."""


def train_and_publish(
    job: Job,
    training: Training,
    files: Callable[[], Mapping[str, bytes]],
    *,
    title: str,
    state: str,
    save_every: int,
) -> None:
    """Train from the last saved state to the end and publish; the loss is shown in Prefect's UI.

    Args:
        job: The training.
        training: At its first step.
        files: The files to publish, asked for after the last step.
        title: The result in words.
        state: File below the job's root that holds the state until the job is published.
        save_every: Steps between two saved states, which a crash loses at most.
    """
    location = Location(job.root)
    clock, seconds = f"{state}.seconds", 0.0
    if location.exists(state):
        training.load(location.read_bytes(state))
        seconds = float(location.read_bytes(clock)) if location.exists(clock) else 0.0
        progress.tick(training.step)
    while not training.done:
        before, started = training.step, time.monotonic()
        training.run(before + save_every)
        location.replace(state, training.save())
        seconds += time.monotonic() - started
        location.replace(clock, f"{seconds:.3f}".encode())
        progress.tick(training.step - before)
    publish(job, {**files(), FILE: cost_file(seconds)})
    location.remove(state)
    location.remove(clock)
    first = training.step - len(training.losses) + 1
    show_losses(f"{job.KIND} {job.key}", title, first, training.losses, job.place)
