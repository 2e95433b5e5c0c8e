"""A stage's progress in Prefect's UI: an artifact for each stage of a run that takes a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from tasks.artifact_keys import artifact_key

SECONDS_BETWEEN: Final = 10.0


class Bar:
    """The artifact of one stage, made once it has gone on for a while: short stages leave none."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._artifact: UUID | None = None
        self._last = time.monotonic()

    def show(self, percent: float) -> None:
        """Update it, unless that was done a moment ago."""
        due = time.monotonic() - self._last >= SECONDS_BETWEEN
        if due and FlowRunContext.get() is not None:
            self._last = time.monotonic()
            self._send(percent)

    def end(self) -> None:
        """Leave a full bar where there is one."""
        if self._artifact is not None:
            self._send(100.0)

    def _send(self, percent: float) -> None:
        """Tell the server; a failed update is left to the next one, and no stage fails for it."""
        shown = min(100.0, percent)
        with suppress(httpx.HTTPError, OSError):
            if self._artifact is None:
                key = artifact_key("progress", self._title)
                made: Any = create_progress_artifact(shown, key=key, description=self._title)
                self._artifact = made
            else:
                update_progress_artifact(self._artifact, shown)


@contextmanager
def progress_artifact(title: str) -> Iterator[Bar]:
    """A bar for a stage; outside a flow run it stays silent."""
    bar = Bar(title)
    yield bar
    bar.end()
