"""`cirflow up` and `cirflow down` against the real thing: one stack, used and abused in turn.

The tests follow each other as days do: each finds what the ones before it left.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
import yaml

from deployments.stack.resources import LIMITS, POOLS
from deployments.stack.unresponsive_runs import NAME as RULE
from deployments.stack.unresponsive_runs import crash_rule
from storage.collections.known import list_collections
from storage.locations.location import Location
from tests.deployments.probes import listening_proxy, make_probe
from tests.fakes.live_stack import LiveStack, clean_environment, environment_of
from tests.fakes.pictures import jpeg
from tests.fakes.postgres import free_port

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(1800)]

SECRET = "sk-a-key-that-nobody-shall-see"
VARIABLE = "SOME_LLM_KEY"
BLOCK = "some-llm-key"
ORIGIN = "https://prefect.example.org"
QUIET = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture(scope="module")
def calls_home() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that everything of the stack would call home through."""
    with listening_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(
    calls_home: tuple[str, list[bytes]],
    tmp_path_factory: pytest.TempPathFactory,
    repository: Path,
) -> Iterator[LiveStack]:
    """A stack on loopback. Pictures lie where the deployment `ingest` looks for them."""
    folder = tmp_path_factory.mktemp("stack")
    for name, seeds in {"photos": range(3), "asked": range(3, 5)}.items():
        (folder / name).mkdir()
        for seed in seeds:
            (folder / name / f"{seed}.jpg").write_bytes(jpeg(seed))
    environment = clean_environment(repository) | {
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
        "HTTP_PROXY": calls_home[0],
        "HTTPS_PROXY": calls_home[0],
        "ALL_PROXY": calls_home[0],
        "NO_PROXY": "127.0.0.1,localhost",
    }
    live = LiveStack(folder, environment, free_port())
    try:
        said = LiveStack(folder, environment | {VARIABLE: SECRET}, live.port).up(
            "--secret", VARIABLE
        )
        assert f"{live.settings.url}/deployments" in said
        assert live.settings.auth_string not in said
        yield live
    finally:
        live.cirflow("down")


@pytest.fixture(scope="module")
def asked_run(stack: LiveStack) -> UUID:
    """A run that somebody starts in the UI, while the other tests go on."""
    with stack.client() as client:
        return stack.start(client, "ingest/ingest", {"source": "asked", "name": "asked"})


def everything(client: Any) -> dict[str, Any]:
    """All that `up` makes, as the server knows it, less what changes by itself."""
    changing = {"updated", "last_polled", "status", "version_id", "version_info", "labels"}
    deployments = {}
    for found in client.read_deployments():
        kept = found.model_dump(mode="json")
        for part in (kept, kept["global_concurrency_limit"] or {}, *kept["schedules"]):
            for field in changing & set(part):
                del part[field]
        deployments[found.name] = kept
    return {
        "deployments": deployments,
        "pools": {p.name: (p.id, p.base_job_template) for p in client.read_work_pools()},
        "limits": {
            limit.name: (limit.id, limit.limit)
            for limit in client.read_global_concurrency_limits(limit=100, offset=0)
            if limit.name in LIMITS
        },
        "rules": [rule.id for rule in client.read_automations_by_name(RULE)],
        "block": client.read_block_document_by_name(BLOCK, "secret").id,
    }


