"""Some answered queries of a ranking, with every picture and text behind the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from models.retrieval.methods import method
from models.verifiers.protocol import sigmoid
from storage.collections.collection import Collection
from storage.locations.location import Location
from tasks.query_sets import QuerySet, load_query_set
from tasks.report.pictures import LARGE, evenly, nothing, thumbnail
from tasks.report.records import Result, Strip, Thumbnail
from tasks.scoring.scores import RankedLists, read_ranking
from tasks.stages.edited_features import EditedQueryStage
from tasks.stages.query_features import QueryFeatureStage, Tables
from tasks.stages.rankings import RankingStage
from tasks.stages.verified import VerifiedStage

STRIPS: Final = 6
"""Queries shown per benchmark: half found at rank one where there are as many, half not."""
TOP: Final = 6
"""Ranked images shown per query."""
Place = tuple[str, int]
"""Category of a query, and its row in it."""
Texts = tuple[tuple[str, ...], tuple[str, ...], str]
"""Captions, edited captions and added objects of a query."""


def example_queries(stage: RankingStage, top: int = TOP, count: int = STRIPS) -> tuple[Strip, ...]:
    """A few missed and a few found queries of a ranking, evenly drawn, with all their texts.

    Args:
        stage: The ranking.
        top: Ranked images shown of each.
        count: Queries shown at most.
    """
    ranked = read_ranking(stage)
    query_set = load_query_set(stage.root, stage.benchmark)
    return strips_of(stage, ranked, query_set, _chosen(ranked, query_set, count), top)


def strips_of(
    stage: RankingStage,
    ranked: RankedLists,
    query_set: QuerySet,
    places: Sequence[Place],
    top: int = TOP,
) -> tuple[Strip, ...]:
    """Some queries of a ranking with all their texts, in the order given.

    Args:
        stage: The ranking's stage.
        ranked: The ranking.
        query_set: The benchmark's queries.
        places: Category, and the query's row in it.
        top: Ranked images shown per query.
    """
    wanted = {name for place in places for name in _names(ranked, *place, top)}
    pictures = _thumbnails(stage, query_set, wanted)
    texts = _texts(stage, query_set)
    pictures |= {
        name: replace(nothing(), alt=f"image {name} {query_set.unusable[name]}")
        for name in wanted & query_set.unusable.keys()
    }
    verdicts = _verdicts(stage)
    strips = [_strip(stage, ranked, pictures, texts, verdicts, query_set, *p, top) for p in places]
    edited = _edited(stage, ranked, query_set, places)
    return tuple(replace(s, edited=e) for s, e in zip(strips, edited, strict=True))


def _edited(
    stage: RankingStage, ranked: RankedLists, query_set: QuerySet, places: Sequence[Place]
) -> list[Thumbnail | None]:
    """The edited references of some queries; None where a method has none."""
    queries = [ranked.views[category].queries[row] for category, row in places]
    items = [query_set.item_of(query) for query in queries]
    asked, made = [item for item in items if item is not None], dict[str, bytes]()
    for feature in stage.query_features.values():
        if isinstance(feature, EditedQueryStage):
            made |= feature.edited.made(asked)
    return [
        thumbnail(made[item.key], f"edited for query {query.query_id}", LARGE)
        if item is not None and item.key in made
        else None
        for item, query in zip(items, queries, strict=True)
    ]


def _verdicts(stage: RankingStage) -> dict[tuple[str, str, str], float | str]:
    """(reference, text, candidate) -> sigmoid of the margin, or why there is none; empty without a
    verifier."""
    if not isinstance(stage, VerifiedStage):
        return {}
    return {
        pair: reason if margin is None else sigmoid(margin)
        for pair, (margin, reason) in stage.verifications.read().by_pair.items()
    }


def _chosen(ranked: RankedLists, query_set: QuerySet, count: int) -> list[tuple[str, int]]:
    """Missed and found queries; the first one that cannot be asked is among them."""
    lacking: list[tuple[str, int]] = []
    hits: list[tuple[str, int]] = []
    misses: list[tuple[str, int]] = []
    for category, view in ranked.views.items():
        for row, query in enumerate(view.queries):
            if query_set.why_not_asked(query):
                lacking.append((category, row))
                continue
            rank = target_rank(ranked, category, row)
            (hits if rank == 1 else misses).append((category, row))
    each = count // 2
    missed = evenly(misses, max(each, count - len(hits)))
    return [*lacking[:1], *missed, *evenly(hits, count - len(missed))][:count]


def target_rank(ranked: RankedLists, category: str, row: int) -> int | None:
    """1-based rank of a query's best target; None where none was ranked."""
    view = ranked.views[category]
    targets = set(view.targets[row][view.targets[row] >= 0].tolist())
    found = [r for r, image in enumerate(ranked.lists[category][row], 1) if int(image) in targets]
    return found[0] if found else None


