"""The state of a task whose work was done before: it shows as Cached, and nothing is stored."""

from __future__ import annotations

from typing import TypeVar

from prefect.states import Completed, State

R = TypeVar("R")


def shown_as_cached(result: R) -> State[R]:
    """A final state with the result of a task that found its work published."""
    return Completed(name="Cached", message="it is published already", data=result)
