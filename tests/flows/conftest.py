"""Flows run for real here, against one temporary Prefect server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def prefect_results(prefect_api: None, tmp_path: Path) -> Iterator[Path]:
    """An empty folder for Prefect's records of results; without it they lie in the home folder."""
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    folder = tmp_path / "prefect-results"
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: folder}):
        yield folder


@pytest.fixture
def task_states(prefect_results: Path) -> Callable[[str], dict[str, str]]:
    """Flow run name -> what the UI shows of its newest run: task run name -> state name."""
    import time

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    def read(flow_run_name: str) -> dict[str, str]:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[flow_run_name]))
        with get_client(sync_client=True) as client:
            newest = client.read_flow_runs(
                flow_run_filter=named, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1
            )[0]
            only = FlowRunFilter.model_validate({"id": {"any_": [newest.id]}})
            deadline = time.monotonic() + 300
            while True:  # task states reach the server a little later than the flow's end
                runs = client.read_task_runs(flow_run_filter=only)
                if runs and all(run.state and run.state.is_final() for run in runs):
                    return {run.name: run.state.name for run in runs if run.state}
                assert time.monotonic() < deadline, runs
                time.sleep(0.2)

    return read
