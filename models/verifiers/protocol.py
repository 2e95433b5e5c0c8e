"""Records of verification, and what a verifier fulfils. This module imports no framework.

A verifier looks at a reference image, a modification text and one candidate image, and says how
likely the candidate is what the text makes of the reference. Its *margin* is
logit(yes) - logit(no), so that P(yes) = sigmoid(margin).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image

VerificationStatus: TypeAlias = Literal[
    "ok", "censored", "off_format", "overlong", "timeout", "rejected", "engine_error"
]
"""`ok`: the margin is exact. `censored`: one side is not among the tokens that a server lists, so
the margin is a bound of its sign. `off_format`: neither side is. The others have no margin."""

RANKED: tuple[VerificationStatus, ...] = ("ok", "censored")
"""Statuses whose margin orders a candidate; all others keep the first stage's place."""


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
