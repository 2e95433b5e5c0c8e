"""Questions about a change, written by a text generator: one in a line, each with yes as its
answer for the wanted picture (FIRE-CIR, arXiv:2604.09114, trains a model to write them)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from models.generators.reply_packaging import unpacked
from models.prompts.library import Prompt
from models.protocols import Fingerprint, TextReply, TextRequest

VERSION: Final = 1
"""Raised when the same texts are put differently, or replies are read differently."""
PLACEHOLDERS: Final = ("most", "text")
_NUMBER: Final = re.compile(r"\s*(?:[-*•]|\(?\d{1,2}[.):])\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAsking:
    """How questions are asked for.

    Attributes:
        most: Most questions that are kept.
        max_new_tokens: Upper bound on generated tokens.
    """

    most: int
    max_new_tokens: int

    @property
    def fingerprint(self) -> Fingerprint:
        """Every field, and the version of this code."""
        return {
            "questioning_version": VERSION,
            "most": self.most,
            "max_new_tokens": self.max_new_tokens,
        }


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions about one text, or why there are none."""

    texts: tuple[str, ...]
    status: str = "ok"
    reason: str = ""


def to_request(key: str, text: str, prompt: Prompt, asking: QuestionAsking) -> TextRequest:
    """The request for the questions about one text; greedy."""
    return TextRequest(
        key=key,
        prompt=prompt.render(text=" ".join(text.split()), most=str(asking.most)),
        max_new_tokens=asking.max_new_tokens,
    )


def read_questions(reply: TextReply, asking: QuestionAsking) -> Questions:
    """The questions in a reply: its lines that end with a question mark, each once.

    A reply without one is rejected, and so is one that was cut off before it named the most that
    are asked for: questions that are lost would make every candidate pass.
    """
    if reply.status != "ok":
        return Questions((), reply.status, reply.reason)
    lines = [_NUMBER.sub("", line, count=1).strip() for line in unpacked(reply.text)[0].split("\n")]
    found = tuple(dict.fromkeys(line for line in lines if line.endswith("?")))[: asking.most]
    if not found:
        return Questions((), "rejected", "no line of the reply is a question")
    if reply.finish_reason == "length" and len(found) < asking.most:
        return Questions((), "rejected", "cut off: the questions ran into the token limit")
    return Questions(found)
