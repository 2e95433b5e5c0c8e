"""Phrases about a concept from a text generator, as SEARLE asks GPT-Neo for them.

The prompt "a photo of {concept} that" is continued many times; opening and continuation are the
phrase. A model that answers with the whole sentence, or with a label before it, is read as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from models.prompts.library import Prompt
from models.protocols import TextReply, TextRequest
from models.settings import Settings
from models.textual_inversion.concepts import usable

PLACEHOLDERS: Final = ("concept",)
_OPENING: Final = "a photo of {} that"


class PhraseSettings(Settings):
    """How a text generator writes phrases about concepts."""

    prompt: str = "concept_phrase"
    """Prompt by name or path, with {concept} in it."""
    count: int = 256
    """Phrases asked for of each concept."""
    temperature: float = 0.5
    """Of the text generator."""
    max_new_tokens: int = 35
    """Most tokens in a continuation."""


def phrase_requests(
    concept: str, prompt: Prompt, settings: PhraseSettings, seed: int
) -> list[TextRequest]:
    """The requests of one concept; each has a random stream of its own."""
    return [
        TextRequest(
            key=f"{concept}\n{number}",
            prompt=prompt.render(concept=concept),
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=_seed(concept, number, seed),
        )
        for number in range(settings.count)
    ]


def concept_of(key: str) -> str:
    """The concept that a request of `phrase_requests` is about."""
    return key.rpartition("\n")[0]


def phrases_in(concept: str, replies: Iterable[str]) -> tuple[str, ...]:
    """Distinct phrases in raw replies, without those that do not name the concept."""
    opening = _OPENING.format(concept)
    whole: list[str] = []
    for reply in map(str.strip, replies):
        place = reply.casefold().find(opening.casefold())
        if place >= 0:
            whole.append(reply[place:])
        elif reply:
            whole.append(f"{opening} {reply}")
    return usable(concept, whole)


def failure(replies: Sequence[TextReply]) -> tuple[str, str]:
    """Status and reason of a concept that has no phrase."""
    first = next((reply for reply in replies if reply.status != "ok"), None)
    if first is not None:
        return first.status, first.reason
    return "rejected", "no answer names the concept or continues the prompt"


def _seed(concept: str, number: int, seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {number} {concept}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
