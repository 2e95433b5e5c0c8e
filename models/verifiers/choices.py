"""Answers about a grid as margins of its pictures, one rule for each way of answering.

By logits, P(i) is the softmax over the marks of the first answered position, and the margin of a
picture is its log-odds, log P(i) - log(1 - P(i)): margins order the pictures as the logits do, and
sigmoid(margin) = P(i) (FIRST, arXiv:2406.15657). By an order in text (RankGPT, arXiv:2304.09542),
the picture that is named at place r of k, from 0, has P = (k - r - 1/2) / k; those that are not
named share the mean of the places behind and so keep the first stage's order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from models.verifiers.protocol import VerificationStatus

_LABEL: Final = re.compile(r"\s*(?:final )?(?:answer|order|ranking)\s*:", re.IGNORECASE)
_BETWEEN: Final = re.compile(r"[\s,;>.]+|\band\b", re.IGNORECASE)
_FRAMES: Final = str.maketrans(dict.fromkeys("[](){}*\"'`#", " "))

Read = tuple[tuple[float, ...], VerificationStatus, str]
"""Margins in the order of the marks (none where they are not known), status, and reason."""


def log_odds(logits: Sequence[float]) -> tuple[float, ...]:
    """log P(i) - log(1 - P(i)) of the softmax of some logits; a single one has P = 1/2."""
    if len(logits) == 1:
        return (0.0,)
    return tuple(value - log_sum([*logits[:i], *logits[i + 1 :]]) for i, value in enumerate(logits))


def log_sum(values: Sequence[float]) -> float:
    """Logarithm of the sum of exponentials; -inf for none."""
    most = max(values, default=-math.inf)
    if most == -math.inf:
        return most
    return most + math.log(sum(math.exp(value - most) for value in values))


def read_listed(listed: Mapping[str, float], marks: Sequence[str]) -> tuple[Read, float]:
    """The answer in a server's list of likely tokens with log-probabilities, and its mass.

    A mark that is not listed is taken at the smallest listed log-probability, which is at least
    its own, and so keeps the first stage's order behind the listed ones. Status `censored`: more
    than half of the marks are not listed.
    """
    own = [
        log_sum([value for token, value in listed.items() if is_mark(token, mark)])
        for mark in marks
    ]
    mass = math.exp(log_sum(own))
    lacking = own.count(-math.inf)
    if lacking == len(own):
        reason = f"none of the {len(own)} marks is among the {len(listed)} likeliest tokens"
        return ((), "off_format", reason), mass
    if not lacking:
        return (log_odds(own), "ok", ""), mass
    least = min(value for value in listed.values() if value > -math.inf)
    bounded = log_odds([max(value, least) for value in own])
    if 2 * lacking <= len(own):
        return (bounded, "ok", ""), mass
    reason = f"{lacking} of {len(own)} marks are not among the {len(listed)} likeliest tokens"
    return (bounded, "censored", reason), mass


def is_mark(token: str, mark: str) -> bool:
    """Whether a token as text is a mark, with or without blanks around it."""
    return token.strip() == mark


def read_order(text: str, marks: Sequence[str]) -> Read:
    """The margins that an order in text gives; it is marks alone, below a label or without one.

    Status `incomplete`: some marks are missing. `off_format`, without margins: other words, a mark
    that is not in the picture, or one that stands there twice.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    said = lines[-1].translate(_FRAMES) if lines else ""
    label = _LABEL.match(said)
    named = [each for each in _BETWEEN.split(said[label.end() if label else 0 :]) if each]
    if not named:
        return (), "off_format", "the answer holds no mark"
    if odd := next((each for each in named if each not in marks), ""):
        return (), "off_format", f"{odd[:40]!r} is not a mark of the picture"
    if twice := next((each for each in named if named.count(each) > 1), ""):
        return (), "off_format", f"the mark {twice} stands in the answer twice"
    count, lacking = len(marks), len(marks) - len(named)
    mean_behind = (len(named) + count - 1) / 2
    places = [named.index(mark) if mark in named else mean_behind for mark in marks]
    shares = [(count - place - 0.5) / count for place in places]
    margins = tuple(math.log(share / (1 - share)) for share in shares)
    if lacking:
        return margins, "incomplete", f"{lacking} of {count} marks are missing in the answer"
    return margins, "ok", ""
