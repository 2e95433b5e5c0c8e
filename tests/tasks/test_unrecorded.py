"""An unrecorded run calls tasks as functions, asks no server, and makes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, State

from tasks.artifacts import publish_markdown
from tasks.cached import shown_as_cached
from tasks.unrecorded import (
    WorkToDo,
    about_to_make,
    is_unrecorded,
    run_subflow,
    run_task,
    run_unrecorded,
)


@pytest.fixture(autouse=True)
def no_server() -> Any:
    """Whatever asks a server fails at once."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield


@task
def double(number: int) -> int:
    return 2 * number


@task
def published(number: int) -> int | State[int]:
    return shown_as_cached(number)


@flow
def inner(number: int) -> State[Any]:
    return Completed(message="done", data=run_task(double, number))


@flow
def outer(number: int, missing: str = "") -> dict[str, Any]:
    assert is_unrecorded()
    publish_markdown("a-key", "a text", "a page")
    if missing:
        about_to_make(missing)
    return {"inner": run_subflow(inner, number=number), "published": run_task(published, 3)}


def test_tasks_flows_and_states_give_their_results() -> None:
    assert run_unrecorded(outer, {"number": "4"}) == {"inner": 8, "published": 3}
    assert not is_unrecorded()


def test_it_stops_before_something_is_made() -> None:
    with pytest.raises(WorkToDo, match="captions of photos"):
        run_unrecorded(outer, {"number": 4, "missing": "captions of photos"})
    assert not is_unrecorded()
    about_to_make("captions of photos")  # a recorded run makes it
