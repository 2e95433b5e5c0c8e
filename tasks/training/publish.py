"""Tasks that make a folder of files once: trainings, whose results are found again by content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from prefect import Task, task

from storage.locations.location import Location
from storage.tables.keys import content_key
from tasks.plain_results import PLAIN_JSON

P = ParamSpec("P")
R = TypeVar("R")


class Job(Protocol):
    """What is made, and where."""

    @property
    def root(self) -> str:
        """Where the folder lies."""

    @property
    def folder(self) -> str:
        """The folder below the root; its name follows from what is made."""

    @property
    def is_published(self) -> bool:
        """Whether all of it is there."""


def _key(context: Any, parameters: dict[str, Any]) -> str | None:
    """A result names a folder, so the same job at another root is another result."""
    job: Job = parameters["job"]
    return content_key([str(Location(job.root)), job.folder]) if job.is_published else None


def publishing_once(title: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a task of a function whose argument `job` is a `Job`; reused once it is published."""
    return task(
        task_run_name=title,
        cache_key_fn=_key,
        persist_result=True,
        result_serializer=PLAIN_JSON,
    )
