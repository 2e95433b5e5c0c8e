"""The server refuses values that each run would refuse: in forms, for runs and for schedules."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from deployments.commands.run import FLOWS
from deployments.server.bodies import content
from deployments.server.own_parameters import own_faults
from deployments.server.parameters import CheckedParameters, faults
from deployments.server.run import checked

ID = "3f0e6d2e-9a3f-4f0e-8f5b-0a6d0a6d0a6d"
DEPLOYMENT = f"/api/deployments/{ID}"
SCHEDULE = f"{DEPLOYMENT}/schedules/9b0e6d2e-9a3f-4f0e-8f5b-0a6d0a6d0a6d"
FORM = "/api/ui/schemas/validate"
PAGE = f"http://127.0.0.1:4200/deployments/deployment/{ID}"
WRONG: dict[str, Any] = {"runs": 0}
FAULT = [{"property": "runs", "errors": ["0 is less than the minimum of 1"]}]


class Asked:
    """Prefect's application behind the check; it takes everything, and notes the bodies."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.app: Any = CheckedParameters(self.take)

    async def take(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.taken.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})

    def ask(
        self, method: str, path: str, body: Any, referer: str = "", password: bytes = b""
    ) -> tuple[int, str]:
        """The status and the text of the answer to one request."""
        headers = [(b"Referer", referer.encode())] if referer else []
        headers += [(b"authorization", password)] if password else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        whole = json.dumps(body).encode()
        parts = [
            {"type": "http.request", "body": whole[:7], "more_body": True},
            {"type": "http.request", "body": whole[7:], "more_body": False},
        ]
        said: list[Any] = []

        async def receive() -> Any:
            return parts.pop(0)

        async def send(message: Any) -> None:
            said.append(message)

        asyncio.run(self.app(scope, receive, send))
        return said[0]["status"], said[1]["body"].decode()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The check with a deployment whose `runs` must not be 0."""

    async def check(deployment: str, given: dict[str, Any], is_form: bool) -> list[Any]:
        assert UUID(deployment) == UUID(ID)
        return FAULT if given.get("runs") == 0 else []

    async def kept(deployment: str, schedule: str) -> dict[str, Any]:
        assert SCHEDULE.endswith(f"{deployment}/schedules/{schedule}")
        return {"collection": "photos"}

    monkeypatch.setattr("deployments.server.parameters._faults", check)
    monkeypatch.setattr("deployments.server.parameters._kept", kept)
    return Asked()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{DEPLOYMENT}/create_flow_run", {"parameters": WRONG}),
        ("POST", f"{DEPLOYMENT}/schedules", [{"parameters": {}}, {"parameters": WRONG}]),
        ("PATCH", SCHEDULE, {"parameters": WRONG, "active": True}),
        ("POST", f"{DEPLOYMENT}/create_flow_run/bulk", [{}, {"parameters": WRONG}]),
        ("POST", f"{DEPLOYMENT}/schedules".replace("-", ""), [{"parameters": WRONG}]),
        ("PATCH", SCHEDULE.replace("-", ""), {"parameters": WRONG}),
    ],
)
def test_wrong_values_are_refused_with_their_place(
    asked: Asked, method: str, path: str, body: Any
) -> None:
    status, text = asked.ask(method, path, body)
    assert (status, json.loads(text)) == (422, {"detail": f"runs: {FAULT[0]['errors'][0]}"})
    assert asked.taken == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{DEPLOYMENT}/create_flow_run", {"parameters": {"runs": 1}}),
        (
            "POST",
            f"{DEPLOYMENT}/create_flow_run",
            {"parameters": WRONG, "enforce_parameter_schema": False},
        ),
        ("PATCH", SCHEDULE, {"active": True, "parameters": {}}),
        ("PATCH", SCHEDULE, {"active": False, "parameters": WRONG}),
        ("PATCH", DEPLOYMENT, {"parameters": WRONG}),
        ("POST", "/api/flow_runs/filter", {"parameters": WRONG}),
        ("POST", f"{DEPLOYMENT}/create_flow_run", "no object"),
        ("POST", FORM, {"schema": {}, "values": WRONG}),
    ],
)
def test_everything_else_goes_on_to_prefect_as_it_came(
    asked: Asked, method: str, path: str, body: Any
) -> None:
    assert asked.ask(method, path, body) == (200, "inside")
    assert json.loads(asked.taken[0]) == body


def test_a_schedule_keeps_the_parameters_that_a_change_does_not_name(asked: Asked) -> None:
    """Prefect empties them: so `prefect deployment schedule pause` would."""
    for change in ({"active": False}, {"schedule": {"interval": 60}}):
        assert asked.ask("PATCH", SCHEDULE, change) == (200, "inside")
        assert json.loads(asked.taken.pop()) == {**change, "parameters": {"collection": "photos"}}


@pytest.mark.parametrize(
    ("password", "is_known"),
    [
        (b"Basic " + base64.b64encode(b"me:secret"), True),
        (b"Basic " + base64.b64encode(b"me:other"), False),
        (b"Bearer " + base64.b64encode(b"me:secret"), False),
        (b"Basic a", False),
        (b"", False),
    ],
)
def test_only_who_knows_the_password_is_told_what_is_wrong(
    asked: Asked, password: bytes, is_known: bool
) -> None:
    """A refusal may hold values of a deployment, and of Prefect's variables."""
    asked.app = checked(asked.take, "me:secret")
    requests: list[tuple[str, str, Any]] = [
        ("POST", f"{DEPLOYMENT}/create_flow_run", {"parameters": WRONG}),
        ("PATCH", SCHEDULE, {"parameters": WRONG}),
        ("POST", FORM, {"schema": {}, "values": WRONG}),
    ]
    for method, path, body in requests:
        status, text = asked.ask(method, path, body, PAGE, password)
        assert (text != "inside") == is_known
        assert is_known or status == 200


