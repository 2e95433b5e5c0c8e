"""Prompts answered by any OpenAI-compatible server (vLLM first), many at a time."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from models.checkpoints import checkpoint_identity
from models.generators.adapter_card import benchmark_texts_seen, read_card
from models.generators.answers import check_request, reply_to
from models.generators.server_settings import ServerApi, ServerSettings
from models.generators.text_settings import TextGeneratorSettings
from models.protocols import Fingerprint, TextReply, TextRequest

if TYPE_CHECKING:
    from models.generators.openai_session import ServerSession

VERSION: Final = 1
"""Raised when the code puts other questions to the server or reads its answers differently."""


class OpenAIServerSettings(TextGeneratorSettings, ServerSettings):
    """A language model behind an OpenAI-compatible server, such as vLLM."""

    engine: Literal["openai"] = "openai"
    api: ServerApi = "chat"
    """Which endpoint prompts are sent to."""
    adapter: str = ""
    """Folder of the adapter (or merged model) that the server serves by the model's name, so that
    its contents enter the identity and its card is checked."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Served model, what is known of its weights, and code version; no address.

        Without the adapter's folder, nothing but `identity` tells one adapter from another, and
        that it saw texts of benchmarks cannot be known.

        Raises:
            ValueError: The adapter's card asks for the other endpoint.
        """
        self._check_adapter()
        seen = benchmark_texts_seen(self.adapter)
        adapter = {"adapter": dict(checkpoint_identity(self.adapter))} if self.adapter else {}
        return {
            "engine": "openai-server",
            "engine_version": importlib.metadata.version("openai"),
            "version": VERSION,
            "model": self.model,
            "identity": self.identity,
            "mode": self.api,
            **adapter,
            **({"saw_benchmark_texts": seen} if seen else {}),
        }

    def load(self) -> OpenAIServerGenerator:
        """The generator; the server is first contacted when it is asked.

        Raises:
            ValueError: There is no address, or the adapter's card asks for the other endpoint.
        """
        self.require_address()
        self._check_adapter()
        return OpenAIServerGenerator(self)

    def _check_adapter(self) -> None:
        if card := read_card(self.adapter) if self.adapter else None:
            card.require_form("chat" if self.api == "chat" else "raw")


class OpenAIServerGenerator:
    """Answers prompts through a server; fulfils `models.protocols.TextGenerator`."""

    def __init__(self, settings: OpenAIServerSettings) -> None:
        """Remember the settings."""
        self._settings = settings

    def check(self) -> None:
        """Make sure that the server is up and serves the model.

        Raises:
            ServerUnusable: Saying what is wrong and what to do.
        """
        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        with BackgroundLoop() as loop, open_session(loop, self._settings):
            pass  # opening a session is the check

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        """Answer every request exactly once, as answers arrive; `concurrency` are in flight.

        Raises:
            ServerUnusable: Before the first request, when the server cannot be used at all.
        """
        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        with BackgroundLoop() as loop, open_session(loop, self._settings) as session:

            async def answer(request: TextRequest) -> TextReply:
                check_request(request)
                return await _answer(session, request, self._settings.api)

            yield from loop.map_bounded(answer, requests, self._settings.concurrency)


async def _answer(session: ServerSession, request: TextRequest, api: ServerApi) -> TextReply:
    from models.generators.openai_session import Question

    outcome = await session.ask(
        Question(
            content=request.prompt,
            max_tokens=request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stop,
            api=api,
        )
    )
    if outcome.status != "ok":
        return TextReply(
            request.key,
            "",
            outcome.status,
            outcome.reason,
            attempts=outcome.attempts,
            gave_up=outcome.gave_up,
        )
    ((text, finish_reason),) = outcome.answers
    reply = reply_to(request, text, finish_reason, attempts=outcome.attempts)
    return replace(reply, answered_by=outcome.model)
