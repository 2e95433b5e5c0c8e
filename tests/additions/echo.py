"""A text generator that repeats the end of its prompt; there is no model behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from pydantic import Field

from models.generators.answers import check_request, reply_to
from models.generators.text_settings import TextGeneratorSettings
from models.protocols import Fingerprint, TextReply, TextRequest

VERSION: Final = 1
"""Raised when the code gives other answers to the same requests."""


class EchoSettings(TextGeneratorSettings):
    """Repeats the last words of a prompt."""

    engine: Literal["echo"] = "echo"
    words: int = Field(5, ge=1)
    """Words that are repeated."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Code version and number of words."""
        return {"engine": "echo", "version": VERSION, "words": self.words}

    def load(self) -> EchoGenerator:
        """The generator."""
        return EchoGenerator(self)


class EchoGenerator:
    """Repeats prompts; fulfils `models.protocols.TextGenerator`."""

    def __init__(self, settings: EchoSettings) -> None:
        """Remember the settings."""
        self._settings = settings

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        """Answer every request exactly once, in the order given."""
        for request in requests:
            check_request(request)
            words = request.prompt.split()[-self._settings.words :]
            kept = words[: request.max_new_tokens]
            yield reply_to(request, " ".join(kept), "stop" if kept == words else "length")
