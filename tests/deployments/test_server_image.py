"""Containers start the guarded server; the files of its image are enough for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.server.guard import Names, names
from deployments.server.run import _parser, main
from tests.fakes.postgres import free_port

PROJECT = Path(__file__).resolve().parents[2]
DOCKERFILE = (PROJECT / "deployments" / "docker" / "Dockerfile").read_text(encoding="utf-8")
IMAGE = DOCKERFILE.partition(" AS server\n")[2].partition("\nFROM ")[0]
"""The stage of the server."""
AUTH = "team:a-long-password"
ORIGIN = "https://prefect.example.org"


def entrypoint() -> list[str]:
    """What the image runs."""
    found = re.search(r"^ENTRYPOINT (\[.+\])$", IMAGE, re.M)
    assert found
    words: list[str] = json.loads(found[1])
    return words


def compose_words(**given: str) -> list[str]:
    """What compose adds, with values of .env."""
    path = PROJECT / "deployments" / "docker" / "compose.yaml"
    service = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]["server"]
    assert "entrypoint" not in service
    return [
        re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: given.get(m[1], m[2]), word)
        for word in service["command"]
    ]


def kubernetes_pod() -> dict[str, Any]:
    """The server's container in the manifests."""
    path = PROJECT / "deployments" / "kubernetes" / "base" / "server.yaml"
    pod = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))["spec"]["template"]["spec"]
    container: dict[str, Any] = pod["containers"][0]
    assert "command" not in container
    return container


def allowed(words: list[str]) -> Names:
    """Names under which the server of a command line answers."""
    program, *options = words[words.index("deployments.server.run") :]
    assert program
    parsed = _parser().parse_args(options)
    assert parsed.host == "0.0.0.0"
    return names(parsed.port, parsed.name, parsed.origin)


def test_compose_starts_the_guarded_server_under_the_names_that_are_used() -> None:
    on_one_host = allowed([*entrypoint(), *compose_words()])
    assert {"server:4200", "127.0.0.1:4200"} <= on_one_host.hosts
    assert "http://127.0.0.1:4200" in on_one_host.origins
    for_a_team = allowed([*entrypoint(), *compose_words(SERVER_BIND="10.0.0.5", UI_ORIGIN=ORIGIN)])
    assert {"server:4200", "10.0.0.5:4200", "prefect.example.org"} <= for_a_team.hosts
    assert ORIGIN in for_a_team.origins
    assert not {"10.0.0.5", "server", "evil.test:4200"} & for_a_team.hosts


def test_kubernetes_starts_the_guarded_server_and_its_probes_are_let_in() -> None:
    container = kubernetes_pod()
    variables = {variable["name"]: variable for variable in container["env"]}
    key = variables["ORIGIN"]["valueFrom"]["configMapKeyRef"]
    assert key == {"name": "cirflow-addresses", "key": "origin"}
    words = [word.replace("$(ORIGIN)", ORIGIN) for word in container["args"]]
    taken = allowed([*entrypoint(), *words])
    assert {"server:4200", "prefect.example.org"} <= taken.hosts
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        headers = container[probe]["httpGet"]["httpHeaders"]
        # Without one a probe comes by the pod's address, which nobody knows beforehand.
        assert [h["value"] for h in headers if h["name"] == "Host"] == ["127.0.0.1:4200"]
        assert "127.0.0.1:4200" in taken.hosts


@pytest.mark.parametrize(
    ("auth", "options", "fault"),
    [
        ("", [], "AUTH_STRING must be user:password"),
        ("nocolon", [], "AUTH_STRING must be user:password"),
        (AUTH, ["--name", "server"], "server names no port"),
        (AUTH, ["--origin", "prefect.example.org"], "is not a web address"),
    ],
)
def test_a_server_that_nobody_could_use_says_why_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    auth: str,
    options: list[str],
    fault: str,
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", auth)
    assert main(options) == 2
    said = capsys.readouterr().err
    assert fault in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_the_files_of_the_image_are_enough_and_the_guard_stands_in_front(tmp_path: Path) -> None:
    for source, target in re.findall(r"^COPY (deployments\S*) /opt/cirflow/(\S+)$", IMAGE, re.M):
        copy = shutil.copytree if (PROJECT / source).is_dir() else shutil.copy
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        copy(PROJECT / source, tmp_path / target)
    port = free_port()
    words = [word.replace("4200", str(port)) for word in (*entrypoint(), *compose_words())]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    own = {
        "PYTHONPATH": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(tmp_path / "ui"),
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "DO_NOT_TRACK": "1",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        # The image's python is the one with the packages.
        server = subprocess.Popen(
            [sys.executable, *words[1:]], env=kept | own, cwd="/", stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}/api"

    def status(path: str, host: str, auth: tuple[str, str] | None = None) -> int:
        return httpx.get(f"{url}/{path}", headers={"Host": host}, auth=auth).status_code

    try:
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if status("health", f"server:{port}") == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        member = ("team", "a-long-password")
        for host in (f"server:{port}", f"127.0.0.1:{port}"):
            assert status("admin/version", host) == 401
            assert status("admin/version", host, member) == 200
        for host in (f"evil.test:{port}", f"10.1.2.3:{port}", "server"):
            assert status("admin/version", host, member) == 403
    finally:
        server.terminate()
        server.wait(timeout=60)
