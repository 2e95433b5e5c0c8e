"""Strict reading of what an OpenAI-compatible server sent back.

The openai client validates nothing: a proxy's HTML page arrives as a `str`, and `choices` may
hold any JSON value. Everything that is not exactly the answer asked for raises `BadAnswer`.
Messages quote by `repr`, so that they can be stored whatever came.
"""

from __future__ import annotations

from openai.types import Completion
from openai.types.chat import ChatCompletion

from models.generators.answers import ALLOWED_ENDS, EMPTY_ANSWER


class BadAnswer(Exception):
    """A response of status 200 that is not a valid answer."""


def read_response(response: object, num_answers: int) -> list[tuple[str, str]]:
    """(text, finish reason) of every choice, in the order of their indices.

    Raises:
        BadAnswer: When the response is not a completion with exactly `num_answers` choices of
            non-empty text that ended on their own or at the token limit.
    """
    if not isinstance(response, ChatCompletion | Completion):
        raise BadAnswer(f"the response is {type(response).__name__}, not a completion")
    choices: object = getattr(response, "choices", None)
    if not isinstance(choices, list):
        raise BadAnswer(f"choices is {type(choices).__name__}, not a list")
    if len(choices) != num_answers:
        raise BadAnswer(f"{len(choices)} choices came back, {num_answers} asked for")
    indices = [getattr(choice, "index", None) for choice in choices]
    if sorted(map(str, indices)) != sorted(map(str, range(num_answers))):
        raise BadAnswer(f"the choices are numbered {indices}")
    ordered = sorted(choices, key=lambda choice: int(choice.index))
    return [_read_choice(choice) for choice in ordered]


def _read_choice(choice: object) -> tuple[str, str]:
    message = getattr(choice, "message", None)
    text = getattr(choice, "text", None) if message is None else getattr(message, "content", None)
    if not isinstance(text, str):
        raise BadAnswer(f"the content is {type(text).__name__}, not text")
    if not _can_be_stored(text):
        raise BadAnswer(f"the answer is not valid Unicode: {text[:80]!r}")
    finish_reason = getattr(choice, "finish_reason", None)
    if finish_reason not in ALLOWED_ENDS:
        allowed = " or ".join(ALLOWED_ENDS)
        raise BadAnswer(f"the answer ended by {finish_reason!r}, not by {allowed}")
    if not text.strip():
        raise BadAnswer(EMPTY_ANSWER)
    return text, str(finish_reason)


def _can_be_stored(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON escapes half a surrogate pair without a complaint."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
