"""Scores of a second stage: a cross-encoder reads each query with its candidates, row by row.

A query's candidates are the first K images of its ranking and the members of its group. The row
is keyed by the query and these images, whatever ranked them: two first stages that agree on a
query share its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from storage.collections.decoding import ImageProblem
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from tasks.networks import features_identity, load_scorer, picture_side
from tasks.query_sets import QueryItem, load_query_set
from tasks.settings import ReformulationSettings
from tasks.stages.candidates import CandidateStage, lists_of
from tasks.stages.decoded import picture
from tasks.stages.rankings import query_items
from tasks.stages.reformulation_features import network_behind
from tasks.stages.stage import Tick


@dataclass(frozen=True)
class CandidateList:
    """The candidates of a query.

    Attributes:
        query: The query by content.
        images: Their distinct image ids, sorted: the order of a first stage changes no score.
    """

    query: QueryItem
    images: tuple[str, ...]

    @property
    def key(self) -> str:
        """Content key of both."""
        return content_key({"query": self.query.key, "candidates": list(self.images)})


class RerankScoreStage(CandidateStage):
    """The cross-encoder's scores of every query's candidates."""

    table_name: ClassVar[str] = "rerank_scores"
    producer: ClassVar[str] = "cirflow/rerank_scores/1"

    network: ReformulationSettings
    """The re-ranker."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"second look at the top {self.count} of {self.first.title}"

    def identity(self) -> dict[str, Any]:
        """The network; rows are keyed by queries and candidates, so that others share the table."""
        return {
            "network": features_identity(self.network, "online"),
            **self.pictures.identity,
        }

    def planned(self) -> list[str]:
        """Keys of the candidate lists of all queries that are ranked."""
        return sorted({each.key for each in self.lists().values()})

    def lists(self) -> dict[str, CandidateList]:
        """Query id -> its candidates, of every query that the first stage has ranked."""
        first = self.first
        query_set = load_query_set(first.root, first.benchmark)
        items, ids = query_items(query_set), query_set.image_ids
        return {
            key: CandidateList(items[key], tuple(sorted({ids[n] for n in (*best, *group)})))
            for key, (best, group) in lists_of(first, self.count).items()
        }

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Score the members; one with an image that does not decode is a row with its status."""
        lists = {each.key: each for each in self.lists().values()}
        chosen = [lists[member] for member in members]
        images = {image for each in chosen for image in (each.query.image_id, *each.images)}
        data = self.files(images)
        first = network_behind(self.first.query_features.values())
        scorer = load_scorer(self.network, first, self.pictures.threads)
        side = picture_side(self.network)
        made: list[tuple[Any, str, str]] = []
        for each in chosen:
            try:
                scores = scorer.scores(
                    each.query.image_id,
                    each.query.texts[0],
                    each.images,
                    lambda image: picture(data[image], self.pictures, side),
                )
                made.append((scores.tolist(), OK, ""))
            except ImageProblem as problem:
                made.append((None, problem.status, problem.reason))
            tick(1)
        return self.table().rows(
            list_key=list(members),
            query_key=[each.query.key for each in chosen],
            candidates=[list(each.images) for each in chosen],
            scores=[scores for scores, _, _ in made],
            status=[status for _, status, _ in made],
            reason=[reason for _, _, reason in made],
        )
