"""`cirflow up` twice at once, killed in the middle, beside strangers: one stack, and no stranger
is touched."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.cli import main
from deployments.errors import UserError
from deployments.stack.settings import StackSettings
from deployments.stack.stack import prepare, stop
from tests.fakes.live_stack import LiveStack, clean_environment, environment_of
from tests.fakes.postgres import free_port

ONE = ["deployments.cli serve", "deployments.server.run", "prefect worker start"]
"""What runs of one stack."""


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def stack(tmp_path: Path, repository: Path) -> Iterator[LiveStack]:
    """A stack that is not up yet."""
    home = tmp_path / "home"
    home.mkdir()
    made = LiveStack(home, clean_environment(repository), free_port(), free_port())
    yield made
    stop(made.settings, quiet)
    assert made.processes() == []


def typed(stack: LiveStack) -> subprocess.Popen[str]:
    """`cirflow up`, typed and not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", "up", *stack.words],
        cwd=stack.folder,
        env=dict(stack.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def parts(stack: LiveStack) -> list[str]:
    """The servers and workers that run, by what they are."""
    lines = [" ".join(process.cmdline()) for process in stack.processes()]
    return sorted(kind for line in lines for kind in ONE if kind in line)


def nothing_is_told(stack: LiveStack, said: list[str]) -> None:
    """The auth string is in files of mode 600 alone, a link works once, no port shares it."""
    auth = stack.settings.auth_string
    password = auth.partition(":")[2]
    everybody = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [text for text in (*everybody, *said, stack.logs()) if password in text]
    home = stack.settings.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    holders = [
        file
        for file in home.rglob("*")
        if file.is_file() and password.encode() in file.read_bytes()
    ]
    assert holders == [stack.settings.auth_file]
    assert {stat.S_IMODE(file.stat().st_mode) for file in holders} == {0o600}

    link, _, key = stack.settings.sign_in_link().partition("#")
    first, second = (httpx.post(link, content=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 403)
    assert password not in second.text
    for reply in (first, second, httpx.get(link), httpx.get(stack.settings.url)):
        # A cookie would go to every port of this machine, so also to other users' servers.
        assert "set-cookie" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers


def the_service_answers_and_has_no_auth_string(stack: LiveStack) -> None:
    """It shows the folder's tables; workers know its address."""
    settings = stack.settings
    assert httpx.get(f"{settings.service_url}/v1/health").json()["profile"] == "tiny"
    assert httpx.get(f"{settings.service_url}/v1/galleries").json() == {"galleries": []}
    running = {name: settings.processes.running(name) for name in ("service", "worker-cpu")}
    own = {name: environment_of(process) for name, process in running.items() if process}
    assert own["worker-cpu"]["CIRFLOW_SERVICE"] == settings.service_url
    assert settings.auth_string in own["worker-cpu"].values()
    assert settings.auth_string not in own["service"].values()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_at_once_make_one_stack(stack: LiveStack) -> None:
    both = [typed(stack), typed(stack)]
    said = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert parts(stack) == ONE
    assert sum("starting the server" in text for text in said) == 1
    assert sum("waiting for its end" in text for text in said) == 1
    nothing_is_told(stack, said)
    the_service_answers_and_has_no_auth_string(stack)
    down = ["stopped service", "stopped worker-cpu", "stopped server"]
    assert stack.cirflow("down").splitlines() == down


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_was_killed_in_the_middle_is_taken_up(stack: LiveStack) -> None:
    for what in ("starting the server", "registering"):
        killed = typed(stack)
        assert killed.stdout is not None
        for line in killed.stdout:
            if what in line:
                break
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert "open http" in stack.up()
    assert parts(stack) == ONE
    server = stack.settings.processes.running("server")
    assert server is not None
    server.kill()
    server.wait()
    assert stack.cirflow("down").splitlines() == ["stopped service", "stopped worker-cpu"]
    assert parts(stack) == []


def test_a_port_of_somebody_else_is_named_and_he_is_left_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        settings = StackSettings(tmp_path / "work", port=foreign.getsockname()[1])
        with pytest.raises(UserError, match=r"is taken: another program .*\(--port\)"):
            prepare(settings, quiet)
    assert not settings.folder.exists()


def test_a_port_of_the_service_that_is_taken_is_named_before_anything_starts(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        settings = StackSettings(tmp_path / "work", port=free_port(), service_port=taken)
        with pytest.raises(UserError, match=rf"port {taken} of the service .*--no-service"):
            prepare(settings, quiet)
    assert not settings.folder.exists()


def test_a_service_address_that_was_given_stays_and_none_is_made_for_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRFLOW_SERVICE", raising=False)
    here = StackSettings(tmp_path, service_port=8600)
    assert here.client_environment()["CIRFLOW_SERVICE"] == "http://127.0.0.1:8600"
    for other in (StackSettings(tmp_path), StackSettings(tmp_path, "0.0.0.0", service_port=8600)):
        assert "CIRFLOW_SERVICE" not in other.client_environment()
    monkeypatch.setenv("CIRFLOW_SERVICE", "https://cir.example.org")
    assert here.client_environment()["CIRFLOW_SERVICE"] == "https://cir.example.org"


@pytest.mark.parametrize("host", ["203.0.113.7", "nobody.invalid"])
def test_an_address_of_another_machine_is_named(tmp_path: Path, host: str) -> None:
    settings = StackSettings(tmp_path / "work", host=host, port=free_port())
    with pytest.raises(UserError, match=rf"cannot listen at {host} .*\(--host\)"):
        prepare(settings, quiet)
    assert not settings.folder.exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--port", "0"), ("--port", "65536"), ("--port", "x"), ("--workers", "0")]
)
def test_a_number_out_of_range_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit):
        main(["up", option, value])
    assert f"argument {option}: a number from 1 to " in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / ".cirflow").touch()
    settings = StackSettings(tmp_path, port=free_port())
    with pytest.raises(UserError, match=r"cannot be written to \(not a directory\): .*--folder"):
        prepare(settings, quiet)
    assert stop(settings, quiet) == 0
