"""Requests are let in by exact names alone; a link signs in once; files of secrets are private."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import UserError
from deployments.server.guard import App, Guard, names
from deployments.server.job_variables import CheckedJobVariables
from deployments.server.sign_in import HOUR, PATH, SignIn, make_key, use_key
from deployments.stack.auth import make_auth_file, read_auth_file
from deployments.stack.settings import StackSettings

PORT = 4200
ORIGIN = "https://prefect.example.org"
AUTH = "cirflow:a-password"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """The application that is guarded: it lets everybody in."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(
    app: App, headers: list[tuple[str, str]], path: str = "/api/flows/", **given: Any
) -> list[dict[str, Any]]:
    """Everything that the application answers to one request."""
    scope = {"type": "http", "method": "GET", "path": path, **given}
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": given.get("body", b""), "more_body": False}

    async def send(message: Any) -> None:
        said.append(dict(message))

    asyncio.run(app(scope, receive, send))
    return said


def status(answer: list[dict[str, Any]]) -> int:
    return int(answer[0]["status"])


LOOPBACK = ["127.0.0.1:4200", "localhost:4200", "LocalHost:4200", "[::1]:4200"]
FOREIGN = [
    *("evil.test:4200", "evil.test", "", "localhost", "127.0.0.1", "127.0.0.1:4201"),
    *("localhost.:4200", "localhost:4200.evil.test", "evil.test@127.0.0.1:4200", "127.1:4200"),
    *("127.0.0.1:4200 ", "127.0.0.1:04200", "0.0.0.0:4200", "prefect.example.org"),
]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("path", ["/", "/api/health", "/docs", "/ui-settings", PATH])
def test_only_exact_names_of_loopback_reach_any_route(kind: str, path: str) -> None:
    app = Guard(inner, names(PORT))
    for host in LOOPBACK:
        (first, *_) = ask(app, [("host", host)], path, type=kind)
        assert first.get("status", first["type"]) in (200, "websocket.accept")
    for host in FOREIGN:
        (first, *_) = ask(app, [("host", host)], path, type=kind)
        assert first.get("status", first["type"]) in (403, "websocket.close"), host
    for headers in ([], [("host", LOOPBACK[0]), ("host", "evil.test:4200")]):
        (first, *_) = ask(app, headers, path, type=kind)
        assert first.get("status", first["type"]) in (403, "websocket.close")


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_foreign_origin_is_refused_whatever_it_asks(kind: str) -> None:
    app = Guard(inner, names(PORT))
    host = ("host", "127.0.0.1:4200")
    for origin in ("http://127.0.0.1:4200", "http://localhost:4200"):
        (first, *_) = ask(app, [host, ("origin", origin)], type=kind)
        assert first.get("status", first["type"]) in (200, "websocket.accept")
    for origin in (
        *("null", "http://evil.test", "http://evil.test:4200", "http://127.0.0.1:9999", ORIGIN),
        *("https://127.0.0.1:4200", "http://127.0.0.1", "file://", "chrome-extension://abc", ""),
    ):
        (first, *_) = ask(app, [host, ("origin", origin)], type=kind)
        assert first.get("status", first["type"]) in (403, "websocket.close"), origin