def changes(before: Any, after: Any, place: str = "") -> dict[str, Any]:
    """Where two values differ, and how."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return {} if before == after else {place: (before, after)}
    found: dict[str, Any] = {}
    for key in {**before, **after}:
        found |= changes(before.get(key), after.get(key), f"{place}/{key}")
    return found


def test_up_makes_what_runs_need(stack: LiveStack, asked_run: UUID, repository: Path) -> None:
    shipped = yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]
    with stack.client() as client:
        made = everything(client)
        # A worker reports to the server some seconds after it was started.
        stack.wait_until(lambda: client.read_workers_for_work_pool("cpu"), "the worker")
        workers = client.read_workers_for_work_pool("cpu")
    assert [worker.name for worker in workers] == ["worker-cpu"]
    assert set(made["pools"]) == set(POOLS)
    assert {name: limit for name, (_, limit) in made["limits"].items()} == dict(LIMITS)
    assert len(made["rules"]) == 1
    assert set(made["deployments"]) == {entry["name"] for entry in shipped}
    for entry in shipped:
        found = made["deployments"][entry["name"]]
        assert found["parameters"] == entry.get("parameters", {})
        assert found["description"] == entry["description"]
        assert found["version"].startswith(entry["version"])
        assert found["work_pool_name"] == "cpu"  # no GPU was offered
        assert [s["slug"] for s in found["schedules"]] == [
            s["slug"] for s in entry.get("schedules", [])
        ]
        assert not any(schedule["active"] for schedule in found["schedules"])
        (step,) = found["pull_steps"]
        assert list(step.values()) == [{"directory": str(stack.folder)}]


def test_the_server_listens_on_loopback_and_lets_no_other_page_in(stack: LiveStack) -> None:
    server = stack.settings.processes.running("server")
    assert server is not None
    assert stack.settings.auth_string
    listening = {c.laddr for c in server.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", stack.port)}
    assert stat.S_IMODE(stack.settings.home.stat().st_mode) == 0o700
    url = f"{stack.settings.api_url}/csrf-token?client=x"
    auth = httpx.BasicAuth(*stack.settings.auth_string.split(":"))
    rebound = f"evil.example:{stack.port}"
    foreign = ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": rebound})
    for headers in foreign:
        assert httpx.get(url, headers=headers, auth=auth).status_code == 403
        asked = headers | {"Access-Control-Request-Method": "POST"}
        assert httpx.options(url, headers=asked).status_code == 403
    own = {"Origin": stack.settings.url}
    assert httpx.get(url, headers=own).status_code == 401
    assert httpx.get(url, headers=own, auth=auth).status_code == 200
    # What a page may post without asking first: nothing of it is taken without a token.
    planted = b'{"name": "planted"}'
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json"}):
        reply = httpx.post(
            f"{stack.settings.api_url}/flows/", content=planted, headers=headers, auth=auth
        )
        assert reply.status_code == 403


def test_a_run_sets_nothing_that_its_pool_does_not_offer(stack: LiveStack) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    with stack.client() as client:
        found = client.read_deployment_by_name("demo/demo")
        route = f"/deployments/{found.id}/create_flow_run"
        for asked in (
            *({"command": "touch owned"}, {"env": {"LD_PRELOAD": "x"}}, {"env.PATH": "/tmp"}),
            *({"working_dir": "/tmp"}, {"image": "x"}, {"unknown": 1}),
        ):
            with pytest.raises(httpx.HTTPStatusError, match="422"):
                client._client.post(route, json={"job_variables": asked})
            # Prefect itself takes these as they come: the schedule would hand them to a worker.
            run = {"flow_id": str(found.flow_id), "job_variables": asked}
            for place in ({"deployment_id": str(found.id)}, {"work_pool_name": "cpu"}):
                with pytest.raises(httpx.HTTPStatusError, match="422"):
                    client._client.post("/flow_runs/", json={**run, **place})
            with pytest.raises(httpx.HTTPStatusError, match="422"):
                client._client.patch(f"/deployments/{found.id}", json={"job_variables": asked})
        # Variables of a deployment without a pool come to one with the pool.
        loose = {"name": "loose", "flow_id": str(found.flow_id), "job_variables": {"command": "x"}}
        made_loose = client._client.post("/deployments/", json=loose).json()["id"]
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            client._client.patch(f"/deployments/{made_loose}", json={"work_pool_name": "cpu"})
        client._client.delete(f"/deployments/{made_loose}")
        offered = {"job_variables": {"stream_output": True}}
        client._client.patch(f"/deployments/{found.id}", json=offered)
        assert client.read_deployment(found.id).job_variables == offered["job_variables"]
        client._client.patch(f"/deployments/{found.id}", json={"job_variables": {}})
        # A pool of an earlier version is closed by the next `up`, with its owner's environment.
        made = client.read_work_pool("cpu").base_job_template
        older = copy.deepcopy(made)
        older["variables"] = {"properties": {
            "command": {"type": "string"}, "stream_output": {"type": "boolean", "default": True},
            "env": {"type": "object", "default": environment(made)},
        }}  # fmt: skip
        older["job_configuration"] = {name: f"{{{{ {name} }}}}" for name in ("command", "env")}
        client.update_work_pool("cpu", WorkPoolUpdate(base_job_template=older))
        assert "closed the work pool cpu" in stack.up()
        now = client.read_work_pool("cpu").base_job_template
        assert now["job_configuration"] == {"env": "{{ env }}"}
        assert list(now["variables"]["properties"]) == ["stream_output", "env"]
        assert environment(now) == environment(made)
        client.update_work_pool("cpu", WorkPoolUpdate(base_job_template=made))


def environment(template: dict[str, Any]) -> Any:
    """The environment that runs of a pool get."""
    return template["variables"]["properties"]["env"]["const"]


def test_a_schedule_of_values_that_no_run_takes_is_not_saved(stack: LiveStack) -> None:
    with stack.client() as client:
        found = client.read_deployment_by_name("backfill-captions/backfill-captions")
        route = f"/deployments/{found.id}/schedules"
        create = f"/deployments/{found.id}/create_flow_run"
        hourly = {"schedule": {"interval": 3600}, "active": False}
        wrong = (
            ({"runs": 0}, "runs: 0 is less than the minimum of 1"),
            ({"colection": "photos"}, "unknown parameter 'colection'"),
            ({"captioning": {"engine": "llava"}}, "a model goes with an engine"),
        )
        for parameters, said in wrong:
            with pytest.raises(httpx.HTTPStatusError) as refused:
                client._client.post(route, json=[{**hourly, "parameters": parameters}])
            assert refused.value.response.status_code == 422
            assert said in refused.value.response.text
            with pytest.raises(httpx.HTTPStatusError) as refused:
                client._client.post(create, json={"parameters": parameters})
            assert said in refused.value.response.json()["detail"]
        to_come = [{**hourly, "parameters": {"collection": "to be ingested"}}]
        (made,) = client._client.post(route, json=to_come).json()
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            client._client.patch(f"{route}/{made['id']}", json={"parameters": {"runs": 0}})
        schedule = UUID(made["id"])
        for active in (True, False):  # as `prefect deployment schedule resume` and `pause` do
            client.update_deployment_schedule(found.id, schedule, active=active)
            (kept,) = client.read_deployment(found.id).schedules
            assert (kept.active, kept.parameters) == (active, {"collection": "to be ingested"})
        client.delete_deployment_schedule(found.id, schedule)
        assert client.read_deployment(found.id).schedules == []


def test_another_user_of_the_machine_gets_nothing(stack: LiveStack) -> None:
    if os.geteuid():
        pytest.skip("only root can act as another user")
    look = """
