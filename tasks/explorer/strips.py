"""Some queries of an evaluation with their pictures and texts, by name and not by pixels."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.redaction import redact
from models.retrieval.methods import title_of
from models.spelling import unknown
from storage.benchmarks.records import Query
from storage.tables.table import IncompleteTable
from tasks.explorer.evaluations import evaluation_of
from tasks.explorer.ranks import Ranked, column
from tasks.planner import plan_evaluation
from tasks.query_sets import QueryItem
from tasks.settings import Profile
from tasks.stages.query_features import QueryFeatureStage, Tables
from tasks.stages.rankings import RankingStage


@dataclass(frozen=True)
class Picture:
    """An image of a benchmark.

    Attributes:
        name: The benchmark's name of it.
        image_id: sha256 of its bytes; empty where no file of it is usable.
    """

    name: str
    image_id: str


@dataclass(frozen=True)
class Hit:
    """One ranked image: its picture, rank from 1, similarity, and whether it is a right answer."""

    picture: Picture
    rank: int
    score: float
    is_target: bool


@dataclass(frozen=True)
class Answer:
    """What one method answered.

    Attributes:
        method: Its name.
        title: Its name for people.
        rank: Rank of the best right answer, from 1; None where none is in the list.
        place: Rank in the query's group; None without groups.
        score: The query's part in the main metric, from 0 to 1.
        hits: The first images, best first.
    """

    method: str
    title: str
    rank: int | None
    place: int | None
    score: float
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class QueryTexts:
    """What captioner and language model said of a query.

    Attributes:
        captions: Captions of the reference image.
        edits: Edited captions.
        objects: Objects that the modification adds.
        said: Why the texts cannot be shown; empty where they can.
    """

    captions: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    objects: str = ""
    said: str = ""


@dataclass(frozen=True)
class QueryStrip:
    """A query as methods answered it.

    Attributes:
        query: Its key: category and id.
        text: Modification text.
        lacks: Why it could not be asked; mostly empty.
        category: Its gallery; empty where there is one.
        aspects: Semantic aspects of the change.
        group: Name of its hard-negative group; empty without one.
        reference: The reference image.
        targets: The right answers.
        answers: One for each method shown.
    """

    query: str
    text: str
    lacks: str
    category: str
    aspects: tuple[str, ...]
    group: str
    reference: Picture
    targets: tuple[Picture, ...]
    answers: tuple[Answer, ...]


def query_strips(
    ranked: Ranked, queries: Sequence[str], methods: Sequence[str], top: int
) -> tuple[QueryStrip, ...]:
    """Some queries in the order given; nothing but memory is read.

    Args:
        ranked: The evaluation.
        queries: Keys of queries, as in its frame.
        methods: Methods whose answers are shown.
        top: Images shown of each answer.

    Raises:
        LookupError: a query is unknown.
    """
    for query in queries:
        if query not in ranked.rows:
            known = list(ranked.rows)
            raise LookupError(unknown("query", query, known[:6], also=known))
    return tuple(_strip(ranked, query, methods, top) for query in queries)


def _strip(ranked: Ranked, query: str, methods: Sequence[str], top: int) -> QueryStrip:
    row, record, place = ranked.rows[query]
    measured = ranked.frame.row(row, named=True)
    return QueryStrip(
        query=query,
        text=record.text,
        lacks=measured["lacks"],
        category=record.category,
        aspects=record.aspects,
        group=measured["group"],
        reference=_picture(ranked, record.reference),
        targets=tuple(_picture(ranked, name) for name in record.targets),
        answers=tuple(_answer(ranked, measured, record, name, place, top) for name in methods),
    )


def _answer(
    ranked: Ranked, measured: Mapping[str, Any], query: Query, method: str, place: int, top: int
) -> Answer:
    ranking = ranked.lists[method]
    gallery = ranking.views[query.category].gallery
    best = ranking.lists[query.category][place][:top].tolist()
    scores = ranking.scores[query.category][place][:top].tolist()
    return Answer(
        method=method,
        title=title_of(method),
        rank=measured[column("rank", method)],
        place=measured.get(column("place", method)),
        score=measured[column("score", method)],
        hits=tuple(
            Hit(_picture(ranked, gallery[i]), rank, score, gallery[i] in query.targets)
            for rank, (i, score) in enumerate(zip(best, scores, strict=True), 1)
            if i >= 0
        ),
    )


def _picture(ranked: Ranked, name: str) -> Picture:
    return Picture(name, ranked.query_set.image_ids.get(name, ""))


def query_texts(ranked: Ranked, queries: Sequence[str], method: str) -> tuple[QueryTexts, ...]:
    """The texts behind some queries of a method, from its tables, in the order given.

    The stages are planned again from the settings that were written down; texts are shown only
    where that gives the very ranking which was scored.
    """
    try:
        stage = _stage(ranked.evaluation.root, ranked.evaluation.key, method)
        if stage.spec_key != ranked.evaluation.runs[method]:
            raise IncompleteTable(
                "the models' files, the program or gaps of the gallery changed since, and texts of "
                "this ranking can no longer be told: run the evaluation again (what is equal is "
                "reused)"
            )
        items = [ranked.query_set.item_of(ranked.rows[query][1]) for query in queries]
        found = _texts(stage, [item for item in items if item])
        return tuple(found[item.key] if item else QueryTexts() for item in items)
    except (ValueError, OSError, LookupError, IncompleteTable) as error:
        return (QueryTexts(said=redact(str(error))),) * len(queries)


@functools.lru_cache(maxsize=16)
def _stage(root: str, key: str, method: str) -> RankingStage:
    evaluation = evaluation_of(root, key)
    profile = Profile.model_validate_json(evaluation.profile).changed(root=root)
    return plan_evaluation(profile, evaluation.ref, [method]).rankings[0]


def _texts(stage: RankingStage, items: Sequence[QueryItem]) -> dict[str, QueryTexts]:
    """Query by content -> its texts."""
    upstream = Tables()
    known = [
        feature.shown_texts(items, upstream)
        for feature in stage.query_features.values()
        if isinstance(feature, QueryFeatureStage)
    ]
    return {
        item.key: QueryTexts(
            captions=next((own[i].captions for own in known if own[i].captions), ()),
            edits=next((own[i].edits for own in known if own[i].edits), ()),
            objects=next((own[i].objects for own in known if own[i].objects), "") or "",
        )
        for i, item in enumerate(items)
    }