def _names(ranked: RankedLists, category: str, row: int, top: int) -> list[str]:
    view = ranked.views[category]
    query = view.queries[row]
    shown = [view.gallery[i] for i in ranked.lists[category][row][:top] if i >= 0]
    return [query.reference, *shown, *query.targets]


def _thumbnails(stage: RankingStage, query_set: QuerySet, names: set[str]) -> dict[str, Thumbnail]:
    names_of: dict[str, list[str]] = {}
    for name in names & query_set.image_ids.keys():
        names_of.setdefault(query_set.image_ids[name], []).append(name)
    collection = Collection.open(Location(stage.root), stage.benchmark.collection_name)
    made: dict[str, Thumbnail] = {}
    for image_id, data in collection.read_images(list(names_of)):
        small = thumbnail(data, "", LARGE)
        made |= {name: replace(small, alt=f"image {name}") for name in names_of[image_id]}
    return made


def _strip(
    stage: RankingStage,
    ranked: RankedLists,
    pictures: Mapping[str, Thumbnail],
    texts: Mapping[tuple[str, str], Texts],
    verdicts: Mapping[tuple[str, str, str], float | str],
    query_set: QuerySet,
    category: str,
    row: int,
    top: int,
) -> Strip:
    view = ranked.views[category]
    query = view.queries[row]
    targets = set(query.targets)
    shown = [int(i) for i in ranked.lists[category][row][:top] if i >= 0]
    item = query_set.item_of(query)
    asked = (item.image_id, item.texts[0]) if item else ("", "")
    results = tuple(
        Result(
            name=view.gallery[i],
            thumbnail=pictures[view.gallery[i]],
            score=float(ranked.scores[category][row][place]),
            is_target=view.gallery[i] in targets,
            verdict=verdicts.get((*asked, query_set.image_ids[view.gallery[i]])),
        )
        for place, i in enumerate(shown)
    )
    why = query_set.why_not_asked(query)
    captions, edits, added = texts.get((category, query.query_id), ((), (), ""))
    missed = tuple(
        Result(name, pictures[name], None, True, None)
        for name in query.targets
        if name in pictures and name not in {r.name for r in results}
    )
    return Strip(
        query_id=query.query_id,
        method=method(stage.method).title,
        text=query.text,
        reference=pictures[query.reference],
        captions=captions,
        edits=edits,
        added=added,
        results=results,
        target_rank=target_rank(ranked, category, row),
        failures=(why.removeprefix("reference image: "),) if why else (),
        missed=missed,
        judged=bool(query.targets),
    )


def _texts(stage: RankingStage, query_set: QuerySet) -> dict[tuple[str, str], Texts]:
    """The texts of all queries, as their features read them; each table is read once."""
    upstream, keys, items = Tables(), list(query_set.items), list(query_set.items.values())
    known = [
        feature.shown_texts(items, upstream)
        for feature in stage.query_features.values()
        if isinstance(feature, QueryFeatureStage)
    ]
    return {
        key: (
            next((own[i].captions for own in known if own[i].captions), ()),
            next((own[i].edits for own in known if own[i].edits), ()),
            next((own[i].objects or "" for own in known if own[i].objects), ""),
        )
        for i, key in enumerate(keys)
    }
