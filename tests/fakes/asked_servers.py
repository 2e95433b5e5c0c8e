"""Questions to a fake server by the real client, with little waiting."""

from __future__ import annotations

from typing import Any

from models.generators.openai_server import OpenAIServerGenerator, OpenAIServerSettings
from models.protocols import TextReply, TextRequest
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, chat

GOOD = chat("FINE")
OVERLONG = (
    "This model's maximum context length is 512 tokens. However, you requested 600 tokens. "
    "(parameter=input_tokens)"
)


def settings_for(server: FakeOpenAIServer, **changes: object) -> OpenAIServerSettings:
    """Little waiting between attempts, and patience that a busy machine cannot exhaust."""
    quick = OpenAIServerSettings(
        base_url=server.base_url,
        model=MODEL,
        timeout=60.0,
        connect_seconds=60.0,
        transport_retries=1,
        health_wait_seconds=60.0,
        health_poll_seconds=0.05,
    )
    return quick.changed(**changes)


def ask(server: FakeOpenAIServer, request: TextRequest | None = None, **changes: Any) -> TextReply:
    """The reply to one question."""
    generator = OpenAIServerGenerator(settings_for(server, **changes))
    (reply,) = generator.generate([request or TextRequest("k", "hello")])
    return reply


def ask_all(server: FakeOpenAIServer, count: int = 100, **changes: Any) -> list[TextReply]:
    """The replies to questions `k0`, `k1`, ..."""
    generator = OpenAIServerGenerator(settings_for(server, **changes))
    return list(generator.generate(TextRequest(f"k{i}", f"word {i}") for i in range(count)))
