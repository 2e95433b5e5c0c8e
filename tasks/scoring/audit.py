"""The audit of composition: what one modality alone solves of a benchmark, from its scores.

Nothing is ranked or encoded for it: `MethodScores` hold the score and the first hit of each query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from models.retrieval.audit import OnTheRest, Solved, on_the_rest, solved_by_one
from models.retrieval.bootstrap import RESAMPLES
from storage.benchmarks.facts import Metrics
from tasks.scoring.scores import MethodScores

IMAGE: Final = "image-only"
TEXT: Final = "text-only"
"""The methods that read one modality."""


@dataclass(frozen=True)
class Audit:
    """What one modality solves, and every method on the rest.

    Attributes:
        metric: The metric of `methods`: the benchmark's main one.
        missing: Methods of one modality that were not scored: with one missing, the rest is empty.
        solved: By rank, the queries that one modality alone solves.
        methods: Method -> what it reaches on the rest, in the order of `solved`.
    """

    metric: str
    missing: tuple[str, ...] = ()
    solved: tuple[Solved, ...] = ()
    methods: Mapping[str, tuple[OnTheRest, ...]] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        if self.missing:
            return {"metric": self.metric, "missing": list(self.missing)}
        return {
            "metric": self.metric,
            "solved": [
                {**dataclasses.asdict(each), "either": each.either, "left": each.left}
                for each in self.solved
            ],
            "methods": {
                name: [
                    {"depth": at.depth, "queries": at.left, **dataclasses.asdict(own)}
                    for at, own in zip(self.solved, rest, strict=True)
                ]
                for name, rest in self.methods.items()
            },
        }


def audit_scores(
    chosen: Metrics, scores: Mapping[str, MethodScores], resamples: int = RESAMPLES
) -> Audit:
    """The audit of one benchmark at each rank of its metrics.

    Args:
        chosen: The benchmark's metrics.
        scores: Method -> its scores on the benchmark, by one backbone.
        resamples: Bootstrap draws.
    """
    missing = tuple(name for name in (IMAGE, TEXT) if name not in scores)
    if missing:
        return Audit(chosen.main, missing)
    image, text = scores[IMAGE].first_hits, scores[TEXT].first_hits
    values = {name: [own[chosen.main] for own in each.single] for name, each in scores.items()}
    hits = {name: each.first_hits for name, each in scores.items()}
    by_depth = [on_the_rest(values, hits, image, text, depth, resamples) for depth in chosen.depths]
    return Audit(
        metric=chosen.main,
        solved=tuple(solved_by_one(image, text, depth) for depth in chosen.depths),
        methods={name: tuple(found[name] for found in by_depth) for name in scores},
    )
