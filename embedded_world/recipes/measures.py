"""The one form of gates: measured shares, the table that is printed and the record that is kept."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Measure:
    """One share of right answers.

    Attributes:
        model: The model's folder below models/embedded.
        name: The question.
        share: Share of right answers.
        n: Number of cases.
        gate: The least that the share must be; None: only reported.
        kinds: Right answers and cases by kind of case, where they were told apart.
    """

    model: str
    name: str
    share: float
    n: int
    gate: float | None = None
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there is no gate or it is met."""
        return self.gate is None or self.share >= self.gate

    @property
    def error(self) -> float:
        """Standard error of the share; that of one wrong case where all or none are right."""
        return math.sqrt(max(self.share * (1 - self.share), 1 / self.n) / self.n)

    @property
    def line(self) -> str:
        """The measure as a row of the table, and a second row for its kinds."""
        verdict = "" if self.gate is None else f">= {self.gate} {'ok' if self.passed else 'MISSED'}"
        figures = f"{self.share:.4f} +-{self.error:.4f}  n={self.n:<6}"
        row = f"{self.model:15}{self.name:44}{figures}{verdict}"
        kinds = [f"{kind} {right}/{n}" for kind, (right, n) in sorted(self.kinds.items())]
        return row + ("\n" + " " * 15 + "  ".join(kinds) if kinds else "")

    def as_json(self) -> dict[str, object]:
        """Plain values, the share rounded."""
        row = {"name": self.name, "share": round(self.share, 4), "n": self.n, "gate": self.gate}
        kinds = {kind: f"{right}/{n}" for kind, (right, n) in sorted(self.kinds.items())}
        return row | ({"kinds": kinds} if kinds else {})


@dataclass(frozen=True)
class Gates:
    """All measures of one model, and further facts about it by name."""

    measures: Sequence[Measure]
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every gate is met."""
        return all(measure.passed for measure in self.measures)

    @property
    def table(self) -> str:
        """One row a measure."""
        return "\n".join(measure.line for measure in self.measures)

    def as_json(self) -> dict[str, object]:
        """Plain values, as `recipe.json` keeps them."""
        rows = [measure.as_json() for measure in self.measures]
        return {"passed": self.passed, "measures": rows, **self.facts}


def counted(
    model: str, name: str, verdicts: Iterable[tuple[str | None, bool]], gate: float | None = None
) -> Measure:
    """A measure from single verdicts.

    Args:
        model: As in `Measure`.
        name: As in `Measure`.
        verdicts: Kind of each case (None: counted in the whole alone), and whether it was right.
        gate: As in `Measure`.
    """
    kinds: dict[str, tuple[int, int]] = {}
    right = n = 0
    for kind, good in verdicts:
        right, n = right + good, n + 1
        if kind is not None:
            before = kinds.get(kind, (0, 0))
            kinds[kind] = (before[0] + good, before[1] + 1)
    return Measure(model, name, right / max(1, n), n, gate, kinds)


def area_under_curve(right: ArrayLike, wrong: ArrayLike) -> float:
    """Share of (right, wrong) pairs in which the right one scores higher; a tie counts half."""
    ordered = np.sort(np.asarray(wrong, np.float64))
    scores = np.asarray(right, np.float64)
    below = np.searchsorted(ordered, scores, side="left")
    upto = np.searchsorted(ordered, scores, side="right")
    return float((below + upto).sum() / (2 * len(scores) * len(ordered)))
