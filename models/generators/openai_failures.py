"""Failures of an OpenAI-compatible server: their kinds, and when a run is given up for them."""

from __future__ import annotations

from typing import Final

import httpx2
import openai

from models.generators.openai_responses import BadAnswer
from models.generators.server_facts import kind_of, short
from models.protocols import EngineUnavailable

NO_JSON: Final = (ValueError, RecursionError)
"""How the client lets a 200 through that cannot be parsed: bad JSON, bytes that are not UTF-8, a
number of thousands of digits, nesting without end."""


_REFUSALS_OF_ALL: Final = (
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
)


class ServerUnusable(EngineUnavailable):
    """The server cannot be reached or does not serve the model asked for."""


class ServerAway(ServerUnusable):
    """The server does not answer at all, now."""


class CutByStop(BadAnswer):
    """A stop string came before the answer; it is asked for again without."""


class WrongModel(Exception):
    """The reply names another model than the one asked for."""


class Breaker:
    """Gives up a run whose every question would fail the same way.

    Attributes:
        given_up: Why the run is given up; empty while it goes on.
    """

    def __init__(self, most_equal: int) -> None:
        """Give up after so many equal failures in a row."""
        self.given_up = ""
        self._most_equal = most_equal
        self._in_a_row = 0
        self._last = ""
        self._has_answered = False

    def answered(self) -> None:
        """A question was answered."""
        self._in_a_row, self._last = 0, ""
        self._has_answered = True

    def give_up(self, reason: str) -> None:
        """Give up; the first reason stays."""
        self.given_up = self.given_up or reason

    def note(self, failure: Exception) -> None:
        """A question failed, after the client's own retries."""
        if isinstance(failure, WrongModel):
            self.give_up(str(failure))
        if isinstance(failure, _REFUSALS_OF_ALL):
            # A wrong key or model name: every other question would be refused alike.
            self.give_up(f"the server refuses all requests: {short(failure)}")
        if is_disconnection(failure) or isinstance(failure, CutByStop):
            return  # the server is waited for, or asked without stop strings
        if self._has_answered and _is_overlong(failure):
            return  # a matter of this question alone
        kind = kind_of(failure)
        self._in_a_row = 1 + self._in_a_row * (kind == self._last)
        self._last = kind
        if self._in_a_row >= self._most_equal:
            self.give_up(
                f"given up after {self._in_a_row} equal failures in a row: {short(failure)}"
            )


def is_disconnection(failure: BaseException) -> bool:
    """Whether the server is away, as opposed to slow: a read timeout is not asked again."""
    if isinstance(failure, openai.APITimeoutError):
        return isinstance(failure.__cause__, httpx2.ConnectTimeout)
    return isinstance(failure, openai.APIConnectionError)


def explain(failure: Exception) -> tuple[str, str]:
    """Status and reason of a question that failed for good."""
    if isinstance(failure, WrongModel):
        return "engine_error", str(failure)
    if isinstance(failure, BadAnswer):
        return "rejected", str(failure)
    if isinstance(failure, openai.APITimeoutError):
        return "timeout", "the server did not answer in time"
    if _is_overlong(failure):
        return "overlong", short(failure)
    return "engine_error", short(failure)


def _is_overlong(failure: Exception) -> bool:
    text = str(failure).lower()
    return isinstance(failure, openai.BadRequestError) and (
        "context length" in text or "input_tokens" in text or "context_length" in text
    )
