"""Prompts answered by any OpenAI-compatible server (vLLM first), many at a time."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from models.generators.adapter_card import benchmark_texts_seen, read_card
from models.generators.answers import check_request, reply_to
from models.generators.background_loop import BackgroundLoop
from models.generators.openai_session import (
    OpenAIServerSettings,
    Question,
    ServerSession,
    open_session,
)
from models.protocols import Fingerprint, TextReply, TextRequest

VERSION: Final = 1
"""Raised when the code puts other questions to the server or reads its answers differently."""


class OpenAIServerGenerator:
    """Answers prompts through a server; fulfils `models.protocols.TextGenerator`."""

    def __init__(self, settings: OpenAIServerSettings) -> None:
        """Remember the settings; the server is first contacted by `check` or `generate`.

        Raises:
            ValueError: The adapter's card asks for the other mode.
        """
        self._settings = settings
        if card := read_card(settings.adapter) if settings.adapter else None:
            card.require_form("chat" if settings.mode == "chat" else "raw")

    @property
    def fingerprint(self) -> Fingerprint:
        """Served model, what is known of its weights, and code version; no address.

        Without the adapter's folder, nothing but `identity` tells one adapter from another, and
        that it saw texts of benchmarks cannot be known.
        """
        settings = self._settings
        adapter = _contents(settings.adapter)
        seen = benchmark_texts_seen(settings.adapter)
        return {
            "engine": "openai-server",
            "engine_version": importlib.metadata.version("openai"),
            "version": VERSION,
            "model": settings.model,
            "identity": settings.identity,
            "mode": settings.mode,
            **({"adapter": dict(adapter)} if adapter else {}),
            **({"saw_benchmark_texts": seen} if seen else {}),
        }

    def check(self) -> None:
        """Make sure that the server is up and serves the model.

        Raises:
            ServerUnusable: Saying what is wrong and what to do.
        """
        with BackgroundLoop() as loop, open_session(loop, self._settings):
            pass  # opening a session is the check

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        """Answer every request exactly once, as answers arrive; `concurrency` are in flight.

        Raises:
            ServerUnusable: Before the first request, when the server cannot be used at all.
        """
        with BackgroundLoop() as loop, open_session(loop, self._settings) as session:

            async def answer(request: TextRequest) -> TextReply:
                check_request(request)
                return await _answer(session, request)

            yield from loop.map_bounded(answer, requests, self._settings.concurrency)


def _contents(adapter: str) -> Mapping[str, str]:
    """File name -> sha256 of an adapter's folder, if there is one."""
    if not adapter:
        return {}
    from models.checkpoints import checkpoint_identity  # needs huggingface_hub; a client does not

    return checkpoint_identity(adapter)


async def _answer(session: ServerSession, request: TextRequest) -> TextReply:
    outcome = await session.ask(
        Question(
            content=request.prompt,
            max_tokens=request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stop,
        )
    )
    if outcome.status != "ok":
        return TextReply(request.key, "", outcome.status, outcome.reason, attempts=outcome.attempts)
    ((text, finish_reason),) = outcome.answers
    return reply_to(request, text, finish_reason, attempts=outcome.attempts)
