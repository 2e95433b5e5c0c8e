"""The embedder behind a server: what is asked, how vectors are read, which servers are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.embedders.openai_embedder import OpenAIEmbedderSettings
from models.embedders.protocol import ComposedQuery
from models.protocols import EngineUnavailable
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, error

RED = Image.new("RGB", (24, 16), "red")
QUERY = ComposedQuery((RED,), "make it blue")


def embedding(*vectors: object, model: str = MODEL) -> Reply:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return Reply(body={"object": "list", "model": model, "data": data, "usage": usage})


def by_content(request: Mapping[str, Any], without: str = "") -> Reply:
    """A vector that depends on the whole request, or on all but one kind of content."""
    messages = [
        (m["role"], [p for p in m["content"] if isinstance(p, str) or p["type"] != without])
        for m in request["messages"]
        if m["role"] != without
    ]
    digest = hashlib.sha256(json.dumps(messages).encode()).digest()
    return embedding([byte / 128 - 1 for byte in digest[:4]])


def settings(server: FakeOpenAIServer, **changes: Any) -> OpenAIEmbedderSettings:
    given = {
        **{"model": MODEL, "base_url": server.base_url, "attempts": 2, "transport_retries": 0},
        **{"skip_self_test": True, "timeout": 2.0, "concurrency": 2, "width": 4},
    }
    return OpenAIEmbedderSettings.model_validate({**given, **changes})


def test_what_is_asked_and_how_the_vector_is_read() -> None:
    with FakeOpenAIServer(embedding([3.0, 0, 0, 4.0])) as server:
        found = settings(server).load().encode_composed([QUERY], "Find it")
    np.testing.assert_allclose(found.vectors, [[0.6, 0, 0, 0.8]])
    assert found.reasons == ("",)
    [asked] = server.requests
    assert asked["path"] == "/v1/embeddings"
    assert "input" not in asked
    assert (asked["add_generation_prompt"], asked["continue_final_message"]) == (True, False)
    assert (asked["add_special_tokens"], asked["encoding_format"]) == (True, "float")
    system, user = asked["messages"]
    assert system == {"role": "system", "content": "Find it."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert user["content"][1]["text"] == "make it blue"


def test_a_form_whose_prompt_goes_on_begins_the_answer() -> None:
    with FakeOpenAIServer(then=by_content) as server:
        chosen = settings(server, form={"preset": "gme"}, cut=True)
        chosen.load().encode_targets([RED])
    [asked] = server.requests
    assert asked["messages"][0]["content"] == "You are a helpful assistant."
    assert asked["messages"][-1] == {"role": "assistant", "content": "<|endoftext|>"}
    assert (asked["add_generation_prompt"], asked["continue_final_message"]) == (False, True)
    assert asked["dimensions"] == 4
    assert asked["mm_processor_kwargs"] == {"min_pixels": 200_704, "max_pixels": 1_003_520}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (embedding([1.0, 2.0]), "has 2 numbers, embedder.width=4"),
        (embedding([1.0] * 4, [1.0] * 4), "holds 2 embeddings"),
        (embedding([0.0] * 4), "all zeros"),
        (embedding([1.0, "x", 0.0, 0.0]), "'x'"),
        (Reply(body=b"<html>", kind="text/html"), "rejected"),
        (error(400, "maximum context length is 4 tokens"), "overlong"),
    ],
)
def test_a_bad_answer_is_the_reason_of_its_row(reply: Reply, said: str) -> None:
    with FakeOpenAIServer(reply, reply, then=by_content) as server:
        queries = [QUERY, ComposedQuery((), "alone")]
        found = settings(server, concurrency=1).load().encode_composed(queries, "")
    assert said in found.reasons[0]
    assert found.reasons[1] == "" or said in found.reasons[1]
    assert not found.vectors[0].any()


def test_another_model_ends_the_run() -> None:
    other = embedding([1.0] * 4, model="another")
    with FakeOpenAIServer(other) as server:
        embedder = settings(server, concurrency=1).load()
        with pytest.raises(EngineUnavailable, match="'another'"):
            embedder.encode_composed([QUERY, QUERY], "")
    assert len(server.requests) == 1


def test_a_server_that_ignores_a_part_is_refused() -> None:
    for without, said in (
        ("image_url", "does not depend on the picture"),
        ("text", "does not depend on the text"),
        ("system", "does not depend on the instruction"),
    ):
        with FakeOpenAIServer(then=lambda r, w=without: by_content(r, w)) as server:  # type: ignore[misc]
            tested = settings(server, skip_self_test=False).load()
            with pytest.raises(EngineUnavailable, match=said):
                tested.encode_composed([QUERY], "Find it")
    with FakeOpenAIServer(then=by_content) as server:
        tested = settings(server, skip_self_test=False).load()
        assert tested.encode_composed([QUERY], "Find it").reasons == ("",)
        first = len(server.requests)
        tested.encode_targets([RED])
        assert len(server.requests) == first + 1  # it is tested once


def test_what_lacks_is_said_before_anything_is_asked() -> None:
    with FakeOpenAIServer() as server:
        for changes, said in (
            ({"model": ""}, "embedder.model="),
            ({"width": 0}, "embedder.width"),
            ({"form": {"preset": "vlm2vec"}}, "is not a chat"),
        ):
            chosen = settings(server, **changes)
            assert said in chosen.lacking
            with pytest.raises(ValueError, match=said.replace(".", r"\.")):
                chosen.load()
    assert "base_url" not in json.dumps(dict(chosen.fingerprint))
