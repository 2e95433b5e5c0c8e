"""A guard against non-answers that needs no phrases: different questions have different answers.

A server that refuses, echoes or fails in words that no list holds mostly says one text to all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from models.generators.non_answers import plain
from models.protocols import EngineUnavailable

LEAST: Final = 4
"""Different questions with one answer, below which nothing is concluded."""
_SHOWN: Final = 3


class RepeatedAnswer(EngineUnavailable):
    """Most answers to different questions are one text, or repeat a part of their question."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer and its question.

    Attributes:
        parts: The texts that make the question different from others; answers to questions that
            share one may well be equal.
        prompt: The prompt as it was put.
        answer: The answer as read.
    """

    parts: tuple[str, ...]
    prompt: str
    answer: str


def check_variety(
    answers: Iterable[Answered], *, least: int = LEAST, may_copy: bool = False
) -> None:
    """Refuse answers most of which are one text or copies of their questions.

    Questions count as different where all their parts differ: fifteen captions of one picture
    under one instruction may have one edited caption.

    Args:
        answers: Answers that were read from replies. Where "none" is an answer it is left out: it
            may be right for most questions.
        least: Different questions with one answer, below which nothing is concluded.
        may_copy: Whether an answer may repeat a part of its question.

    Raises:
        RepeatedAnswer: Showing three of them with their prompts.
    """
    known = list(answers)
    groups: dict[str, list[Answered]] = defaultdict(list)
    copies: list[Answered] = []
    for each in known:
        groups[plain(each.answer)].append(each)
        if not may_copy and plain(each.answer) in map(plain, each.parts):
            copies.append(each)
    different = _different(known)
    if different < least:
        return
    same = max(groups.values(), key=_different)
    for found, what in ((same, "are one text"), (copies, "only repeat a part of their question")):
        count = _different(found)
        if count >= least and 2 * count > different:
            raise RepeatedAnswer(_message(found, count, different, what))


def _different(answers: Sequence[Answered]) -> int:
    """The number of questions of which no two share a part, at most."""
    columns = zip(*(map(plain, each.parts) for each in answers), strict=True)
    return min((len(set(column)) for column in columns), default=0)


def _message(found: Sequence[Answered], count: int, different: int, what: str) -> str:
    chosen: dict[str, Answered] = {}
    for each in found:
        chosen.setdefault(each.parts[-1], each)
    examples = "; ".join(
        f"{_tail(each.prompt)} -> {each.answer[:120]!r}" for each in list(chosen.values())[:_SHOWN]
    )
    return (
        f"the answers to {count} of {different} different questions {what}, so the model does not "
        f"answer them. Three of them with the ends of their prompts: {examples}. Put such a prompt "
        "to the model by hand, mend the server, the model or the prompt, and run again; the rows "
        "at hand were not stored"
    )


def _tail(prompt: str) -> str:
    return repr(f"...{prompt[-200:]}" if len(prompt) > 200 else prompt)