def test_templates_of_a_schedule_are_filled_in_before_it_is_kept(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's scheduler hands them to each run as they stand, and each run would crash."""
    from prefect.utilities.schema_tools.hydration import HydrationContext

    async def context(raise_on_error: bool = False) -> HydrationContext:
        return HydrationContext(
            workspace_variables={"name": "photos"},
            raise_on_error=raise_on_error,
            render_jinja=True,
            render_workspace_variables=True,
        )

    monkeypatch.setattr("deployments.server.parameters._context", context)
    name = {"__prefect_kind": "workspace_variable", "variable_name": "name"}
    whole = {"__prefect_kind": "json", "value": '{"runs": 2}'}
    unknown = {"a": {**name, "variable_name": "gone"}}
    for given, kept in (({"a": name}, {"a": "photos"}), (whole, {"runs": 2}), (unknown, unknown)):
        schedule = {"active": True, "parameters": given}
        assert asked.ask("PATCH", SCHEDULE, schedule) == (200, "inside")
        assert json.loads(asked.taken.pop()) == {"active": True, "parameters": kept}
        assert asked.ask("POST", f"{DEPLOYMENT}/schedules", [schedule]) == (200, "inside")
        assert json.loads(asked.taken.pop()) == [{"active": True, "parameters": kept}]
    assert asked.ask("PATCH", SCHEDULE, {"parameters": {**whole, "value": '{"runs": 0}'}})[0] == 422


def test_a_body_that_no_reader_takes_is_left_to_prefect() -> None:
    assert content(b"[" * 100_000) is None
    assert content(b"{") is None


def test_a_form_shows_the_fault_at_its_field(asked: Asked) -> None:
    """The form of a schedule sends the fields that it overrides, and a schema without limits."""
    for page in (PAGE, f"{PAGE}/run?tab=x"):
        status, text = asked.ask("POST", FORM, {"schema": {}, "values": WRONG}, page)
        assert (status, json.loads(text)) == (200, {"errors": FAULT, "valid": False})
    assert asked.taken == []
    for page in (PAGE, "http://127.0.0.1:4200/flows/flow/x"):
        values = {"runs": 1} if page == PAGE else WRONG
        assert asked.ask("POST", FORM, {"schema": {}, "values": values}, page) == (200, "inside")


def form(name: str) -> dict[str, Any]:
    """The schema of a flow's form."""
    schema: dict[str, Any] = FLOWS[name].flow().parameters.model_dump_for_openapi()
    return schema


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"runs": -3}, [{"property": "runs", "errors": ["-3 is less than the minimum of 1"]}]),
        ({"collection": "nobody ingested it"}, []),
        ({}, []),
    ],
)
def test_the_schema_is_that_of_the_deployment(given: dict[str, Any], said: list[Any]) -> None:
    assert faults(form("backfill-captions"), {"collection": "all", **given}, given) == said