import encodings.idna, os, sys, urllib.error, urllib.request  # before its files are out of reach
url, *files = sys.argv[1:]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    urllib.request.urlopen(url + "/csrf-token?client=x")
    raise SystemExit("the API answered")
except urllib.error.HTTPError as error:
    assert error.code == 401, error
for file in files:
    try:
        open(file, "rb").read()
        raise SystemExit(f"{file} can be read")
    except PermissionError:
        pass
print("nothing")
"""
    environments = [f"/proc/{process.pid}/environ" for process in stack.processes()]
    assert len(environments) >= 2
    own = [stack.settings.auth_file, stack.settings.home / "prefect.db", *environments]
    command = [sys.executable, "-c", look, stack.settings.api_url, *map(str, own)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "nothing\n", done.stderr


def test_scheduled_runs_appear_and_are_run(stack: LiveStack) -> None:
    from prefect.client.schemas.schedules import IntervalSchedule

    with stack.client() as client:
        nightly = client.read_deployment_by_name("backfill-captions/nightly")
        client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)
        stack.wait_until(lambda: scheduled(client, nightly.id), "a scheduled run")
        at = {run["expected_start_time"][11:19] for run in scheduled(client, nightly.id)}
        assert at == {"02:00:00"}
        assert not scheduled(client, client.read_deployment_by_name("ingest/ingest").id)

        ingest = client.read_deployment_by_name("ingest/ingest")
        # A machine that is too slow for the first time is given the next one.
        soon = datetime.now(UTC) + timedelta(seconds=10)
        schedule = IntervalSchedule(interval=timedelta(minutes=5), anchor_date=soon)
        update_schedule = client.update_deployment_schedule
        update_schedule(ingest.id, ingest.schedules[0].id, active=True, schedule=schedule)
        stack.wait_until(lambda: scheduled(client, ingest.id), "a scheduled run")
        first = min(scheduled(client, ingest.id), key=lambda run: run["expected_start_time"])
        ended = stack.wait_for(client, UUID(first["id"]))
        update_schedule(ingest.id, ingest.schedules[0].id, active=False)
    assert ended.auto_scheduled
    assert ended.state_name == "Completed"
    assert ended.start_time is not None
    assert ended.start_time >= soon - timedelta(seconds=1)
    assert "photos" in list_collections(Location(str(stack.root)))


def scheduled(client: Any, deployment: UUID) -> list[dict[str, Any]]:
    asked = {"deployments": {"id": {"any_": [str(deployment)]}}}
    reply = client._client.post("/flow_runs/filter", json=asked)
    reply.raise_for_status()
    return [run for run in reply.json() if run["auto_scheduled"]]


def test_a_run_that_somebody_starts_completes(stack: LiveStack, asked_run: UUID) -> None:
    with stack.client() as client:
        assert stack.wait_for(client, asked_run).state_name == "Completed"
    assert "asked" in list_collections(Location(str(stack.root)))


def test_up_again_makes_nothing_twice_and_leaves_what_people_changed(stack: LiveStack) -> None:
    from prefect.client.schemas.actions import (
        DeploymentScheduleCreate,
        DeploymentUpdate,
        GlobalConcurrencyLimitUpdate,
    )
    from prefect.client.schemas.schedules import CronSchedule

    with stack.client() as client:
        client.update_global_concurrency_limit("llm-server", GlobalConcurrencyLimitUpdate(limit=7))
        nightly = client.read_deployment_by_name("backfill-captions/nightly")
        mine = CronSchedule(cron="30 5 * * *", timezone="UTC")
        client.create_deployment_schedules(nightly.id, [DeploymentScheduleCreate(schedule=mine)])
        # As an older version of the code left it, and as somebody then edited it.
        edited = {"parameters": {"collection": "photos"}, "tags": ["mine"], "paused": True}
        update = DeploymentUpdate(version="0.0.1", concurrency_limit=3, **edited)
        client.update_deployment(nightly.id, update)
        before = everything(client)
        assert before["limits"]["llm-server"][1] == 7

        said = stack.up("--secret", VARIABLE)  # the value is on the server now
        after = everything(client)
    assert "made" not in said
    assert "started" not in said
    assert "registering nightly\n" in said
    now = after["deployments"]["nightly"]
    assert now.items() >= edited.items()
    assert now["global_concurrency_limit"]["limit"] == 3
    assert {s["schedule"]["cron"]: s["active"] for s in now["schedules"]} == {
        "0 2 * * *": True,
        "30 5 * * *": True,
    }
    assert now["version"].startswith("0.1.0+")
    assert changes(before, after) == {"/deployments/nightly/version": ("0.0.1", now["version"])}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workers", "5"), "worker-cpu of .* runs already"),
        (("--origin", ORIGIN), "server of .* runs already"),
        (("--host", "0.0.0.0"), "--origin"),
    ],
)
def test_other_settings_than_those_that_run_are_refused(
    stack: LiveStack, arguments: tuple[str, ...], words: str
) -> None:
    assert re.search(words, stack.up(*arguments, status=2))


def test_a_second_stack_says_that_the_port_is_taken(stack: LiveStack, tmp_path: Path) -> None:
    other = LiveStack(tmp_path, stack.environment, stack.port)
    assert f"port {stack.port} is taken: a Prefect server" in other.up(status=2)
    assert not (tmp_path / ".cirflow").exists()


def test_a_run_ends_well_although_its_deployment_was_deleted(stack: LiveStack) -> None:
    with stack.client() as client:
        make_probe(stack, client)
        run = stack.start(client, "probe/probe", {"seconds": 20, "variable": VARIABLE})
        stack.wait_until(lambda: client.read_flow_run(run).state_name == "Running", "its start")
        found = client.read_deployment_by_name("probe/probe")
        assert found.global_concurrency_limit is not None
        client.delete_deployment(found.id)
        assert stack.wait_for(client, run).state_name == "Completed"
    (stack.folder / "probe.json").unlink()


def test_a_run_gets_a_secret_that_is_nowhere_to_be_seen_and_crashes_when_its_host_dies(
    stack: LiveStack,
) -> None:
    with stack.client() as client:
        rule = crash_rule(timedelta(seconds=10)).model_copy(update={"name": "soon"})
        automation = client.create_automation(rule)
        make_probe(stack, client)
        run = stack.start(client, "probe/probe", {"seconds": 600, "variable": VARIABLE})
        said = stack.folder / "probe.json"
        stack.wait_until(said.exists, "the probe")
        found = json.loads(said.read_text())
        assert found["secret"] == hashlib.sha256(SECRET.encode()).hexdigest()
        assert_nobody_sees(SECRET, stack, client)
        for process in stack.processes():
            environment = environment_of(process)
            assert environment.items() >= QUIET.items(), process
            if "deployments.server.run" in process.cmdline():
                assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"

        worker = stack.settings.processes.running("worker-cpu")
        assert worker is not None
        worker.suspend()  # a host dies at once: its worker does not see the run die
        for process in (psutil.Process(found["pid"]), worker):
            process.kill()
        ended = stack.wait_for(client, run)
        assert ended.state_name == "Crashed"
        assert ended.state is not None
        assert "heartbeat" in str(ended.state.message)
        client.delete_automation(automation)
        assert "started worker-cpu" in stack.up()
        # The dead run holds no slot of its deployment: a new one is not cancelled.
        again = stack.start(client, "probe/probe", {"seconds": 0, "variable": VARIABLE})
        assert stack.wait_for(client, again).state_name == "Completed"


def assert_nobody_sees(secret: str, stack: LiveStack, client: Any) -> None:
    """Look where people and programs look: command lines, logs, and what the server tells."""
    lines = [" ".join(process.cmdline()) for process in stack.processes()]
    assert len(lines) >= 2  # the server and a worker, and a run while there is one
    told = [json.dumps(everything(client), default=str), stack.logs()]
    for kind in ("flow_runs", "logs", "task_runs", "artifacts", "variables", "block_documents"):
        reply = client._client.post(f"/{kind}/filter", json={})
        reply.raise_for_status()
        told.append(reply.text)
    told += [file.read_text() for file in stack.settings.processes.path.glob("*.json")]
    assert not [text for text in (*lines, *told) if secret in text]


def test_down_ends_what_was_started_and_up_finds_all_again(
    stack: LiveStack, asked_run: UUID
) -> None:
    foreign = psutil.Popen(
        ["sleep", "600"], env={"PREFECT_HOME": str(stack.settings.home)}, cwd=stack.folder
    )
    try:
        with stack.client() as client:
            before = everything(client)
        assert len(stack.processes()) >= 3
        assert stack.cirflow("down").splitlines() == ["stopped worker-cpu", "stopped server"]
        assert [process.pid for process in stack.processes()] == [foreign.pid]
        assert "nothing" in stack.cirflow("down")
    finally:
        foreign.kill()
        foreign.wait()

    auth = stack.settings.auth_string
    said = stack.up("--host", "0.0.0.0", "--origin", ORIGIN)
    assert "made an auth string" not in said
    assert "registering" not in said
    assert stack.settings.auth_string == auth
    assert f"open {ORIGIN}/" in said
    assert auth not in said
    with stack.client() as client:
        assert changes(before, everything(client)) == {}
        assert client.read_flow_run(asked_run).state_name == "Completed"


def test_a_server_for_others_asks_who_is_there(stack: LiveStack) -> None:
    file = stack.settings.auth_file
    auth = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    user, _, password = auth.partition(":")
    assert len(password) >= 32
    url = f"{stack.settings.api_url}/flows/filter"
    assert httpx.post(url, json={}).status_code == 403
    for path in ("admin/version", "csrf-token?client=x"):
        for guess in (None, (user, "guess"), ("", "")):
            reply = httpx.get(f"{stack.settings.api_url}/{path}", auth=guess)
            assert reply.status_code == 401

    with httpx.Client(auth=(user, password)) as browser:
        reply = browser.post(url, json={})
        assert reply.status_code == 403
        assert "CSRF" in reply.text
        token = browser.get(f"{stack.settings.api_url}/csrf-token?client=x").json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "x"}
        for host in (f"127.0.0.1:{stack.port}", ORIGIN.removeprefix("https://")):
            named = headers | {"Host": host}
            for origin, allowed in (("http://evil.example", 403), (ORIGIN, 200)):
                reply = browser.post(url, json={}, headers=named | {"Origin": origin})
                assert reply.status_code == allowed


def test_workers_and_runs_know_the_auth_string_and_do_not_tell_it(stack: LiveStack) -> None:
    auth = stack.settings.auth_string
    with stack.client() as client:
        run = stack.start(client, "probe/probe", {"seconds": 0, "variable": VARIABLE})
        assert stack.wait_for(client, run).state_name == "Completed"
        for secret in (auth, auth.partition(":")[2], SECRET):
            assert_nobody_sees(secret, stack, client)
    stranger = LiveStack(
        stack.folder, {**stack.environment, "PREFECT_SERVER_API_AUTH_STRING": "a:b"}, stack.port
    )
    said = stranger.up("--host", "0.0.0.0", "--origin", ORIGIN, status=2)
    assert "wants another auth string" in said


def test_nothing_called_home(stack: LiveStack, calls_home: tuple[str, list[bytes]]) -> None:
    proxy, asked = calls_home
    assert environment_of(stack.processes()[0])["HTTPS_PROXY"] == proxy
    assert asked == []
    with pytest.raises(httpx.ProxyError):  # the proxy does hear those who call
        httpx.get("https://api.prefect.io", proxy=proxy)
    assert asked == [b"CONNECT api.prefect.io:443 HTTP/1.1"]
