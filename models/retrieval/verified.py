"""The order of candidates that a verifier has looked at: its verdicts fused with the first stage.

A verifier says of a query and a candidate how likely the candidate is what the query asks for, as
a margin: logit(yes) - logit(no), so that P(yes) = sigmoid(margin). Every rule below needs margins
and first-stage scores alone, so that all of them are tried on margins that are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Rule: TypeAlias = Literal["replace", "sum", "minmax", "z", "rrf", "veto"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
Floats: TypeAlias = "npt.NDArray[np.float64]"

RRF_CONSTANT: Final = 60
"""Cormack et al., SIGIR 2009."""
LEAST_ANSWERED: Final = 0.5
"""Share of a query's candidates that must have a margin; below it the ranking stays as it is."""


@dataclass(frozen=True, slots=True)
class Fusing:
    """How margins m and first-stage scores s of one query's candidates become one order.

    With P = sigmoid(m), over the candidates that have a margin:

    - `replace`: m alone.
    - `sum`: s + w P (LamRA). The scale of s enters, so w does not carry over between backbones.
    - `minmax`: w P + (1 - w) (s - min s) / (max s - min s).
    - `z`: w z(P) + (1 - w) z(s), with z(x) = (x - mean x) / std x.
    - `rrf`: w / (60 + rank by m) + (1 - w) / (60 + rank by s).
    - `veto`: candidates with P below t go behind the others; both groups keep the order of s.

    Attributes:
        rule: One of them.
        weight: w.
        threshold: t.
    """

    rule: Rule = "minmax"
    weight: float = 0.5
    threshold: float = 0.5


def verified(
    ranked: Sequence[str], scores: Sequence[float], margins: Mapping[str, float], fusing: Fusing
) -> tuple[list[str], list[float]]:
    """Candidates in their fused order, with their fused scores.

    Candidates without a margin keep their places: the others are ordered among the places that
    they hold. Equal scores keep the first stage's order. Where fewer than half of the candidates
    have a margin, nothing moves.

    Args:
        ranked: Candidates, best first, by the first stage.
        scores: Their first-stage scores.
        margins: Candidate -> margin, of those that were verified.
        fusing: The rule.

    Returns:
        The candidates in their new order; and the number that each was ordered by, or its
        first-stage score where it kept its place without a margin or nothing moved.
    """
    places = [i for i, name in enumerate(ranked) if name in margins]
    names, numbers = list(ranked), list(map(float, scores))
    if not places or len(places) < LEAST_ANSWERED * len(ranked):
        return names, numbers
    own = np.array([margins[ranked[i]] for i in places], np.float64)
    fused = _RULES[fusing.rule](np.array([scores[i] for i in places], np.float64), own, fusing)
    for place, chosen in zip(places, np.argsort(-fused, kind="stable"), strict=True):
        names[place], numbers[place] = ranked[places[chosen]], float(fused[chosen])
    return names, numbers


def probability(margin: Floats) -> Floats:
    """P(yes) of margins."""
    # Half a tanh does not overflow where exp would.
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * margin))
    return half


def places_as_scores(count: int) -> list[float]:
    """Scores (count,) from 1 to 0 of a ranking of which the order alone is known."""
    return [1.0 - place / max(1, count - 1) for place in range(count)]


def _replace(scores: Floats, margins: Floats, fusing: Fusing) -> Floats:
    return margins


def _sum(scores: Floats, margins: Floats, fusing: Fusing) -> Floats:
    return scores + fusing.weight * probability(margins)


def _minmax(scores: Floats, margins: Floats, fusing: Fusing) -> Floats:
    spread = np.ptp(scores)
    scaled = (scores - scores.min()) / spread if spread > 0 else np.zeros_like(scores)
    return fusing.weight * probability(margins) + (1 - fusing.weight) * scaled


def _z(scores: Floats, margins: Floats, fusing: Fusing) -> Floats:
    first, second = _standardised(scores), _standardised(probability(margins))
    return fusing.weight * second + (1 - fusing.weight) * first


def _rrf(scores: Floats, margins: Floats, fusing: Fusing) -> Floats:
    first, second = _ranks(scores), _ranks(margins)
    return fusing.weight / (RRF_CONSTANT + second) + (1 - fusing.weight) / (RRF_CONSTANT + first)


def _veto(scores: Floats, margins: Floats, fusing: Fusing) -> Floats:
    kept = probability(margins) >= fusing.threshold
    return np.where(kept, scores, scores - (np.ptp(scores) + 1.0))  # all of them behind


def _standardised(values: Floats) -> Floats:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def _ranks(values: Floats) -> Floats:
    """1-based ranks, the greatest first; equal values in the order given."""
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


_RULES: Final[Mapping[Rule, Callable[[Floats, Floats, Fusing], Floats]]] = {
    "replace": _replace,
    "sum": _sum,
    "minmax": _minmax,
    "z": _z,
    "rrf": _rrf,
    "veto": _veto,
}
