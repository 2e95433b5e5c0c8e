"""Runs that Prefect need not know: where everything exists already, a flow only looks it up.

An unrecorded flow does the same in the same order, but its tasks are plain calls and it leaves no
artifact. Before the first thing is made it raises `WorkToDo`: the caller then starts Prefect and
runs the flow as usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, Task
from prefect.states import State

P = ParamSpec("P")
R = TypeVar("R")

_UNRECORDED: ContextVar[bool] = ContextVar("unrecorded", default=False)


class WorkToDo(Exception):
    """An unrecorded run came to something that has to be made."""


def is_unrecorded() -> bool:
    """Whether the run that this code belongs to is unrecorded."""
    return _UNRECORDED.get()


def about_to_make(what: str) -> None:
    """Say that something is to be made now.

    Raises:
        WorkToDo: the run is unrecorded.
    """
    if is_unrecorded():
        raise WorkToDo(what)


def run_unrecorded(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    """The result of a flow of which everything exists already.

    Raises:
        WorkToDo: something is to be made.
    """
    token = _UNRECORDED.set(True)
    try:
        return _called(flow, parameters)
    finally:
        _UNRECORDED.reset(token)


def run_subflow(flow: Flow[..., Any], **parameters: Any) -> Any:
    """The result of a flow that is a part of another one."""
    return _called(flow, parameters) if is_unrecorded() else flow(**parameters)


def run_task(task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Any:
    """The result of a task; it raises what the task raised."""
    if is_unrecorded():
        return _result(task.fn(*args, **kwargs))
    ended: Any = task(*args, **kwargs, return_state=True)
    return ended.result()


def _called(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    return _result(flow.fn(**flow.validate_parameters(dict(parameters))))


def _result(made: Any) -> Any:
    return made.result() if isinstance(made, State) else made
