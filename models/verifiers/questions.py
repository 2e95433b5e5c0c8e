"""Yes/no questions drawn from a modification text: by rule, and as one number of their answers.

FIRE-CIR (arXiv:2604.09114) asks generated questions of each candidate and compares the answers with
those that are expected; its formula is not known here, so questions are written such that yes is
right, and three plain rules make a number of the margins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from models.verifiers.choices import log_sum

RULE_VERSION: Final = 1
"""Raised when the rule finds other changes in the same text."""

Combination: TypeAlias = Literal["mean", "share", "product"]

_CHANGES: Final = (
    "add|remove|delete|replace|change|make|move|put|turn|swap|give|set|place|take|show|use|let|"
    "is|are|has|have|with|without|no|not|more|less|there"
)
_CUT: Final = re.compile(
    rf"\s*(?:[.;]+|,?\s+(?:and|but|then)\s+(?=(?:{_CHANGES})\b)|,\s*(?=(?:{_CHANGES})\b))\s*",
    re.IGNORECASE,
)


def changes_of(text: str) -> tuple[str, ...]:
    """The single changes that a text asks for, in order, each once.

    It is cut at the ends of sentences, and at commas, "and", "but" and "then" before a word that
    begins a change; "make it red and blue" is one change.
    """
    parts = _CUT.split(" ".join(text.split()))
    return tuple(dict.fromkeys(part for part in parts if any(map(str.isalnum, part))))


def combined(margins: Sequence[float], how: Combination) -> float:
    """The margin of a candidate from those of its questions.

    - `mean`: the mean margin.
    - `share`: log-odds of the mean of P(yes), the expected share of questions answered yes.
    - `product`: log-odds of the product of P(yes): all are yes, if they are independent.

    Raises:
        ValueError: No question was asked.
    """
    if not margins:
        raise ValueError("a candidate without questions has no margin")
    return _COMBINED[how](margins)


def _mean(margins: Sequence[float]) -> float:
    return sum(margins) / len(margins)


def _share(margins: Sequence[float]) -> float:
    return log_sum([_log_yes(m) for m in margins]) - log_sum([_log_yes(-m) for m in margins])


def _product(margins: Sequence[float]) -> float:
    whole = sum(map(_log_yes, margins))
    # 1 - exp(whole) from the complements, or it is 0 where all margins are large.
    return whole - (math.log(-math.expm1(whole)) if whole < -1e-12 else _log_rest(margins))


def _log_rest(margins: Sequence[float]) -> float:
    """log(1 - product) where every P(yes) is nearly 1: the sum of the complements."""
    return log_sum([_log_yes(-m) for m in margins])


def _log_yes(margin: float) -> float:
    """log sigmoid(margin) without overflow."""
    return min(margin, 0.0) - math.log1p(math.exp(-abs(margin)))


_COMBINED: Final[Mapping[Combination, Callable[[Sequence[float]], float]]] = {
    "mean": _mean,
    "share": _share,
    "product": _product,
}
