"""The spread of scores over paraphrases of a benchmark's texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.retrieval.spread import Spread, spread
from storage.benchmarks.facts import Metrics
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.query_texts import QueryKey, key_of
from tasks.scoring.scores import MethodScores


@dataclass(frozen=True)
class Wording:
    """A benchmark asked in other words.

    Attributes:
        ref: With the texts.
        scores: Method -> its scores.
        untold: Queries without a text.
    """

    ref: BenchmarkRef
    scores: Mapping[str, MethodScores]
    untold: frozenset[QueryKey] = frozenset()

    @classmethod
    def of(cls, root: str, ref: BenchmarkRef, scores: Mapping[str, MethodScores]) -> Wording:
        """The scores of a benchmark with paraphrased texts."""
        return cls(ref, scores, frozenset(load_query_set(root, ref).untold))


@dataclass(frozen=True)
class Spreads:
    """Methods over the benchmark's own texts and their paraphrases.

    Attributes:
        metric: The benchmark's main metric.
        count: Paraphrases of each text.
        label: Who wrote them.
        methods: Method -> its spread; None where no query has every wording.
    """

    metric: str
    count: int
    label: str
    methods: Mapping[str, Spread | None]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)


def spreads(
    chosen: Metrics,
    ref: BenchmarkRef,
    scores: Mapping[str, MethodScores],
    wordings: Sequence[Wording],
) -> Spreads:
    """The spread of each method over the own texts and some wordings.

    Args:
        chosen: The benchmark's metrics.
        ref: The benchmark with its own texts.
        scores: Method -> its scores with them.
        wordings: The same methods with other texts.
    """
    untold = frozenset[QueryKey]().union(*(each.untold for each in wordings))
    benchmark = ref.load()
    told = [
        [key_of(query) not in untold for query in benchmark.queries_of(category)]
        for category in benchmark.categories
    ]
    if chosen.pooled:
        told = [[each for own in told for each in own]]
    every = [scores, *(each.scores for each in wordings)]
    return Spreads(
        metric=chosen.main,
        count=len(wordings),
        label=wordings[0].ref.texts.label.partition(", wording ")[0],
        methods={
            name: spread([[own[chosen.main] for own in s[name].single] for s in every], told)
            for name in scores
        },
    )
