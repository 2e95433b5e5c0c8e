"""The verifier behind a server: what is asked, how answers are read, which servers are refused."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from models.protocols import EngineUnavailable
from models.verifiers.grid import draw_grid, marks_of
from models.verifiers.openai_verifier import OpenAIVerifierSettings, margin_of
from models.verifiers.prompt import GRID_PROMPTS
from models.verifiers.protocol import (
    Choice,
    GridRequest,
    Verification,
    VerificationRequest,
    sigmoid,
)
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, chat, completion, error

Listed = Mapping[str, float]
FIRST = {"yes": math.log(0.6), "Yes": math.log(0.15), " no": math.log(0.05), "The": math.log(0.2)}


def answered(listed: Listed | list[dict[str, Any]], text: str = "yes") -> Reply:
    """A chat completion of one token with its likeliest alternatives."""
    entries = (
        [{"token": t, "bytes": list(t.encode()), "logprob": v} for t, v in listed.items()]
        if isinstance(listed, Mapping)
        else listed
    )
    position = {"token": text, "bytes": None, "logprob": -0.1, "top_logprobs": entries}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "length",
        "logprobs": {"content": [position]},
    }
    return Reply(body=completion([choice]))


def without_logprobs() -> Reply:
    """The answer of a server that ignores what it was asked for."""
    message = {"role": "assistant", "content": "yes"}
    return Reply(body=completion([{"index": 0, "message": message, "finish_reason": "length"}]))


def settings(server: FakeOpenAIServer, **changes: Any) -> OpenAIVerifierSettings:
    given = {
        **{"model": MODEL, "base_url": server.base_url, "attempts": 2, "transport_retries": 0},
        **{"skip_self_test": True, "timeout": 2.0, "concurrency": 1},
    }
    return OpenAIVerifierSettings.model_validate({**given, **changes})


def request(key: str = "a", text: str = "make it red") -> VerificationRequest:
    red, blue = (Image.new("RGB", (24, 16), colour) for colour in ("red", "blue"))
    return VerificationRequest(
        key=key, reference_id="r", reference=red, text=text, candidate_id="c", candidate=blue
    )


def verify(server: FakeOpenAIServer, *keys: str, **changes: Any) -> list[Verification]:
    requests = [request(key) for key in keys or ("a",)]
    return list(settings(server, **changes).load().verify(requests))


def test_what_is_asked_and_how_the_answer_is_read() -> None:
    with FakeOpenAIServer(answered(FIRST)) as server:
        [answer] = verify(server)
    assert answer.status == "ok"
    assert answer.margin == pytest.approx(math.log(0.75 / 0.05))  # both spellings of yes
    assert answer.mass == pytest.approx(0.8)
    assert answer.answer == "yes"
    [asked] = server.requests
    assert (asked["max_tokens"], asked["temperature"], asked["n"]) == (1, 0.0, 1)
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 20)
    assert "seed" not in asked
    system, user = asked["messages"]
    assert system["role"] == "system"
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    assert "make it red" in user["content"][0]["text"]
    urls = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    raw = [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in urls]
    colours = [Image.open(io.BytesIO(data)).getpixel((3, 3)) for data in raw]
    assert colours == [(255, 0, 0), (0, 0, 255)]  # the reference comes first


@pytest.mark.parametrize(
    ("listed", "margin", "mass", "status"),
    [
        ({"yes": -0.5, "no": -1.5}, 1.0, math.exp(-0.5) + math.exp(-1.5), "ok"),
        ({" YES\n": -0.5, "NO": -1.0, "no": -1.0}, 0.5 - math.log(2), None, "ok"),
        ({"yes": -0.5, "maybe": -3.0, "the": -4.0}, 3.5, math.exp(-0.5), "censored"),
        ({"no": -0.5, "maybe": -3.0, "the": -4.0}, -3.5, math.exp(-0.5), "censored"),
        ({"the": -0.5, "yesterday": -1.0}, None, 0.0, "off_format"),
        ({"yes": -0.5, "no": -math.inf, "the": -2.0}, 1.5, None, "censored"),
    ],
)
def test_margins_of_lists(
    listed: Listed, margin: float | None, mass: float | None, status: str
) -> None:
    found = margin_of(listed)
    assert found[0] == (None if margin is None else pytest.approx(margin))
    assert found[2] == status
    if mass is not None:
        assert found[1] == pytest.approx(mass)


def test_a_bound_is_kept_and_an_odd_word_is_not_believed() -> None:
    first = answered({"yes": -0.1, "sure": -3.0})
    second = answered({"The": -0.1, "A": -3.0}, text="The")
    with FakeOpenAIServer(first, second) as server:
        bound, other = verify(server, "a", "b")
    assert (bound.status, bound.margin) == ("censored", pytest.approx(2.9))
    assert bound.reason
    assert (other.status, other.margin, other.answer) == ("off_format", None, "The")


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        (answered([]), "rejected", "lists no likely tokens"),
        (answered([{"token": "yes", "logprob": "high"}]), "rejected", "log-probability"),
        (answered([{"token": "yes", "logprob": 0.7}]), "rejected", "log-probability"),
        (answered([{"token": "yes", "logprob": math.nan}]), "rejected", "log-probability"),
        (answered([{"token": 5, "logprob": -1.0}]), "rejected", "not text"),
        (without_logprobs(), "rejected", "lists no likely tokens"),
        (Reply(body=b"<html>"), "rejected", ""),
        (replace(answered(FIRST), fault="half"), "engine_error", ""),
        (Reply(fault="hang"), "timeout", ""),
        (error(400, "maximum context length is 256 tokens"), "overlong", "256"),
        (error(500, "boom"), "engine_error", "boom"),
    ],
)
def test_each_fault_of_a_server_has_a_status(reply: Reply, status: str, said: str) -> None:
    def answer(asked: Mapping[str, Any]) -> Reply:
        is_bad = "break" in asked["messages"][-1]["content"][0]["text"]
        return reply if is_bad else answered(FIRST)

    requests = [request("a", "break it"), request("b")]
    with FakeOpenAIServer(then=answer) as server:
        bad, good = settings(server, timeout=0.5).load().verify(requests)
    assert (bad.key, bad.status, bad.margin) == ("a", status, None)
    assert said in bad.reason
    assert (good.key, good.status) == ("b", "ok")


def test_answers_of_another_model_are_not_believed() -> None:
    """The server is given up: what is still to be asked would fail alike."""
    other = answered(FIRST)
    other = replace(other, body={**other.body, "model": "another"})
    with FakeOpenAIServer(then=lambda asked: other) as server:
        found = verify(server, "a", "b", "c")
    assert [(each.key, each.margin) for each in found] == [(key, None) for key in "abc"]
    assert all(each.status == "engine_error" and each.gave_up for each in found)
    assert "answers by the model 'another'" in found[0].reason
    assert len(server.requests) == 1


def test_a_picture_that_cannot_be_sent_is_an_answer_of_its_own() -> None:
    line = Image.new("RGB", (4000, 1))
    odd = VerificationRequest(
        key="odd", reference_id="r", reference=line, text="x", candidate_id="c", candidate=line
    )
    with FakeOpenAIServer(then=lambda _: answered(FIRST)) as server:
        found = {a.key: a for a in settings(server).load().verify([odd, request("b")])}
    assert found["odd"].status == "engine_error"
    assert found["b"].status == "ok"
    assert len(server.requests) == 1


def judging(judge: Callable[[str, bytes, bytes], float]) -> Callable[[Mapping[str, Any]], Reply]:
    """A server whose margin follows from text, reference and candidate."""

    def answer(asked: Mapping[str, Any]) -> Reply:
        parts = asked["messages"][-1]["content"]
        urls = [part["image_url"]["url"].encode() for part in parts if part["type"] == "image_url"]
        margin = judge(parts[0]["text"], *urls)
        yes = 1 / (1 + math.exp(-margin))
        return answered({"yes": math.log(yes), "no": math.log(1 - yes)})

    return answer


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda text, a, b: 0.001 * (len(b) % 7), "hardly depends on the pair"),
        (lambda text, a, b: 3.0, "hardly depends on the pair"),
        (lambda text, a, b: 2.0 if "circle" in text else -2.0, "exchanged"),
        (lambda text, a, b: 1.0 + 0.01 * (len(a) % 97), "does not depend on the candidate"),
    ],
)
def test_a_server_that_does_not_look_is_refused(
    judge: Callable[[str, bytes, bytes], float], said: str
) -> None:
    with FakeOpenAIServer(then=judging(judge)) as server:
        with pytest.raises(EngineUnavailable, match=said):
            verify(server, skip_self_test=False)
        assert len(server.requests) == 9
        assert verify(server)[0].status == "ok"  # skipped by name


def test_a_server_that_looks_is_tested_once() -> None:
    def looks(text: str, reference: bytes, candidate: bytes) -> float:
        return (sum(reference) + 3 * sum(candidate)) % 11 - 5.0

    with FakeOpenAIServer(then=judging(looks)) as server:
        verifier = settings(server, skip_self_test=False).load()
        for _ in range(2):
            assert [a.status for a in verifier.verify([request("a"), request("b")])] == ["ok"] * 2
        assert len(server.requests) == 9 + 4


def test_the_identity_has_no_address() -> None:
    here = OpenAIVerifierSettings(model="m", base_url="http://a/v1", concurrency=3)
    there = OpenAIVerifierSettings(model="m", base_url="http://b/v1", skip_self_test=True)
    assert here.fingerprint == there.fingerprint
    assert here.fingerprint != here.changed(identity="bf16").fingerprint
    assert here.fingerprint != here.changed(prompts={"judge": ""}).fingerprint


# --------------------------------------------------------------------------- several in one picture

MARKED = {"2": math.log(0.5), "1": math.log(0.25), " 3": math.log(0.125), "The": math.log(0.1)}


def grid_request(key: str = "a", text: str = "make it red", answer: Any = "logits") -> GridRequest:
    pictures = [Image.new("RGB", (24, 16), colour) for colour in ("red", "blue", "green")]
    return GridRequest(
        key=key,
        reference=pictures[0],
        text=text,
        grid=draw_grid(pictures, 32),
        marks=marks_of(3),
        answer=answer,
    )


def choose(server: FakeOpenAIServer, *requests: GridRequest, **changes: Any) -> list[Choice]:
    own = settings(server, prompts=GRID_PROMPTS, **changes)
    return list(own.load().choose(requests))


def test_a_grid_is_one_question_of_two_pictures() -> None:
    with FakeOpenAIServer(answered(MARKED, "2")) as server:
        [choice] = choose(server, grid_request())
    assert (choice.status, choice.answer) == ("ok", "2")
    assert [sigmoid(m) for m in choice.margins] == pytest.approx([2 / 7, 4 / 7, 1 / 7])
    assert choice.mass == pytest.approx(0.875)
    [asked] = server.requests
    assert (asked["max_tokens"], asked["temperature"], asked["top_logprobs"]) == (1, 0.0, 20)
    parts = asked["messages"][-1]["content"]
    assert [p["type"] for p in parts] == ["text", "image_url", "text", "image_url", "text"]
    url = parts[3]["image_url"]["url"].removeprefix("data:image/png;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(url)))
    assert sent.size == draw_grid([Image.new("RGB", (1, 1))] * 3, 32).size
    assert "marks" in parts[4]["text"]


def test_an_order_in_text_asks_for_no_logits() -> None:
    thought = "<think>2 is red.</think>\n2 > 3 > 1"
    with FakeOpenAIServer(chat(thought)) as server:
        [choice] = choose(server, grid_request(answer="order"))
    assert choice.status == "ok"
    assert [sigmoid(m) for m in choice.margins] == pytest.approx([1 / 6, 5 / 6, 1 / 2])
    assert choice.mass is None
    [asked] = server.requests
    assert "logprobs" not in asked
    assert asked["max_tokens"] > 26


@pytest.mark.parametrize(
    ("reply", "answer", "status", "said"),
    [
        (answered({"The": -0.1, "A": -2.0}), "logits", "off_format", "none of the 3 marks"),
        (answered({"2": -0.1, "A": -2.0}), "logits", "censored", "2 of 3 marks"),
        (answered([]), "logits", "rejected", "lists no likely tokens"),
        (without_logprobs(), "logits", "rejected", "lists no likely tokens"),
        (Reply(fault="hang"), "logits", "timeout", ""),
        (error(400, "maximum context length is 256 tokens"), "logits", "overlong", "256"),
        (error(500, "boom"), "logits", "engine_error", "boom"),
        (chat("2"), "order", "incomplete", "2 of 3 marks"),
        (chat("the second"), "order", "off_format", "not a mark"),
        (chat("2 > 4 > 1"), "order", "off_format", "not a mark"),
        (chat("2 > 2 > 1"), "order", "off_format", "twice"),
        (Reply(fault="hang"), "order", "timeout", ""),
    ],
)
def test_each_malformed_choice_has_a_status(
    reply: Reply, answer: Any, status: str, said: str
) -> None:
    whole = answered(MARKED, "2") if answer == "logits" else chat("2 > 3 > 1")

    def respond(asked: Mapping[str, Any]) -> Reply:
        return reply if "break" in asked["messages"][-1]["content"][0]["text"] else whole

    requests = [grid_request("a", "break it", answer), grid_request("b", answer=answer)]
    with FakeOpenAIServer(then=respond) as server:
        bad, good = choose(server, *requests, timeout=0.5)
    assert (bad.key, bad.status) == ("a", status)
    assert bool(bad.margins) == (status in ("censored", "incomplete"))
    assert said in bad.reason
    assert bad.reason
    assert (good.key, good.status) == ("b", "ok")


def test_a_server_that_does_not_look_at_a_grid_is_refused() -> None:
    """Its favourite place stays the same whatever stands there; another one is asked on."""

    def looks(asked: Mapping[str, Any]) -> Reply:
        parts = asked["messages"][-1]["content"]
        url = parts[3]["image_url"]["url"].encode()
        return answered({"1": -0.1 - sum(url) % 97 / 100, "2": -2.0, "3": -3.0, "4": -4.0})

    with FakeOpenAIServer(then=lambda _: answered({"1": -0.1, "2": -3.0, "3": -4.0})) as server:
        with pytest.raises(EngineUnavailable, match="when the pictures of a grid change places"):
            choose(server, grid_request(), skip_self_test=False)
        assert len(server.requests) == 2
    with FakeOpenAIServer(then=looks) as server:
        own = settings(server, prompts=GRID_PROMPTS, skip_self_test=False).load()
        for _ in range(2):
            assert [c.status for c in own.choose([grid_request("a")])] == ["ok"]
        assert len(server.requests) == 2 + 2
        assert list(own.choose([])) == []
