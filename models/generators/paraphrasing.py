"""Paraphrases of modification texts: the same change in other words, by a text generator.

A paraphrase is the answer's first line. An answer that repeats its text is rejected, and the text
itself never takes its place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from models.generators.answer_reader import Question, read_line
from models.generators.rewriting import Answer
from models.prompts.library import Prompt
from models.protocols import Fingerprint, TextReply, TextRequest

VERSION: Final = 1
"""Raised when the same texts are put differently; the reading has a version of its own."""
PLACEHOLDERS: Final = ("number", "text")
LABEL: Final = "Other words:"
_INSTRUCTION: Final = "Instruction:"


@dataclass(frozen=True, slots=True)
class ParaphraseInput:
    """One wording of one text.

    Attributes:
        number: Which wording, from 1.
        text: The modification text.
    """

    number: int
    text: str

    @property
    def key(self) -> str:
        """Its identity: a text is paraphrased once for all queries that have it."""
        return hashlib.sha256(f"{self.number}:{self.text}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParaphraseSettings:
    """How paraphrases are asked for.

    Attributes:
        max_new_tokens: Upper bound on generated tokens.
        temperature: Wordings of one text differ by sampling, and by their number in the prompt.
        seed: Seed of the table; every wording of every text has its own stream.
    """

    max_new_tokens: int = 64
    temperature: float = 0.7
    seed: int = 0

    @property
    def fingerprint(self) -> Fingerprint:
        """Every field, and the version of the code that puts the questions."""
        return {
            "paraphrasing_version": VERSION,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }


def to_request(item: ParaphraseInput, prompt: Prompt, settings: ParaphraseSettings) -> TextRequest:
    """The request for one wording; its key is the input's."""
    digest = hashlib.sha256(f"{settings.seed}:{item.key}".encode()).digest()
    return TextRequest(
        key=item.key,
        prompt=prompt.render(number=str(item.number), text=" ".join(item.text.split())),
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=int.from_bytes(digest[:4], "little") >> 1,  # servers take 31 bits
        stop=("\n\n",),
    )


def read_paraphrase(reply: TextReply, text: str, template: str) -> Answer:
    """The paraphrase in a reply, or why it has none.

    Args:
        reply: The raw reply.
        text: The text that was to be said in other words.
        template: The prompt's template; a reply that repeats it is not an answer.
    """
    if reply.status != "ok":
        return Answer("", reply.status, reply.reason)
    reading = read_line(reply.text, Question(LABEL, (_INSTRUCTION,), template))
    if not reading.text:
        return Answer("", "rejected", reading.fault)
    if reply.finish_reason == "length" and reading.is_last:
        return Answer("", "rejected", "cut off: the answer ran into the token limit")
    if _bare(reading.text) == _bare(text):
        return Answer("", "rejected", "repeated: the answer is the text itself")
    return Answer(reading.text)


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
