"""An unrecorded run calls tasks as functions, asks no server, and makes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from prefect import Flow, State


@pytest.fixture(autouse=True)
def no_server() -> Iterator[None]:
    """Whatever asks a server fails at once."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield


@pytest.fixture
def outer() -> Flow[..., Any]:
    """A flow with tasks, an artifact and a flow that is a part of it."""
    from prefect import flow, task
    from prefect.states import Completed

    from tasks.artifacts import publish_markdown
    from tasks.cached import shown_as_cached
    from tasks.unrecorded import about_to_make, is_unrecorded, run_subflow, run_task

    @task
    def double(number: int) -> int:
        return 2 * number

    @task
    def published(number: int) -> Any:
        return shown_as_cached(number)

    @flow
    def inner(number: int) -> Any:
        ended: State[int] = Completed(message="done", data=run_task(double, number))
        return ended

    @flow
    def whole(number: int, missing: str = "") -> dict[str, Any]:
        assert is_unrecorded()
        publish_markdown("a-key", "a text", "a page")
        if missing:
            about_to_make(missing)
        return {"inner": run_subflow(inner, number=number), "published": run_task(published, 3)}

    return whole


def test_tasks_flows_and_states_give_their_results(outer: Flow[..., Any]) -> None:
    from tasks.unrecorded import is_unrecorded, run_unrecorded

    assert run_unrecorded(outer, {"number": "4"}) == {"inner": 8, "published": 3}
    assert not is_unrecorded()


def test_it_stops_before_something_is_made(outer: Flow[..., Any]) -> None:
    from tasks.unrecorded import WorkToDo, about_to_make, is_unrecorded, run_unrecorded

    with pytest.raises(WorkToDo, match="captions of photos"):
        run_unrecorded(outer, {"number": 4, "missing": "captions of photos"})
    assert not is_unrecorded()
    about_to_make("captions of photos")  # a recorded run makes it
