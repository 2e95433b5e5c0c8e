"""Rankings whose best images a verifier has looked at: verdicts fused with the first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import pyarrow as pa

from models.retrieval.verified import Fusing, places_as_scores, verified
from storage.tables.schemas import OK
from tasks.networks import texts_seen_by
from tasks.query_sets import load_query_set
from tasks.stages.list_verifications import ListVerificationStage
from tasks.stages.questioned import QuestionedStage
from tasks.stages.rankings import RankingStage, query_items
from tasks.stages.reranked import RerankedStage
from tasks.stages.stage import Stage, Tick
from tasks.stages.verdicts import Verdicts
from tasks.stages.verifications import VerificationStage
from tasks.verify_settings import FusingSettings

AnyVerifications: TypeAlias = VerificationStage | QuestionedStage | ListVerificationStage
"""What a verifier was asked about the best images: one class for each `verify.mode`."""


class VerifiedStage(RankingStage):
    """The first stage's ranking with its first K images in the order that a verifier gives them.

    A candidate's number in `scores` is the fused one, a later image's the first stage's. A pair
    that was not verified keeps its place. Images of a query's group are ordered in the same way;
    since a ranking holds no scores of them, their places stand for first-stage scores.
    """

    producer: ClassVar[str] = "cirflow/verified/1"

    verifications: AnyVerifications
    fusing: FusingSettings

    def identity(self) -> dict[str, Any]:
        """The first stage by its recipe and its table, the verifier, and the rule."""
        return {
            **super().identity(),
            "first_stage": self.verifications.first.spec_key,
            "verifications": self.verifications.spec_key,
            "candidates": self.verifications.count,
            **self.verifications.said,
            "fusing": self.fusing.identity,
        }

    def second_stage(self) -> tuple[dict[str, Any], list[str]]:
        """The first stage's own second one, then the verifier, K and the rule."""
        said, reasons = self.verifications.first.second_stage()
        own = {
            "verifier": self.verifications.verifier.title,
            "candidates": self.verifications.count,
            **self.verifications.said,
            **self.fusing.identity,
        }
        seen = texts_seen_by([stage.spec for stage in self._asked])
        return {**said, "verification": own}, [*reasons, seen]

    @property
    def _asked(self) -> list[Stage]:
        """The verifier's table, and that of its questions."""
        own = self.verifications
        return [own, own.asked] if isinstance(own, QuestionedStage) else [own]

    def failures(self) -> dict[str, Any]:
        """Pairs without a margin, if there are any, and what the mode itself counts."""
        found = self.verifications.read().by_pair
        lacking = sum(margin is None for margin, _ in found.values())
        said = {"not_verified": {"pairs": len(found), "lacking": lacking}} if lacking else {}
        return {**said, **self.verifications.failures()}

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Order the members again."""
        first = self.verifications.first
        verdicts = self.verifications.read()
        rows = {row["query_id"]: row for row in first.table().read(keys=members).to_dicts()}
        made = reordered(self, rows, verdicts, self.verifications.count, self.fusing.fusing)
        tick(len(members))
        columns = ("category", "names", "scores", "subset_names", "status", "reason")
        return self.table().rows(
            query_id=list(members), **{c: [made[m][c] for m in members] for c in columns}
        )


def reordered(
    stage: VerifiedStage,
    rows: Mapping[str, Mapping[str, Any]],
    verdicts: Verdicts,
    count: int,
    fusing: Fusing,
) -> dict[str, dict[str, Any]]:
    """Rows of the first stage's ranking, by query id, in the order of one rule and one K.

    Args:
        stage: Says the benchmark and the first stage.
        rows: Rows of the first stage's table.
        verdicts: Of at least the first `count` images and the group of each query.
        count: K.
        fusing: The rule.
    """
    query_set = load_query_set(stage.root, stage.benchmark)
    items = query_items(query_set)
    one_scale = not isinstance(stage.verifications.first, RerankedStage)
    made: dict[str, dict[str, Any]] = {}
    for key, row in rows.items():
        made[key] = dict(row)
        if row["status"] != OK:
            continue
        asked = items[key].image_id, items[key].texts[0]

        def margins_of(names: Sequence[str], asked: tuple[str, str] = asked) -> dict[str, float]:
            ids = {name: query_set.image_ids[name] for name in names}
            known = verdicts.margins_of(*asked, list(ids.values()))
            return {name: known[own] for name, own in ids.items() if own in known}

        best, later = row["names"][:count], row["names"][count:]
        numbers = row["scores"][: len(best)] if one_scale else places_as_scores(len(best))
        names, scores = verified(best, numbers, margins_of(best), fusing)
        group = row["subset_names"]
        made[key] |= {
            "names": [*names, *later][: stage.depth],
            "scores": [*scores, *row["scores"][count:]][: stage.depth],
            "subset_names": verified(
                group, places_as_scores(len(group)), margins_of(group), fusing
            )[0],
        }
    return made
