"""Every deployment of prefect.yaml can really be run with the parameters that it ships."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.commands.run import FLOWS
from deployments.flow_parameters import parameter_texts
from deployments.stack.resources import POOLS

FILE = Path(__file__).resolve().parents[2] / "prefect.yaml"
CONTENT = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = CONTENT["deployments"]


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_its_parameters_fit_the_flow(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    given = deployment.get("parameters", {})
    parameters = inspect.signature(flow.fn).parameters
    assert set(given) <= set(parameters)
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    assert required <= set(given)
    flow.validate_parameters(given)
    assert deployment["description"].endswith(".")
    assert deployment["tags"]
    assert deployment["enforce_parameter_schema"] is True


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_its_pool_is_made_and_its_schedules_are_off(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["name"] in {*POOLS, "{{ $CIRFLOW_HEAVY_POOL }}"}
    schedules = deployment.get("schedules", [])
    assert [s["active"] for s in schedules] == [False] * len(schedules)
    assert all(s["slug"] and s["timezone"] for s in schedules)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_runs_of_an_added_schedule_do_not_pile_up(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"]["limit"] in (1, 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [("ingest", "every day, 01:00 UTC."), ("nightly", "every day, 02:00 UTC."),
     ("evaluate-matrix", "Sundays, 04:00 UTC.")],
)  # fmt: skip
def test_a_schedule_says_when_it_fires(name: str, said: str) -> None:
    """The UI's list shows names and descriptions, no hours."""
    (deployment,) = [d for d in DEPLOYMENTS if d["name"] == name]
    assert deployment["description"].endswith(f"Schedule: {said}")
    (schedule,) = deployment["schedules"]
    minute, hour, *_, weekday = schedule["cron"].split()
    assert f"{int(hour):02}:{int(minute):02} {schedule['timezone']}." in said
    assert {"*": "every day", "0": "Sundays"}[weekday] in said
    assert {d["name"] for d in DEPLOYMENTS if "schedules" in d} == {
        "ingest", "nightly", "evaluate-matrix"
    }  # fmt: skip


def test_every_flow_of_the_command_line_has_a_deployment() -> None:
    deployed = {d["entrypoint"] for d in DEPLOYMENTS}
    assert {f"{entry.module}.{entry.function}" for entry in FLOWS.values()} <= deployed
    names = [(d["entrypoint"], d["name"]) for d in DEPLOYMENTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_the_dialog_explains_every_parameter(deployment: dict[str, Any]) -> None:
    """A text is in the docstring's `Args`, of the setting, or of the group of fields."""
    flow = flow_of(deployment)
    texts = dict(parameter_texts(flow))
    assert [n for n in inspect.signature(flow.fn).parameters if not texts[n]] == []
