"""Records of verification, and what a verifier fulfils. This module imports no framework.

A verifier looks at a reference image, a modification text and one candidate image, and says how
likely the candidate is what the text makes of the reference. Its *margin* is
logit(yes) - logit(no), so that P(yes) = sigmoid(margin).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, get_args, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image

Mode: TypeAlias = Literal["pointwise", "listwise", "questions"]
"""`pointwise`: yes or no about each candidate. `listwise`: the candidates in one picture, one
answer. `questions`: yes or no to each question drawn from the text, about each candidate."""
MODES: Final[tuple[Mode, ...]] = get_args(Mode)

VerificationStatus: TypeAlias = Literal[
    "ok", "censored", "incomplete", "off_format", "overlong", "timeout", "rejected", "engine_error"
]
"""`ok`: the margin is exact. `censored`: one side, or a mark, is not among the tokens that a server
lists, so the margin is a bound of its sign. `incomplete`: an order that lacks candidates.
`off_format`: none of the answers is there. The others have no margin."""

RANKED: tuple[VerificationStatus, ...] = ("ok", "censored", "incomplete")
"""Statuses whose margin orders a candidate; all others keep the first stage's place."""

ListAnswer: TypeAlias = Literal["logits", "order"]
"""How a list is answered: by the logits of one position, or by an order in text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationRequest:
    """One pair to verify.

    Requests of one query that follow each other share its part of the prompt, and pictures of one
    id are seen once, so the fastest order is that of queries.

    Attributes:
        key: The caller's name for the request; comes back on the answer.
        reference_id: Identity of the reference's pixels (the sha256 of its file).
        reference: The reference image, RGB.
        text: The modification text.
        candidate_id: Identity of the candidate's pixels.
        candidate: The candidate image, RGB.
        target_text: Caption of the wanted image, for verifiers that read no reference.
    """

    key: str
    reference_id: str
    reference: Image.Image
    text: str
    candidate_id: str
    candidate: Image.Image
    target_text: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer to one `VerificationRequest`.

    Attributes:
        key: The request's key.
        margin: logit(yes) - logit(no) in float32; None where the status has none.
        mass: P(yes) + P(no) among all tokens; below about 0.5 the question is not understood.
            None where it is unknown.
        answer: The likeliest token as text.
        status: Whether the margin can be believed.
        reason: Why not, in words; empty when the status is `ok`.
        attempts: How many times the engine was asked.
        gave_up: Whether the engine has given up all that is still to be asked.
    """

    key: str
    margin: float | None
    mass: float | None
    answer: str = ""
    status: VerificationStatus | str = "ok"
    reason: str = ""
    attempts: int = 1
    gave_up: bool = False

    @property
    def probability(self) -> float | None:
        """P(yes), the sigmoid of the margin; None without one."""
        return None if self.margin is None else sigmoid(self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRequest:
    """The candidates of one query in one picture.

    Attributes:
        key: The caller's name for the request; comes back on the answer.
        reference: The reference image, RGB.
        text: The modification text.
        grid: The candidates in one picture, each with its mark (`models.verifiers.grid`).
        marks: Their marks.
        answer: How it is to be answered.
    """

    key: str
    reference: Image.Image
    text: str
    grid: Image.Image
    marks: tuple[str, ...]
    answer: ListAnswer = "logits"


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to one `GridRequest`.

    Attributes:
        key: The request's key.
        margins: Of the candidates in the order of their marks (`models.verifiers.choices`); empty
            where the status has none.
        mass: Probability of all marks among all tokens; None where it is unknown.
        answer: The likeliest token, or the answered text.
        status: Whether the margins can be believed.
        reason: Why not, in words; empty when the status is `ok`.
        attempts: How many times the engine was asked.
        gave_up: Whether the engine has given up all that is still to be asked.
    """

    key: str
    margins: tuple[float, ...]
    mass: float | None
    answer: str = ""
    status: VerificationStatus | str = "ok"
    reason: str = ""
    attempts: int = 1
    gave_up: bool = False


class Refused(ValueError):
    """A request that a verifier cannot put to its model.

    Attributes:
        status: Of its answer.
    """

    def __init__(self, status: VerificationStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def sigmoid(margin: float) -> float:
    """1 / (1 + exp(-margin)) without overflow."""
    if margin >= 0:
        return 1 / (1 + math.exp(-margin))
    return math.exp(margin) / (1 + math.exp(margin))


@runtime_checkable
class Verifier(Protocol):
    """A model that says whether a candidate fits a query."""

    def verify(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        """Answer every request exactly once, in any order, as a stream.

        Raises:
            EngineUnavailable: Before the first answer; from then on failures are answers.
        """
        ...


@runtime_checkable
class GridVerifier(Verifier, Protocol):
    """A verifier that also chooses among candidates in one picture."""

    def choose(self, requests: Iterable[GridRequest]) -> Iterator[Choice]:
        """Answer every request exactly once, in any order, as a stream.

        Raises:
            EngineUnavailable: Before the first answer; from then on failures are answers.
        """
        ...