def test_a_deployment_without_a_schema_takes_everything() -> None:
    for schema in ({}, {"type": "object", "properties": {}}):  # Prefect makes the second of it
        assert faults(schema, {"any": 1}, ["any"]) == []


def test_a_parameter_that_the_flow_does_not_have_is_named() -> None:
    """Prefect takes it, and the run crashes."""
    (said,) = faults(form("backfill-captions"), {"colection": "photos"}, ["colection"])
    assert said.startswith("unknown parameter 'colection'; known: collection, kind, ")


CIRCO = {"name": "circo", "folder": "somewhere"}


@pytest.mark.parametrize(
    ("name", "values", "place", "said"),
    [
        ("rerun-backbone", {"backbone": {}, "benchmarks": [CIRCO]}, "", ""),
        (
            "rerun-backbone",
            {"backbone": {}, "benchmarks": [{**CIRCO, "split": "test1"}]},
            "benchmarks",
            "unknown split of circo 'test1'; did you mean 'test'?",
        ),
        ("rerun-backbone", {"backbone": {}}, "benchmarks", "Missing required argument"),
        (
            "backfill-captions",
            {"captioning": {"engine": "llava"}},
            "captioning",
            "a model goes with an engine",
        ),
        ("backfill-captions", {"collection": "gone", "profile": "gone.toml"}, "", ""),
        (
            "backfill-captions",
            {"settings": {"captionr.engine": "llava"}},
            "settings",
            "unknown setting 'captionr'; did you mean 'captioner'?",
        ),
        ("train-composed", {"system": "covr", "triplets": "gone.json"}, "", ""),
        (
            "rerun-backbone",
            {
                "backbone": {"name": "ViT-B-32"},
                "benchmarks": [CIRCO],
                "settings": {"encoder.pretrained": "openai"},
            },
            "",
            "",
        ),
    ],
)
def test_a_flow_refuses_what_no_schema_can_say_and_looks_at_no_file(
    name: str, values: dict[str, Any], place: str, said: str
) -> None:
    entry = FLOWS[name]
    found = own_faults(f"{entry.module}.{entry.function}", values)
    assert [each["property"] for each in found] == ([place] if place else [])
    assert not place or said in found[0]["errors"][0]


def test_flows_of_others_and_images_without_ours_have_the_schema_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert own_faults("their.own.flow", {"profile": "none"}) == []
    wrong = {"captioning": {"engine": "llava"}}
    assert own_faults("flows.backfill_captions.backfill_captions", wrong)
    monkeypatch.setitem(sys.modules, "deployments.commands.run", None)
    assert importlib.util.find_spec("deployments") is not None
    assert own_faults("flows.backfill_captions.backfill_captions", wrong) == []


def test_a_run_ends_although_its_limit_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect raises where the slot of a limit that was deleted or switched off is given back."""
    import prefect.server.models.flow_runs  # noqa: F401 (the policy cannot be imported before it)
    from prefect.server.concurrency.lease_storage import get_concurrency_lease_storage
    from prefect.server.orchestration import core_policy

    from deployments.server.lost_limits import let_runs_outlive_limits

    freed: list[int] = []

    async def decrement(session: Any, concurrency_limit_ids: Any, slots: int) -> bool:
        freed.append(slots)
        return len(freed) > 1  # the first limit is gone

    models = core_policy.concurrency_limits_v2
    monkeypatch.setattr(models, "bulk_decrement_active_slots", decrement)
    monkeypatch.setattr(
        core_policy, "_release_concurrency_lease", core_policy._release_concurrency_lease
    )
    leases = get_concurrency_lease_storage()

    async def hold_and_release() -> None:
        session: Any = None
        lease = await leases.create_lease([uuid4()], timedelta(minutes=5))
        await core_policy._release_concurrency_lease(session, lease.id)
        assert await leases.read_lease(lease.id) is None

    with pytest.raises(RuntimeError, match="Failed to release"):
        asyncio.run(hold_and_release())
    freed.clear()
    let_runs_outlive_limits()
    let_runs_outlive_limits()
    asyncio.run(hold_and_release())
    asyncio.run(hold_and_release())
    assert freed == [1, 1]
