"""Every way a server can fail, and what the client makes of it: a typed reply, never a guess."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from models.captioners.openai_images import OpenAIImageCaptioner
from models.generators.answer_reader import cut_at_stop
from models.generators.answers import EMPTY_ANSWER
from models.generators.openai_server import OpenAIServerGenerator, OpenAIServerSettings
from models.protocols import (
    Captioner,
    CaptionSampling,
    TextGenerator,
    TextRequest,
)
from tests.fakes.asked_servers import GOOD, OVERLONG, ask, ask_all, settings_for
from tests.fakes.openai_server import (
    MODEL,
    FakeOpenAIServer,
    Reply,
    chat,
    chat_bytes,
    completion,
    echo,
    error,
)


@pytest.mark.parametrize(
    ("faults", "num_requests"),
    [
        pytest.param([error(500, "oops")], 2, id="one 500"),
        pytest.param([error(408, "slow")], 2, id="408"),
        pytest.param([error(429, "later", Retry_After="0.1")], 2, id="429 with Retry-After"),
        pytest.param([error(503, "busy", Retry_After="0.1")], 2, id="503 with Retry-After"),
        pytest.param([Reply(fault="reset")], 2, id="reset before headers"),
        pytest.param([replace(GOOD, fault="half")], 2, id="half a body"),
        pytest.param([Reply(body=b'{"id": "1", "cho')], 2, id="truncated JSON"),
        pytest.param([Reply(body=b"<html>hi</html>", kind="text/html")], 2, id="a proxy's page"),
        pytest.param([Reply(body=completion([]))], 2, id="no choices"),
        pytest.param([chat(None)], 2, id="content null"),
        pytest.param([chat("")], 2, id="content empty"),
        pytest.param([chat("a \ud800")], 2, id="half a surrogate pair"),
        pytest.param([chat_bytes(b"a \xff")], 2, id="bytes that are no UTF-8"),
        pytest.param([Reply(fault="reset")] * 2, 3, id="reset beyond the client's retries"),
    ],
)
def test_passing_faults_are_survived(faults: list[Reply], num_requests: int) -> None:
    with FakeOpenAIServer(*faults, GOOD) as server:
        reply = ask(server)
        assert (reply.status, reply.text) == ("ok", "FINE")
        assert len(server.requests) == num_requests


@pytest.mark.parametrize(
    ("fault", "status", "reason", "num_requests"),
    [
        (error(500, "boom"), "engine_error", "InternalServerError", 2),
        (error(400, "bad regex"), "engine_error", "BadRequestError", 1),
        (error(400, OVERLONG), "overlong", "maximum context length is 512", 1),
        (error(401, "who?"), "engine_error", "AuthenticationError", 1),
        (error(403, "no"), "engine_error", "PermissionDeniedError", 1),
        (error(404, "no such model"), "engine_error", "NotFoundError", 1),
        (error(422, "odd field"), "engine_error", "UnprocessableEntityError", 1),
        (error(429, "quota", Retry_After="0.05"), "engine_error", "RateLimitError", 2),
        (Reply(body=b'{"id": "1", "cho'), "rejected", "not JSON", 3),
        (Reply(body=b"<html>", kind="text/html"), "rejected", "str, not a completion", 3),
        (Reply(body=[1]), "rejected", "not a completion", 3),
        (Reply(body=b"[" * 200_000), "rejected", "not JSON: RecursionError", 3),
        (Reply(body=b'{"id": 1' + b"0" * 5000 + b"}"), "rejected", "not JSON: ValueError", 3),
        (chat_bytes(b"a \xff b"), "rejected", "not JSON: UnicodeDecodeError", 3),
        (chat_bytes(b"a \xed\xa0\x80 b"), "rejected", r"Unicode: 'a \\ud800 b'", 3),
        (chat("make it \ud800 red"), "rejected", r"Unicode: 'make it \\ud800 red'", 3),
        (chat("a", finish="\udfff"), "rejected", r"ended by '\\udfff'", 3),
        (error(400, "no \ud800 here"), "engine_error", r"no \\ud800 here", 1),
        (Reply(body={"id": "1"}), "rejected", "choices is NoneType", 3),
        (Reply(body=completion([])), "rejected", "0 choices", 3),
        (Reply(body=completion("none")), "rejected", "choices is str", 3),
        (Reply(body=completion([17])), "rejected", "numbered", 3),
        (Reply(body=completion([{"index": 0, "message": "hi"}])), "rejected", "NoneType", 3),
        (chat("a", "b"), "rejected", "2 choices", 3),
        (chat("a", indices=[4]), "rejected", r"numbered \[4\]", 3),
        (chat(None), "rejected", "NoneType, not text", 3),
        (chat(["a"]), "rejected", "list, not text", 3),
        (chat(" \n "), "rejected", EMPTY_ANSWER, 3),
        (chat("a", finish=None), "rejected", "ended by None", 3),
        (chat("a", finish="content_filter"), "rejected", "content_filter", 3),
    ],
)
def test_lasting_faults_become_typed_replies(
    fault: Reply, status: str, reason: str, num_requests: int
) -> None:
    with FakeOpenAIServer(then=lambda _: fault) as server:
        reply = ask(server)
        assert (reply.key, reply.text, reply.status) == ("k", "", status)
        assert re.search(reason, reply.reason)
        assert reply.reason.encode()  # a table can hold it
        assert len(server.requests) == num_requests


def test_a_server_that_hangs_is_asked_again_and_then_a_timeout() -> None:
    with FakeOpenAIServer(then=lambda _: Reply(fault="hang")) as server:
        reply = ask(server, timeout=0.3)
        assert (reply.key, reply.text, reply.status) == ("k", "", "timeout")
        assert "in time" in reply.reason
        assert len(server.requests) == 2


def test_one_read_timeout_is_survived() -> None:
    with FakeOpenAIServer(Reply(fault="hang"), GOOD) as server:
        reply = ask(server, timeout=2.0)
        assert (reply.status, reply.text) == ("ok", "FINE")
        assert len(server.requests) == 2


def test_a_whole_surrogate_pair_is_text() -> None:
    with FakeOpenAIServer(chat_bytes(rb"a \ud83d\ude00")) as server:
        assert ask(server).text == "a \U0001f600"


def test_the_token_limit_is_an_allowed_end() -> None:
    with FakeOpenAIServer(chat("cut sho", finish="length")) as server:
        reply = ask(server)
    assert (reply.text, reply.finish_reason) == ("cut sho", "length")


def test_a_request_says_everything() -> None:
    request = TextRequest("k", "hello", 17, temperature=0.7, top_p=0.9, seed=5, stop=("\n\n",))
    with FakeOpenAIServer() as server:
        assert ask(server, request).text == "HELLO"
        (sent,) = server.requests
    assert sent == {
        "path": "/v1/chat/completions",
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 17,
        "temperature": 0.7,
        "top_p": 0.9,
        "n": 1,
        "seed": 5,
        "stop": ["\n\n"],
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
        "reasoning_effort": "none",
    }


def test_completions_mode_sends_the_bare_prompt_and_greedy_requests_no_seed() -> None:
    with FakeOpenAIServer() as server:
        assert ask(server, api="completions").text == "HELLO"
        (sent,) = server.requests
    assert sent["path"] == "/v1/completions"
    assert sent["prompt"] == "hello"
    assert "messages" not in sent
    assert "seed" not in sent


def test_a_new_attempt_draws_anew() -> None:
    request = TextRequest("k", "hello", temperature=1.0, seed=2**31 - 1)
    with FakeOpenAIServer(chat(""), chat(""), GOOD) as server:
        reply = ask(server, request)
        assert reply.attempts == 3
        assert [sent["seed"] for sent in server.requests] == [2**31 - 1, 0, 1]


def test_the_key_comes_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_LLM_API_KEY", "s3cret")
    with FakeOpenAIServer(error(400, "no")) as server:
        settings = settings_for(server, api_key_env="MY_LLM_API_KEY")
        (reply,) = settings.load().generate([TextRequest("k", "hello")])
        assert server.authorizations == ["Bearer s3cret"]
    assert "s3cret" not in f"{reply} {settings.fingerprint}"


def test_many_requests_are_answered_once_each_and_few_at_a_time() -> None:
    def slow_echo(request: Mapping[str, Any]) -> Reply:
        time.sleep(0.01)
        return echo(request)

    requests = [TextRequest(f"k{i}", f"word {i}") for i in range(60)]
    with FakeOpenAIServer(then=slow_echo) as server:
        generator = OpenAIServerGenerator(settings_for(server, concurrency=4))
        replies = list(generator.generate(requests))
        assert 2 <= server.most_in_flight <= 4
        assert len(server.requests) == 60
    assert {reply.key: reply.text for reply in replies} == {f"k{i}": f"WORD {i}" for i in range(60)}


def test_replies_stream_and_requests_are_drawn_as_needed() -> None:
    taken = []

    def requests():
        for i in range(100):
            taken.append(i)
            yield TextRequest(f"k{i}", "hello")

    with FakeOpenAIServer() as server:
        replies = OpenAIServerGenerator(settings_for(server, concurrency=3)).generate(requests())
        next(replies)
        assert len(taken) == 3
        replies.close()  # leaves no thread and no open request behind


@pytest.mark.parametrize(
    "changes",
    [
        {"api": "talk"},
        {"base_url": "host:80"},
        {"concurrency": 0},
        {"attempts": 0},
        {"api_key_env": "AWS_SECRET_ACCESS_KEY"},
    ],
)
def test_settings_are_checked(changes: dict[str, Any]) -> None:
    good = OpenAIServerSettings(base_url="http://host/v1", model="m")
    with pytest.raises(ValueError, match=next(iter(changes))):
        good.changed(**changes).load()


def test_the_fingerprint_holds_no_address() -> None:
    settings = OpenAIServerSettings(base_url="http://host/v1", model="m", identity="rev 1")
    elsewhere = settings.changed(base_url="http://other/v1", concurrency=3)
    assert isinstance(settings.load(), TextGenerator)
    assert settings.fingerprint == elsewhere.fingerprint
    assert settings.fingerprint != settings.changed(identity="rev 2").fingerprint


def test_images_travel_inside_the_request() -> None:
    sampling = CaptionSampling(n=3, top_p=0.8, max_new_tokens=9, seed=1, prompt="what is it")
    images = [(name, Image.new("RGB", (5, 4), name)) for name in ("red", "blue")]
    with FakeOpenAIServer() as server:
        captioner = OpenAIImageCaptioner(settings_for(server))
        assert isinstance(captioner, Captioner)
        replies = {reply.key: reply for reply in captioner.caption(images, sampling)}
        sent = server.requests[0]
    assert replies["red"].captions == ("WHAT IS IT", "WHAT IS IT 1", "WHAT IS IT 2")
    assert sent["n"] == 3
    assert sent["max_tokens"] == 9
    assert sent["messages"][0]["content"][1]["image_url"]["url"].startswith(
        "data:image/png;base64,iVBOR"
    )
    assert server.requests[0]["seed"] != server.requests[1]["seed"]


def test_fewer_captions_than_asked_for_are_refused() -> None:
    with FakeOpenAIServer(then=lambda _: chat("one")) as server:
        captioner = OpenAIImageCaptioner(settings_for(server))
        (reply,) = captioner.caption([("k", Image.new("RGB", (2, 2)))], CaptionSampling(n=15))
    assert (reply.status, reply.captions) == ("rejected", ())
    assert "1 choices came back, 15 asked for" in reply.reason


def test_a_server_that_drips_meets_the_deadline() -> None:
    with FakeOpenAIServer(then=lambda _: replace(GOOD, fault="drip")) as server:
        reply = ask(server, timeout=0.5, transport_retries=0)
    assert (reply.status, reply.reason) == ("timeout", "the server did not answer in time")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(body=b'{"id": "' + b"a" * 5_000_000), "larger than 4,194,304 bytes"),
        (replace(chat("a " * 100), headers={"Content-Encoding": "gzip"}), "is compressed"),
        (chat("word " * 20_000), "has 100,000 characters, which 30 tokens cannot"),
        (replace(error(500, "x" * 5_000_000)), "larger than"),
    ],
)
def test_a_flood_is_refused(reply: Reply, reason: str) -> None:
    with FakeOpenAIServer(then=lambda _: reply) as server:
        found = ask(server, TextRequest("k", "hello", 30), transport_retries=0)
    assert found.status == "rejected"
    assert reason in found.reason


def named(model: object) -> Reply:
    return Reply(body={**GOOD.body, "model": model})


@pytest.mark.parametrize(
    "model", [MODEL, f"{MODEL}-2024-08-06", f"{MODEL}-0613", f"{MODEL}:latest", f"org/{MODEL}"]
)
def test_the_model_of_a_reply_is_recorded(model: str) -> None:
    with FakeOpenAIServer(named(model)) as server:
        reply = ask(server)
    assert (reply.text, reply.answered_by) == ("FINE", model)


@pytest.mark.parametrize("model", ["other", f"{MODEL}-mini", f"{MODEL}-32k", "edit", 7])
def test_another_model_ends_the_run(model: object) -> None:
    with FakeOpenAIServer(then=lambda _: named(model)) as server:
        replies = ask_all(server, 20, concurrency=1)
        assert len(server.requests) == 1
        known_as = ask(server, reply_model=str(model))
    assert all(reply.gave_up for reply in replies)
    assert f"by the model '{model}', 'edit-model' was asked for" in replies[0].reason
    assert known_as.answered_by == str(model)


def test_control_characters_reach_nobody() -> None:
    with FakeOpenAIServer(chat("\x1b[31ma\x00 r\x85d\x7f\n\x1b]0;t\x07cat\u202e")) as server:
        assert ask(server).text == "a r\nd\ncat"
    with FakeOpenAIServer(error(400, "no \x1b[31m\x00 way")) as server:
        reason = ask(server).reason
    assert not {character for character in reason if ord(character) < 32}
    assert "no  way" in reason or "no way" in reason


# ------------------------------------------------------------------------ thinking and stops


@pytest.mark.parametrize(
    ("refused", "accepted"),
    [
        ((), {"chat_template_kwargs", "reasoning_effort"}),
        (("chat_template_kwargs",), {"reasoning_effort"}),
        (("reasoning_effort",), {"chat_template_kwargs"}),
        (("chat_template_kwargs", "reasoning_effort"), set()),
    ],
)
def test_a_server_that_refuses_fields_is_asked_without(refused: Any, accepted: set[str]) -> None:
    def picky(request: Mapping[str, Any]) -> Reply:
        if field := next((field for field in refused if field in request), ""):
            return error(400, f"Unrecognized request argument supplied: {field}")
        return echo(request)

    with FakeOpenAIServer(then=picky) as server:
        replies = ask_all(server, 10, concurrency=1)
        last = server.requests[-1]
        assert len(server.requests) <= 14
    assert {reply.status for reply in replies} == {"ok"}
    assert {"chat_template_kwargs", "reasoning_effort"} & set(last) == accepted


@pytest.mark.parametrize(
    "cut", ["", "<think>\nOkay, the user wants a car.", "Okay, so the user wants a car."]
)
def test_a_stop_string_that_comes_before_the_answer_is_left_out(cut: str) -> None:
    def stopping(request: Mapping[str, Any]) -> Reply:
        return chat(cut) if "stop" in request else chat(f"{cut}</think>\n\na red car\n\nmore")

    request = TextRequest("k", "hello", stop=("\n\n",))
    with FakeOpenAIServer(then=stopping) as server:
        generator = OpenAIServerGenerator(settings_for(server, concurrency=1))
        replies = list(generator.generate([request] * 10))
        assert len(server.requests) == 11
    assert {cut_at_stop(reply.text, ()) for reply in replies} == {f"{cut}</think>\n\na red car"}
    assert {reply.attempts for reply in replies} == {1, 2}


def test_reasoning_beside_an_empty_text_is_said() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "The user wants"}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    with FakeOpenAIServer(then=lambda _: Reply(body=completion([choice]))) as server:
        reply = ask(server)
    assert reply.reason == "the model answered reasoning alone, cut at the token limit"
