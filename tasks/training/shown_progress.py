"""The progress of a running training, in the terminal and in Prefect's UI."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tasks import progress

_SECONDS_BETWEEN_UPDATES: Final = 10.0


class ShownProgress:
    """Shows a running training in the terminal, and in Prefect's UI where a task runs."""

    def __init__(
        self,
        key: str,
        steps: int,
        second: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shown yet.

        Args:
            key: Of the network.
            steps: Optimiser steps of stage one.
            second: Duration of stage two, in units of such steps.
            clock: Seconds from some point on.
        """
        self._key = key
        self._steps, self._second = steps, second
        self._clock = clock
        self._done = 0
        self._next = 0.0
        self._artifact: UUID | None = None

    def __enter__(self) -> ShownProgress:
        if TaskRunContext.get() is not None:
            made = None
            with suppress(httpx.HTTPError, OSError):  # training continues without a bar
                made = create_progress_artifact(
                    0.0, key=f"training-{self._key}", description="steps of the training"
                )
            self._artifact = made if isinstance(made, UUID) else None  # sync inside a sync task
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def report(self, step: int, total: int, loss: float) -> None:
        """Note that steps were taken."""
        self._show(step, f"step {step:,} of {total:,}, loss {loss:.3f}")

    def embedded(self, count: int, total: int) -> None:
        """Note how many training examples of stage two are embedded."""
        text = f"combiner: {count:,} of {total:,} queries and images"
        self._show(self._steps + self._second * count // total, text)

    def _show(self, done: int, text: str) -> None:
        whole = self._steps + self._second
        progress.tick(done - self._done)
        self._done = done
        now = self._clock()
        if self._artifact is None or (now < self._next and done < whole):
            return
        self._next = now + _SECONDS_BETWEEN_UPDATES
        with suppress(httpx.HTTPError, OSError):
            update_progress_artifact(
                self._artifact,
                progress=100.0 * done / whole,
                description=text,
            )
