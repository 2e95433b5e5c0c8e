"""Registering twice makes everything once."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.errors import UserError
from deployments.stack import register
from deployments.stack.job_templates import Images
from deployments.stack.resources import LIMITS, POOLS, ensure_resources
from deployments.stack.secret_blocks import ensure_secret_blocks
from deployments.stack.unresponsive_runs import NAME, crash_rule, ensure_crash_rule


class Server:
    """Stand-in for a server's client: keeps what it is given."""

    def __init__(self) -> None:
        self.pools: list[Any] = []
        self.limits: list[Any] = []
        self.automations: list[Any] = []

    def read_work_pools(self, limit: int) -> list[Any]:
        return self.pools

    def read_global_concurrency_limits(self, limit: int, offset: int) -> list[Any]:
        return self.limits

    def create_work_pool(self, pool: Any) -> None:
        self.pools.append(pool)

    def create_global_concurrency_limit(self, limit: Any) -> None:
        self.limits.append(limit)

    def read_automations_by_name(self, name: str) -> list[Any]:
        return [automation for automation in self.automations if automation.name == name]

    def create_automation(self, automation: Any) -> None:
        self.automations.append(automation)


def test_pools_of_pods_are_made_once_with_our_templates() -> None:
    server: Any = Server()
    images = Images("a:1.0", "b:1.0")
    made = ensure_resources(server, "kubernetes", images)
    assert made.pools == tuple(POOLS)
    assert made.limits == tuple(LIMITS)
    assert made.rules == (NAME,)
    for pool in server.pools:
        assert pool.type == "kubernetes"
        pod = pool.base_job_template["job_configuration"]["job_manifest"]["spec"]["template"]
        image = pod["spec"]["containers"][0]["image"]
        assert image == ("b:1.0" if pool.name == "gpu" else "a:1.0")
    again = ensure_resources(server, "kubernetes", images)
    assert again.pools == again.limits == again.rules == ()
    assert list(again.lines()) == []
    assert len(server.pools) == len(POOLS)


def test_the_rule_for_dead_runs_is_made_once_and_waits_for_three_heartbeats() -> None:
    server: Any = Server()
    assert ensure_crash_rule(server) is True
    assert ensure_crash_rule(server) is False
    assert [automation.name for automation in server.automations] == [NAME]
    rule: Any = crash_rule()
    assert rule.trigger.within >= timedelta(seconds=3 * 180)
    assert rule.trigger.for_each == {"prefect.resource.id"}
    assert "prefect.flow-run.CompletedWithGaps" in rule.trigger.expect
    assert "prefect.flow-run.Suspended" in rule.trigger.expect  # it waits for a person
    assert rule.actions[0].state.value == "CRASHED"


def test_a_server_must_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert register.main([]) == 2
    assert "PREFECT_API_URL" in capsys.readouterr().err


def test_the_order_is_storage_then_resources_then_deployments(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server: Any = Server()
    done: list[Any] = []

    def registered(client: Any, environment: Any, say: Any) -> None:
        assert client is server
        assert len(server.pools) == len(POOLS)
        done.append(environment)

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(register, "server_client", lambda url: nullcontext(server))
    monkeypatch.setattr(register, "register_deployments", registered)
    monkeypatch.setattr(register, "offer_choices", lambda *given: done.append(given[1:]))
    root = str(tmp_path / "root")
    assert register.main(["--root", root, "--heavy-pool", "gpu", "--home", "/runs"]) == 0
    environment, offered = done
    assert offered == (root, Path("/runs"))
    assert environment["CIRFLOW_HEAVY_POOL"] == "gpu"
    assert environment["CIRFLOW_HOME"] == "/runs"
    assert environment["DO_NOT_TRACK"] == "1"
    said = capsys.readouterr().out.splitlines()
    assert said == [
        *(f"made the work pool {name}" for name in POOLS),
        *(f"made the limit {name}" for name in LIMITS),
        f"made the rule {NAME}",
    ]


def test_storage_that_publishes_twice_stops_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    fault = SimpleNamespace(is_local=True, root="/r", probe=lambda: "/r lets a second writer win")
    monkeypatch.setattr("deployments.stack.bucket.Location", lambda root: fault)
    assert register.main(["--root", "/r"]) == 2
    assert "If-None-Match" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    nobody = "http://127.0.0.1:9/api"
    monkeypatch.setenv("PREFECT_API_URL", nobody)
    with temporary_settings({PREFECT_API_URL: nobody, PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert register.main([]) == 2
    said = capsys.readouterr().err
    assert nobody in said
    assert "set PREFECT_API_URL" in said


def test_a_secret_without_a_value_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.exceptions import ObjectNotFound

    def missing(name: str, kind: str) -> None:
        assert (name, kind) == ("some-llm-key", "secret")
        raise ObjectNotFound(http_exc=ValueError())

    monkeypatch.delenv("SOME_LLM_KEY", raising=False)
    server: Any = SimpleNamespace(read_block_document_by_name=missing)
    with pytest.raises(UserError, match="SOME_LLM_KEY has no value here"):
        ensure_secret_blocks(server, ["SOME_LLM_KEY"], ["cpu"])
