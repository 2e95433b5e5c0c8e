"""A stage's progress in Prefect's UI: one progress artifact for each stage of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from tasks.artifacts import artifact_key

SECONDS_BETWEEN: Final = 10.0


class Bar:
    """The artifact of one stage; what the server does not take is told the next time."""

    def __init__(self, artifact: UUID | None) -> None:
        self._artifact = artifact
        self._last = time.monotonic()

    def show(self, percent: float, *, now: bool = False) -> None:
        """Update it, unless that was done a moment ago."""
        if self._artifact is None:
            return
        if not now and time.monotonic() - self._last < SECONDS_BETWEEN:
            return
        self._last = time.monotonic()
        try:
            update_progress_artifact(self._artifact, min(100.0, percent))
        except (httpx.HTTPError, OSError):
            return


@contextmanager
def progress_artifact(title: str, todo: int) -> Iterator[Bar]:
    """A bar for a stage that has something to do, inside a flow run; a silent one elsewhere."""
    artifact: Any = None
    if todo and FlowRunContext.get() is not None:
        key = artifact_key("progress", title)
        with suppress(httpx.HTTPError, OSError):  # no stage fails for the lack of a bar
            artifact = create_progress_artifact(0.0, key=key, description=title)
    bar = Bar(artifact)
    yield bar
    bar.show(100.0, now=True)
