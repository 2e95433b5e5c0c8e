"""Strict reading of what an OpenAI-compatible server sent back.

The openai client validates nothing: a proxy's HTML page arrives as a `str`, and `choices` may
hold any JSON value. Everything that is not exactly the answer asked for raises `BadAnswer`.
Messages quote by `repr`, so that they can be stored whatever came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from models.generators.answers import ALLOWED_ENDS, EMPTY_ANSWER
from models.metering import Spent
from models.plain_text import without_controls

_CHARACTERS_PER_TOKEN: Final = 128
_CHARACTERS_OVER: Final = 1024
"""No tokenizer has longer tokens; a text beyond that ignored the limit that was asked for."""
_MOST_LOG: Final = 1e-3
"""No logarithm of a probability is larger, but for rounding."""
_MOST_TOKENS: Final = 10**9
"""No reply has more: a server that says so counts wrongly."""


class BadAnswer(Exception):
    """A response of status 200 that is not a valid answer."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A completion that is formally right.

    Attributes:
        answers: (text, finish reason) of every choice; a text may be empty.
        model: The model that it names; empty where it names none.
        has_reasoning: Whether the server put reasoning beside the text.
        listed: Token -> log-probability of the first position of the first choice, if asked for.
        vector: The embedding, if asked for.
    """

    answers: tuple[tuple[str, str], ...]
    model: str
    has_reasoning: bool
    listed: Mapping[str, float] = field(default_factory=dict)
    vector: tuple[float, ...] = ()

    def ended_early(self, has_lost: Callable[[str], bool]) -> bool:
        """Whether an answer ended, by itself or a stop string, and is lost by a rule."""
        return any(end == "stop" and has_lost(text) for text, end in self.answers)

    def require_texts(self, max_tokens: int) -> Completed:
        """The completion itself if every answer has a text that its tokens can hold.

        Raises:
            BadAnswer: Otherwise.
        """
        for text, end in self.answers:
            if not text.strip():
                if self.has_reasoning:
                    cut = ", cut at the token limit" if end == "length" else ""
                    raise BadAnswer(f"the model answered reasoning alone{cut}")
                raise BadAnswer(EMPTY_ANSWER)
            if len(text) > _CHARACTERS_PER_TOKEN * max_tokens + _CHARACTERS_OVER:
                raise BadAnswer(
                    f"the answer has {len(text):,} characters, which {max_tokens} tokens cannot"
                )
        return self


def read_response(response: object, num_answers: int, *, lists: bool = False) -> Completed:
    """Texts of every choice, in the order of their indices, without control characters.

    Args:
        response: What the client returned.
        num_answers: Choices that were asked for.
        lists: Whether the likeliest first tokens were asked for.

    Raises:
        BadAnswer: When the response is not a completion with exactly `num_answers` choices of
            text that ended on their own or at the token limit.
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
    named = str(getattr(response, "model", None) or "")
    return Completed(
        tuple(_read_choice(choice) for choice in ordered),
        without_controls(named.encode("utf-8", "backslashreplace").decode()),
        any(_reasoning(choice) for choice in choices),
        _first_tokens(ordered[0]) if lists else {},
    )


def read_embedding(response: object) -> Completed:
    """The one vector of a response.

    Raises:
        BadAnswer: When the response is not one embedding of finite numbers that are not all 0.
    """
    if not isinstance(response, CreateEmbeddingResponse):
        raise BadAnswer(f"the response is {type(response).__name__}, not an embedding")
    data: object = getattr(response, "data", None)
    if not isinstance(data, list) or len(data) != 1:
        held = len(data) if isinstance(data, list) else type(data).__name__
        raise BadAnswer(f"data holds {held} embeddings, one was asked for")
    vector: object = getattr(data[0], "embedding", None)
    if not isinstance(vector, list) or not vector:
        raise BadAnswer(f"the embedding is {type(vector).__name__}, not a list of numbers")
    for value in vector:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadAnswer(f"the embedding holds {value!r}")
        if not math.isfinite(value):
            raise BadAnswer("the embedding holds a number that is not finite")
    if not any(vector):
        raise BadAnswer("the embedding is all zeros")
    named = str(getattr(response, "model", None) or "")
    plain = without_controls(named.encode("utf-8", "backslashreplace").decode())
    return Completed((), plain, False, vector=tuple(map(float, vector)))


def read_usage(response: object) -> Spent:
    """The tokens that a response says it took, whatever its answer is worth; none if it is silent.

    With several choices a server counts the prompt once and all answers.
    """
    usage = getattr(response, "usage", None)
    said = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    read, written = (n if isinstance(n, int) and 0 <= n < _MOST_TOKENS else 0 for n in said)
    return Spent(prompt_tokens=read, answer_tokens=written)


def _first_tokens(choice: object) -> Mapping[str, float]:
    """Token -> log-probability of the likeliest tokens of a choice's first position.

    A token is text by its bytes, where the server gives them: half a character has no other form.

    Raises:
        BadAnswer: They are not there, or are not numbers up to 0.
    """
    positions: object = getattr(getattr(choice, "logprobs", None), "content", None)
    first = positions[0] if isinstance(positions, list) and positions else None
    entries: object = getattr(first, "top_logprobs", None)
    if not isinstance(entries, list) or not entries:
        raise BadAnswer(
            "the reply lists no likely tokens; the server must give logprobs with top_logprobs"
        )
    found: dict[str, float] = {}
    for entry in entries:
        value, token = getattr(entry, "logprob", None), _token_text(entry)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value < _MOST_LOG:
            raise BadAnswer(f"the log-probability of {token[:80]!r} is {value!r}")
        found[token] = max(found.get(token, -math.inf), float(value))
    return found


def _token_text(entry: object) -> str:
    raw = getattr(entry, "bytes", None)
    if isinstance(raw, list) and all(isinstance(n, int) and 0 <= n < 256 for n in raw):
        return bytes(raw).decode("utf-8", "backslashreplace")
    token = getattr(entry, "token", None)
    if not isinstance(token, str):
        raise BadAnswer(f"a listed token is {type(token).__name__}, not text")
    return token.encode("utf-8", "backslashreplace").decode()


def _reasoning(choice: object) -> bool:
    """Whether a choice has reasoning in a field of its own (vLLM and others)."""
    message = getattr(choice, "message", None)
    fields = ("reasoning_content", "reasoning")
    return any(isinstance(t := getattr(message, name, None), str) and t.strip() for name in fields)


def _read_choice(choice: object) -> tuple[str, str]:
    message = getattr(choice, "message", None)
    text = getattr(choice, "text", None) if message is None else getattr(message, "content", None)
    if text is None and _reasoning(choice):
        text = ""  # the answer was not begun
    if not isinstance(text, str):
        raise BadAnswer(f"the content is {type(text).__name__}, not text")
    if not _can_be_stored(text):
        raise BadAnswer(f"the answer is not valid Unicode: {text[:80]!r}")
    finish_reason = getattr(choice, "finish_reason", None)
    if finish_reason not in ALLOWED_ENDS:
        allowed = " or ".join(ALLOWED_ENDS)
        raise BadAnswer(f"the answer ended by {finish_reason!r}, not by {allowed}")
    return without_controls(text), str(finish_reason)


def _can_be_stored(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON escapes half a surrogate pair without a complaint."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
