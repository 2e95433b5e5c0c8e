"""Servers that go away, or refuse all questions: what is waited for, and what ends a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from models.generators.openai_server import OpenAIServerGenerator, OpenAIServerSettings
from models.protocols import (
    EngineUnavailable,
    TextRequest,
    require_engine,
)
from tests.fakes.asked_servers import GOOD, OVERLONG, ask, ask_all, settings_for
from tests.fakes.openai_server import (
    FakeOpenAIServer,
    Reply,
    chat,
    echo,
    error,
)


def test_a_restart_is_waited_for() -> None:
    crash = Reply(fault="crash")
    with FakeOpenAIServer(GOOD, crash) as server:
        generator = OpenAIServerGenerator(settings_for(server, transport_retries=0))
        requests = [TextRequest(f"k{i}", f"word {i}") for i in range(40)]
        replies = list(generator.generate(requests))
    assert len({reply.key for reply in replies}) == 40
    assert {reply.status for reply in replies} == {"ok"}
    assert max(reply.attempts for reply in replies) == 2


def test_a_restart_with_another_model_ends_the_run() -> None:
    def crash_and_change(request: Mapping[str, Any]) -> Reply:
        server.models = ["other-model"]
        return Reply(fault="crash")

    with FakeOpenAIServer(then=crash_and_change) as server:
        reply = ask(server, transport_retries=0)
    assert reply.status == "engine_error"
    assert "does not serve 'edit-model'; it serves 'other-model'" in reply.reason


def test_a_server_that_stays_away_fails_everything_once() -> None:
    with FakeOpenAIServer(then=lambda _: Reply(fault="crash", looks=10**9)) as server:
        generator = OpenAIServerGenerator(
            settings_for(server, transport_retries=0, health_wait_seconds=0.3)
        )
        replies = list(generator.generate(TextRequest(f"k{i}", "hello") for i in range(200)))
        assert len(server.requests) + server.refused <= 32  # those in flight, and no others
    assert len(replies) == 200
    assert all("did not come back" in r.reason or "Connection" in r.reason for r in replies)
    assert {reply.status for reply in replies} == {"engine_error"}


def test_a_request_that_kills_the_server_fails_alone() -> None:
    """Each time it is asked the server is away for a moment; its neighbours must survive."""

    def deadly(request: Mapping[str, Any]) -> Reply:
        content = request["messages"][0]["content"]
        return Reply(fault="crash") if content == "poison" else echo(request)

    words = ["poison" if i == 7 else f"word {i}" for i in range(30)]
    with FakeOpenAIServer(then=deadly) as server:
        generator = OpenAIServerGenerator(
            settings_for(server, concurrency=8, transport_retries=0, attempts=3)
        )
        replies = list(generator.generate(TextRequest(w, w) for w in words))
    failed = {reply.key for reply in replies if reply.status != "ok"}
    assert failed == {"poison"}


def test_the_breaker_ends_a_run_of_server_errors() -> None:
    with FakeOpenAIServer(then=lambda _: error(500, "engine is dead")) as server:
        generator = OpenAIServerGenerator(
            settings_for(server, concurrency=2, transport_retries=0, breaker_errors=5)
        )
        replies = list(generator.generate(TextRequest(f"k{i}", "hello") for i in range(100)))
        assert len(server.requests) <= 6
    assert len(replies) == 100
    assert sum("given up after" in reply.reason for reply in replies) >= 94
    assert "engine is dead" in replies[-1].reason


def test_single_server_errors_do_not_trip_the_breaker() -> None:
    script = [error(500, "hiccup"), GOOD] * 20
    with FakeOpenAIServer(*script) as server:
        generator = OpenAIServerGenerator(
            settings_for(server, concurrency=1, transport_retries=0, breaker_errors=2)
        )
        replies = list(generator.generate(TextRequest(f"k{i}", "hello") for i in range(40)))
    assert [reply.status for reply in replies] == ["engine_error", "ok"] * 20


def test_refused_credentials_end_the_run() -> None:
    with FakeOpenAIServer(then=lambda _: error(401, "bad key")) as server:
        generator = OpenAIServerGenerator(settings_for(server, concurrency=1))
        replies = list(generator.generate(TextRequest(f"k{i}", "hello") for i in range(20)))
        assert len(server.requests) == 1
    assert len(replies) == 20


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a", "b"], "does not serve 'edit-model'; it serves 'a', 'b'"),
        ([], "it serves nothing"),
        (error(401, "key?"), "environment variable OPENAI_API_KEY"),
        (error(404, "nothing here"), "usually ends in /v1"),
        (Reply(body=b"<html>", kind="text/html"), "usually ends in /v1"),
        (Reply(body=b'{"data": [{"id": "\xff"}]}'), "usually ends in /v1"),
    ],
)
def test_an_unusable_server_is_named_before_any_work(models: object, message: str) -> None:
    from models.generators.openai_session import ServerUnusable

    with FakeOpenAIServer() as server:
        server.models = models
        generator = OpenAIServerGenerator(settings_for(server))
        with pytest.raises(ServerUnusable, match=message):
            generator.check()
        with pytest.raises(ServerUnusable, match=message):
            list(generator.generate([TextRequest("k", "hello")]))
        with pytest.raises(ServerUnusable, match=message):
            settings_for(server).require_host()
        assert server.requests == []


def test_a_server_that_serves_the_model_is_taken() -> None:
    with FakeOpenAIServer() as server:
        settings_for(server).require_host()
        assert server.requests == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:8000/v1", "must start with http:// or https://, not 'localhost:8000/v1'"),
        ("http://", "'http://' names no server; give one such as http://localhost:8000/v1"),
        ("http://localhost:80x0/v1", "names no server"),
        ("https://localhost:99999/v1", "names no server"),
    ],
)
def test_an_address_that_is_none(address: str, message: str) -> None:
    settings = OpenAIServerSettings(model="m", base_url=address)
    with pytest.raises(ValueError, match=message):
        settings.require_host()
    with pytest.raises(ValueError, match=message):
        settings.load()


def test_no_server_at_all() -> None:
    from models.generators.openai_session import ServerUnusable

    with FakeOpenAIServer() as server:
        settings = settings_for(server)
    with pytest.raises(ServerUnusable, match="does not answer; start it"):
        OpenAIServerGenerator(settings).check()
    for absent in (settings, settings.changed(base_url="http://no..name/v1")):
        with pytest.raises(EngineUnavailable, match="does not answer; start it"):
            absent.require_host()


QUOTA = {"message": "You exceeded your current quota, please check your plan and billing details."}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, {"error": {**QUOTA, "code": "insufficient_quota"}}),
        Reply(429, {"error": {"message": "no", "type": "insufficient_quota"}}),
        Reply(429, {"error": {**QUOTA, "code": None}}),
        Reply(402, {"error": {"message": "Insufficient Balance"}}),
        Reply(403, {"message": "Your credit balance is too low"}),
        Reply(400, {"error": {"message": "Your credit balance is too low to use this API"}}),
    ],
)
def test_an_exhausted_quota_is_asked_once(reply: Reply) -> None:
    with FakeOpenAIServer(then=lambda _: reply) as server:
        replies = ask_all(server, concurrency=1, transport_retries=3)
        assert len(server.requests) == 1
    assert {reply.status for reply in replies} == {"engine_error"}
    assert all(reply.gave_up for reply in replies)
    with pytest.raises(EngineUnavailable):
        require_engine(replies)


def test_a_rate_limit_that_passes_is_waited_for() -> None:
    busy = Reply(429, {"error": QUOTA}, {"Retry-After": "0.05"})
    with FakeOpenAIServer(busy, busy, GOOD) as server:
        assert ask(server, transport_retries=3).text == "FINE"


@pytest.mark.parametrize(
    "fault",
    [
        error(400, "odd request 7f3a91"),
        error(404, "nothing here"),
        error(409, "locked"),
        error(418, "teapot"),
        error(422, "odd field"),
        error(500, "boom"),
        Reply(body=b"<html>", kind="text/html"),
        chat(""),
        chat("a", finish="content_filter"),
    ],
)
def test_equal_failures_in_a_row_end_the_run(fault: Reply) -> None:
    with FakeOpenAIServer(then=lambda _: fault) as server:
        replies = ask_all(server, concurrency=2, transport_retries=0, breaker_errors=5)
        assert len(server.requests) <= 7
    assert len(replies) == 100
    assert replies[-1].gave_up


def test_failures_of_single_questions_end_nothing() -> None:
    script = [GOOD, *[error(400, OVERLONG)] * 20, GOOD]
    with FakeOpenAIServer(*script) as server:
        replies = ask_all(server, 22, concurrency=1, breaker_errors=3)
    assert [reply.status for reply in replies] == ["ok", *["overlong"] * 20, "ok"]
