"""Rankings of two stages: the first one's best images in the order of the second one's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from models.retrieval.reranked import reranked
from storage.tables.schemas import OK
from tasks.networks import network_facts
from tasks.query_sets import load_query_set
from tasks.stages.rankings import RankingStage
from tasks.stages.rerank_scores import RerankScoreStage
from tasks.stages.stage import Tick


class RerankedStage(RankingStage):
    """The first stage's ranking with its first K images ordered again; the others stay behind them.

    A candidate's number in `scores` is the second stage's, a later image's the first stage's.
    """

    producer: ClassVar[str] = "cirflow/reranked/1"

    scores: RerankScoreStage

    def identity(self) -> dict[str, Any]:
        """The first stage by its recipe and its table, and the second one."""
        return {
            **super().identity(),
            "first_stage": self.scores.first.spec_key,
            "second_stage": self.scores.spec_key,
            "candidates": self.scores.count,
        }

    def second_stage(self) -> tuple[dict[str, Any], list[str]]:
        """The re-ranker, and K."""
        facts = network_facts(self.scores.network.checkpoint)
        said = {"checkpoint": facts.name, "candidates": self.scores.count}
        return {"second_stage": said}, [facts.zero_shot_reason]

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Order the members again; a query whose candidates have no scores says so."""
        first, count = self.scores.first, self.scores.count
        ids = load_query_set(self.root, self.benchmark).image_ids
        lists = self.scores.lists()
        rows = {row["query_id"]: row for row in first.table().read(keys=members).to_dicts()}
        known = self._known([lists[member].key for member in members if member in lists])
        made = []
        for member in members:
            row = rows[member]
            if row["status"] == OK:
                found, reason = known.get(lists[member].key, ({}, "it has no row"))
                row |= _ordered(row, ids, found, count, self.depth) if found else _without(reason)
            made.append(row)
        tick(len(members))
        columns = ("category", "names", "scores", "subset_names", "status", "reason")
        return self.table().rows(
            query_id=list(members), **{c: [row[c] for row in made] for c in columns}
        )

    def _known(self, keys: Sequence[str]) -> dict[str, tuple[dict[str, float], str]]:
        """Key of a candidate list -> image id -> score, or nothing and the reason."""
        columns = ["candidates", "scores", "status", "reason"]
        rows = self.scores.table().read(columns, keys).iter_rows()
        return {
            key: (dict(zip(images, scores, strict=True)), "") if status == OK else ({}, reason)
            for key, images, scores, status, reason in rows
        }


def _ordered(
    row: Mapping[str, Any],
    ids: Mapping[str, str],
    scores: Mapping[str, float],
    count: int,
    depth: int,
) -> dict[str, Any]:
    """The columns of a ranking in the order of some images' scores."""
    named = {name: scores[ids[name]] for name in (*row["names"][:count], *row["subset_names"])}
    before = dict(zip(row["names"], row["scores"], strict=True))
    names = reranked(row["names"], named, count)[:depth]
    return {
        "names": names,
        "scores": [named[n] if n in row["names"][:count] else before[n] for n in names],
        "subset_names": reranked(row["subset_names"], named, len(row["subset_names"])),
    }


def _without(reason: str) -> dict[str, Any]:
    return {
        "names": None,
        "scores": None,
        "subset_names": None,
        "status": "missing_input",
        "reason": f"a candidate could not be scored: {reason}",
    }
