"""What a verifier's tables say of the candidates of a query, whatever it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Verdict: TypeAlias = tuple[float | None, str]
"""A margin, or None and why there is none."""
ByPair: TypeAlias = Mapping[tuple[str, str, str], Verdict]
"""(reference, text, candidate) -> verdict."""


class Verdicts(Protocol):
    """The verdicts of a benchmark's queries."""

    @property
    def by_pair(self) -> ByPair:
        """Of all candidates."""
        ...

    def margins_of(self, reference: str, text: str, candidates: Sequence[str]) -> dict[str, float]:
        """Candidate -> margin, of the candidates of one list that have one."""
        ...


@dataclass(frozen=True)
class PairVerdicts:
    """Each candidate was judged for itself."""

    by_pair: ByPair

    def margins_of(self, reference: str, text: str, candidates: Sequence[str]) -> dict[str, float]:
        """Candidate -> margin.

        Raises:
            KeyError: A candidate is not among those that were to be judged.
        """
        found = {each: self.by_pair[reference, text, each][0] for each in candidates}
        return {each: margin for each, margin in found.items() if margin is not None}


@dataclass(frozen=True)
class ListVerdicts:
    """Candidates were judged as lists; a margin means something within its list alone.

    Attributes:
        lists: (reference, text, candidates in the first stage's order) -> verdict of each; lists
            of one candidate are not asked about.
    """

    lists: Mapping[tuple[str, str, tuple[str, ...]], Sequence[Verdict]]

    @property
    def by_pair(self) -> ByPair:
        """Of all candidates; where two lists hold one, the verdict of the longer list."""
        found: dict[tuple[str, str, str], Verdict] = {}
        for (reference, text, candidates), own in sorted(
            self.lists.items(), key=lambda each: len(each[0][2])
        ):
            found |= {
                (reference, text, candidate): verdict
                for candidate, verdict in zip(candidates, own, strict=True)
            }
        return found

    def margins_of(self, reference: str, text: str, candidates: Sequence[str]) -> dict[str, float]:
        """Candidate -> margin; empty for a list that was not asked about or not answered."""
        own = tuple(dict.fromkeys(candidates))
        verdicts = self.lists.get((reference, text, own), ())
        return {
            candidate: margin
            for candidate, (margin, _) in zip(own, verdicts, strict=False)
            if margin is not None
        }
