"""The service of `cirflow up` is as reachable, and as closed, as the server beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli import main
from deployments.errors import UserError
from deployments.stack.service import refuse_taken_service_port, service_command, wait_for_service
from deployments.stack.settings import StackSettings
from deployments.stack.stack import worker_parts
from tests.fakes.postgres import free_port

TOKEN = "a-secret-of-this-test"
UP = ["up", "--host=0.0.0.0", "--origin=https://prefect.example.org"]
NAMED = "--service-name=box.test:8600"


@pytest.mark.parametrize(
    ("token", "given", "said"),
    [
        ("", [NAMED], "set CIRFLOW_SERVICE_TOKEN"),
        ("", [NAMED], "leave the service out: --no-service"),
        ("short", [NAMED], "5 characters"),
        (TOKEN, [], "--service-name NAME:PORT"),
        (TOKEN, ["--service-name=box.test"], "NAME:PORT"),
        (TOKEN, ["--service-origin=box.test"], "is not a web address"),
    ],
)
def test_what_is_not_safe_is_refused_before_anything_starts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    given: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("CIRFLOW_SERVICE_TOKEN", token)
    folder = tmp_path / "work"
    assert main([*UP, f"--folder={folder}", *given]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


def test_a_token_is_asked_for_behind_a_proxy_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRFLOW_SERVICE_TOKEN", raising=False)
    given = ["up", f"--folder={tmp_path / 'work'}", "--service-origin=https://cir.example.org"]
    assert main(given) == 2
    assert "(--service-origin https://cir.example.org)" in capsys.readouterr().err


def test_links_name_the_address_that_others_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRFLOW_SERVICE", raising=False)
    monkeypatch.setenv("CIRFLOW_SERVICE_TOKEN", TOKEN)
    proxied = StackSettings(
        tmp_path, "0.0.0.0", service_port=8600, service_origin="https://cir.example.org"
    )
    assert proxied.client_environment()["CIRFLOW_SERVICE"] == "https://cir.example.org"
    assert proxied.service_environment()["CIRFLOW_SERVICE_TOKEN"] == TOKEN
    assert "CIRFLOW_SERVICE_TOKEN" not in proxied.client_environment()  # of workers and runs
    assert not [part for part in worker_parts(proxied).values() if TOKEN in str(part)]
    assert TOKEN not in str(service_command(proxied))


@pytest.mark.slow
def test_other_machines_need_a_name_and_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    monkeypatch.setenv("CIRFLOW_SERVICE_TOKEN", TOKEN)
    port = free_port()
    name = f"box.test:{port}"
    stack = StackSettings(
        tmp_path,
        "0.0.0.0",
        service_port=port,
        service_names=(name,),
        root=str(tmp_path / "tables"),
    )
    assert stack.service_url == f"http://127.0.0.1:{port}"
    environment = stack.service_environment()
    try:
        stack.processes.start("service", service_command(stack), environment, tmp_path)
        wait_for_service(stack)
        with pytest.raises(UserError, match=f"port {port} of the service"):
            refuse_taken_service_port(StackSettings(tmp_path / "b", "0.0.0.0", service_port=port))
        with httpx.Client(base_url=stack.service_url, trust_env=False) as client:
            for host, token, status in (
                (name, TOKEN, 200),
                (f"127.0.0.1:{port}", TOKEN, 200),
                (name, "", 401),
                (f"127.0.0.1:{port}", "", 401),
                (f"0.0.0.0:{port}", TOKEN, 403),
                ("evil.test", TOKEN, 403),
            ):
                headers = {"host": host} | ({"authorization": f"Bearer {token}"} if token else {})
                assert client.get("/v1/galleries", headers=headers).status_code == status
    finally:
        assert stack.processes.stop("service")