def test_what_the_user_configured_is_let_in_beside_loopback() -> None:
    app = Guard(inner, names(PORT, ["big.lan:4200"], [f"{ORIGIN}/"]))
    for host, origin in (
        ("prefect.example.org", ORIGIN),
        ("big.lan:4200", "http://big.lan:4200"),
        ("127.0.0.1:4200", ORIGIN),
    ):
        assert status(ask(app, [("host", host), ("origin", origin)])) == 200
    for host, origin in (
        ("prefect.example.org:4200", ORIGIN),
        ("big.lan", ORIGIN),
        ("prefect.example.org", "http://prefect.example.org"),
    ):
        assert status(ask(app, [("host", host), ("origin", origin)])) == 403


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"origin": "prefect.example.org"}, "is not a web address"),
        ({"origin": "ftp://a.example"}, "is not a web address"),
        ({"origin": "https://user:word@a.example"}, "is not a web address"),
        ({"names": ("big.lan",)}, "names no port"),
        ({"host": "0.0.0.0"}, "--origin"),
    ],
)
def test_a_name_that_no_browser_sends_is_refused_before_the_start(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        StackSettings(tmp_path, **given).check()


def test_pages_stand_in_no_frame_and_load_nothing_from_elsewhere() -> None:
    (start, _) = ask(Guard(inner, names(PORT)), [("host", "127.0.0.1:4200")], "/")
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["frame-ancestors"] == "'none'"
    assert policy["default-src"] == policy["script-src"] == "'self'"
    assert "*" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"


def test_a_link_gives_the_auth_string_once_and_to_no_other_key(tmp_path: Path) -> None:
    app = Guard(inner, names(PORT), {PATH: SignIn(tmp_path / "keys", AUTH)})
    host = [("host", "127.0.0.1:4200")]
    (start, page) = ask(app, host, PATH)
    assert start["status"] == 200
    # Its one script runs under its own policy, and none of another text would.
    (script,) = re.findall(r"<script>(.*)</script>", page["body"].decode(), re.DOTALL)
    policy = dict(start["headers"])[b"content-security-policy"].decode()
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert AUTH not in page["body"].decode()

    key = make_key(tmp_path / "keys")
    assert [key in str(file) for file in (tmp_path / "keys").iterdir()] == [False]
    for guess in ("", "x", key[:-1], key + " ", "../" + key, "x" * 10_000):
        assert status(ask(app, host, PATH, method="POST", body=guess.encode())) == 403
    assert status(ask(app, host, PATH, method="PUT", body=key.encode())) == 405
    origin = [*host, ("origin", "http://evil.test:4200")]
    assert status(ask(app, origin, PATH, method="POST", body=key.encode())) == 403
    (start, body) = ask(app, host, PATH, method="POST", body=key.encode())
    assert start["status"] == 200
    assert base64.b64decode(body["body"]).decode() == AUTH
    assert status(ask(app, host, PATH, method="POST", body=key.encode())) == 403


def test_a_link_is_too_old_after_an_hour_and_old_ones_are_swept(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    (file,) = tmp_path.iterdir()
    past = file.stat().st_mtime - HOUR - 60
    os.utime(file, (past, past))
    assert use_key(tmp_path, key) is False
    assert list(tmp_path.iterdir()) == []
    make_key(tmp_path)
    (old,) = tmp_path.iterdir()
    os.utime(old, (past, past))
    make_key(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert old not in tmp_path.iterdir()


def test_the_auth_file_is_read_only_where_nobody_else_can(tmp_path: Path) -> None:
    file = tmp_path / "auth-string"
    assert read_auth_file(file) == ""
    assert make_auth_file(file)
    assert not make_auth_file(file)
    auth = read_auth_file(file)
    assert len(auth.partition(":")[2]) >= 32
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(UserError, match="not yours alone"):
            read_auth_file(file)
    file.chmod(0o600)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_auth_file(tmp_path / "link")
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
        with pytest.raises(UserError, match="not yours alone"):
            read_auth_file(file)


def test_a_browser_asks_for_pages_anew_and_tells_no_other_server_where_it_was() -> None:
    """A page kept from an earlier version would have that version's policy, and its files."""

    def answering(*headers: tuple[bytes, bytes]) -> dict[bytes, bytes]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
            await send({"type": "http.response.body", "body": b""})

        return dict(ask(Guard(app, names(PORT)), [("host", LOOPBACK[0])])[0]["headers"])

    page = (b"content-type", b"text/html; charset=utf-8")
    assert answering(page)[b"cache-control"] == b"no-cache"
    assert answering(page)[b"referrer-policy"] == b"same-origin"
    assert answering(page, (b"cache-control", b"no-store"))[b"cache-control"] == b"no-store"
    assert b"cache-control" not in answering((b"content-type", b"text/javascript"))


@pytest.mark.parametrize("fault", ["", "Unknown job variable."])
def test_job_variables_are_checked_where_prefect_does_not_and_nothing_else_is_read(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[dict[str, Any], dict[str, str]]] = []

    async def check(given: dict[str, Any], path: dict[str, str]) -> str:
        checked.append((given, path))
        return fault

    monkeypatch.setattr("deployments.server.job_variables._fault", check)
    taken: list[bytes] = []

    async def prefect(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        taken.append(body)
        await inner(scope, receive, send)

    app = CheckedJobVariables(prefect)
    deployment = "/api/deployments/3f0e6d2e-9a3f-4f0e-8f5b-0a6d0a6d0a6d"
    env, pool = b'{"job_variables": {"env": {"A": "b"}}}', b'{"work_pool_name": "cpu"}'
    for method, path in (("POST", "/api/flow_runs/"), ("PATCH", deployment)):
        for body in (env, pool):
            answer = ask(app, [], path, method=method, body=body)
            assert status(answer) == (422 if fault else 200)
            assert fault.encode() in answer[1]["body"]
    assert len(checked) == 4
    assert checked[2] == ({"job_variables": {"env": {"A": "b"}}}, {"deployment": deployment[17:]})
    assert taken == ([] if fault else [env, pool, env, pool])
    taken.clear()
    for method, path, body in (
        ("PATCH", deployment, b'{"job_variables": {}}'),
        ("POST", "/api/flow_runs/", b"not JSON"),
        ("POST", "/api/flow_runs/", b"[1]"),
        ("POST", "/api/flow_runs/filter", env),
        ("POST", f"{deployment}/create_flow_run", env),
    ):
        assert status(ask(app, [], path, method=method, body=body)) == 200
        assert taken.pop() == body
    assert len(checked) == 4
