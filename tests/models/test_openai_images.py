"""Captions through a server that misbehaves: every image ends as a reply that says why."""

from __future__ import annotations

import base64
import io
import json
import threading

import pytest
from PIL import Image

from models.captioners import openai_images
from models.captioners.chat import DEFAULT_PROMPT
from models.captioners.openai_images import OpenAIImageCaptioner, OpenAIImagesSettings
from models.protocols import Captioner, CaptionReply, CaptionSampling
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, chat, error
from tests.fakes.pictures import pixels

GREEDY = CaptionSampling(n=1, mode="greedy", max_new_tokens=128)
THREE = CaptionSampling(n=3, seed=4)


def captioner(server: FakeOpenAIServer, **changes: object) -> OpenAIImageCaptioner:
    """A client that gives up soon."""
    return settings_for(server, **changes).load()


def settings_for(server: FakeOpenAIServer, **changes: object) -> OpenAIImagesSettings:
    """Settings with every patience cut down to test size."""
    settings: dict[str, object] = {
        "base_url": server.base_url,
        "model": MODEL,
        "transport_retries": 0,
        "attempts": 2,
        "timeout": 60.0,
        "health_wait_seconds": 60.0,
        "health_poll_seconds": 0.05,
    }
    return OpenAIImagesSettings(**settings | changes)  # type: ignore[arg-type]


def one(server: FakeOpenAIServer, sampling: CaptionSampling = GREEDY, **changes) -> CaptionReply:
    """What becomes of one image."""
    (reply,) = captioner(server, **changes).caption([("k", pixels())], sampling)
    return reply


def test_fulfils_the_protocol() -> None:
    with FakeOpenAIServer() as server:
        assert isinstance(captioner(server), Captioner)


def test_the_question_is_that_of_the_captioner_in_process() -> None:
    with FakeOpenAIServer() as server:
        one(server)
        own = CaptionSampling(n=1, mode="greedy", prompt="what is it?")
        one(server, own)
    asked = [request["messages"][0]["content"] for request in server.requests]
    assert [content[0]["text"] for content in asked] == [DEFAULT_PROMPT.template, "what is it?"]
    assert [r["temperature"] for r in server.requests] == [0.0, 0.0]
    assert [r["max_tokens"] for r in server.requests] == [128, 30]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
def test_the_pixels_arrive_unchanged(mode: str) -> None:
    image = pixels().convert(mode)
    with FakeOpenAIServer() as server:
        list(captioner(server).caption([("k", image)], GREEDY))
    url = server.requests[0]["messages"][0]["content"][1]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert sent.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Reply(body=b'{"id": "1", "choices": [{"ind'), "rejected", "not JSON"),
        (Reply(body=b"<html>busy</html>", kind="text/html"), "rejected", "str, not a completion"),
        (chat(), "rejected", "0 choices came back, 1 asked for"),
        (chat(None), "rejected", "NoneType, not text"),
        (chat(""), "rejected", "answered nothing"),
        (chat(" \n "), "rejected", "answered nothing"),
        (chat("a dog", "a cat"), "rejected", "2 choices came back, 1 asked for"),
        (chat("a \udcff dog"), "rejected", "not valid Unicode: 'a \\udcff dog'"),
        (error(400, "no \ud800 here"), "engine_error", "no \\ud800 here"),
        (chat("a dog", finish="content_filter"), "rejected", "content_filter"),
        (error(400, "maximum context length is 256 tokens"), "overlong", "256 tokens"),
        (error(400, "cannot identify image file"), "engine_error", "cannot identify image file"),
        (error(422, "image_url is not supported"), "engine_error", "image_url is not supported"),
        (Reply(fault="half", body={"id": "1", "choices": []}), "engine_error", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_that_are_no_caption(answer: Reply, status: str, reason: str) -> None:
    with FakeOpenAIServer(then=lambda request: answer) as server:
        reply = one(server)
    assert (reply.key, reply.status, reply.captions) == ("k", status, ())
    assert reason in reply.reason
    assert reply.reason.encode()  # a table can hold it


def test_a_late_answer_is_a_timeout() -> None:
    with FakeOpenAIServer(then=lambda request: Reply(fault="hang")) as server:
        reply = one(server, timeout=0.3)
    assert (reply.status, reply.captions) == ("timeout", ())


def test_an_answer_cut_at_the_limit_is_a_caption() -> None:
    """Long captions are cut in process too."""
    with FakeOpenAIServer(then=lambda request: chat("a dog  on\na", finish="length")) as server:
        assert one(server) == CaptionReply("k", ("a dog on a",))


def test_fewer_samples_than_asked_for_are_none() -> None:
    with FakeOpenAIServer(chat("a", "b"), chat("a", "b", "c")) as server:
        assert one(server, THREE).captions == ("a", "b", "c")
    assert len(server.requests) == 2


def test_an_image_is_encoded_beside_the_requests_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The large image's encoding ends only when the small one has been answered."""
    answered = threading.Event()
    encode = openai_images.data_url

    def slow_where_large(image: Image.Image) -> str:
        assert image.width < 100 or answered.wait(60)
        return encode(image)

    monkeypatch.setattr(openai_images, "data_url", slow_where_large)
    images = [("large", Image.new("RGB", (100, 100))), ("small", pixels())]
    with FakeOpenAIServer() as server:
        replies = captioner(server).caption(images, GREEDY)
        assert next(replies).key == "small"
        answered.set()
        assert next(replies).key == "large"


def test_one_bad_image_does_not_harm_the_others() -> None:
    def answer(request):
        url = request["messages"][0]["content"][1]["image_url"]["url"]
        sent = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
        name = "red" if sent.getpixel((0, 0)) == (255, 0, 0) else "other"
        return error(400, "cannot be decoded") if name == "red" else chat(name)

    broken = Image.open(io.BytesIO(b"P6 4 4 255 abc"))  # fails when its pixels are read
    images = [
        ("a", pixels(1)),
        ("red", Image.new("RGB", (4, 4), "red")),
        ("line", Image.new("RGB", (9000, 1))),
        ("broken", broken),
        ("b", pixels(2)),
    ]
    with FakeOpenAIServer(then=answer) as server:
        replies = {r.key: r for r in captioner(server).caption(images, GREEDY)}
    assert {key: reply.status for key, reply in replies.items()} == {
        "a": "ok",
        "b": "ok",
        "red": "engine_error",
        "line": "engine_error",
        "broken": "engine_error",
    }
    assert "9000x1" in replies["line"].reason
    assert len(server.requests) == 3


def test_the_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with FakeOpenAIServer() as server:
        settings = settings_for(server)
        list(settings.load().caption([("k", pixels())], GREEDY))
    assert server.authorizations == ["Bearer sk-secret"]
    assert "sk-secret" not in json.dumps(settings.fingerprint)
    assert "127.0.0.1" not in json.dumps(settings.fingerprint)
