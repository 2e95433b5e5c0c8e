"""Fill the report's records from rankings, scores and tables, and write the page."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from models.retrieval.bootstrap import interval
from models.retrieval.methods import METHODS
from models.retrieval.published_results import Published
from storage.benchmarks.facts import BenchmarkFacts
from storage.benchmarks.registry import benchmark_facts
from storage.collections.collection import Collection
from storage.locations.location import Location
from storage.tables.table import Table
from tasks.backbone_names import Folders, folders_of, recognised, recognised_name
from tasks.query_sets import BenchmarkRef, QuerySet, is_embedded_world, load_query_set
from tasks.report.pictures import evenly, thumbnail
from tasks.report.records import (
    LeaderboardRow,
    Provenance,
    ReportData,
    Result,
    Section,
    Strip,
    Thumbnail,
)
from tasks.report.render import render_report
from tasks.scoring.ledger import RESULTS_SPEC, not_zero_shot
from tasks.scoring.published import published_for
from tasks.scoring.scores import MethodScores, RankedLists, read_ranking
from tasks.settings import Profile
from tasks.stages.query_features import QueryFeatureStage, Tables
from tasks.stages.rankings import REFORMULATED, RankingStage, backbone_of
from tasks.stages.stage import inputs_of
from tasks.stages.stage_report import StageReport

GROUPS: Final = {"baseline": "baseline", "ablation": "ablation"}
STRIPS = 6
"""Queries shown per benchmark: half found at rank one where there are as many, half not."""
TOP = 6
"""Ranked images shown per query."""


@dataclass(frozen=True)
class EvaluatedBenchmark:
    """One benchmark's rankings, and scores by method (none where targets are hidden)."""

    ref: BenchmarkRef
    rankings: tuple[RankingStage, ...]
    scores: Mapping[str, MethodScores]


def report_data(
    profile: Profile,
    evaluated: Sequence[EvaluatedBenchmark],
    stages: Sequence[StageReport],
    title: str,
    commands: Sequence[str] = (),
) -> ReportData:
    """Everything that a report shows."""
    embedded = any(is_embedded_world(item.ref.root) for item in evaluated)
    return ReportData(
        title=title,
        subtitle="Composed image retrieval: a reference image and a modification text find a "
        "target image.",
        embedded_world=embedded,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        sections=tuple(_section(profile, item) for item in evaluated if item.scores),
        stages=tuple(stages),
        provenance=_provenance(profile, evaluated, commands),
    )


def write_report(data: ReportData, out: Path) -> Path:
    """Write `report.html` below `out`; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    Location(str(out)).replace("report.html", render_report(data).encode())
    return out / "report.html"


# --------------------------------------------------------------------------- leaderboard


def _section(profile: Profile, item: EvaluatedBenchmark) -> Section:
    facts = benchmark_facts(item.ref.name)
    world = "-like, embedded world" if is_embedded_world(item.ref.root) else ""
    shown = "cvsi" if "cvsi" in item.scores else next(iter(item.scores))
    ranking = next(stage for stage in item.rankings if stage.method == shown)
    backbone = recognised_name(profile.query_encoder)
    folders = folders_of(profile.query_encoder)
    return Section(
        name=item.ref.collection_name,
        title=f"{facts.title}{world}",
        main_metric=facts.metrics.main,
        rows=tuple(_measured(item, facts, stage, folders) for stage in item.rankings)
        + tuple(_elsewhere(item, backbone)),
        protocol=_short(item.scores[shown].protocol),
        strips=_strips(ranking),
        summary=f"{len(item.ref.load().queries)} queries, split {item.ref.split}.",
        columns=facts.columns,
        interval_note="95 % bootstrap over queries",
    )


def _measured(
    item: EvaluatedBenchmark, facts: BenchmarkFacts, stage: RankingStage, folders: Folders
) -> LeaderboardRow:
    name = stage.method
    row, scores, whole = METHODS[name], item.scores[name], item.scores.get("cvsi")
    deltas = {} if whole is None or name == "cvsi" else _paired(scores, whole, facts.columns)
    backbone, trained, _ = recognised(backbone_of(stage), folders).partition(REFORMULATED)
    caveat = not_zero_shot(scores.protocol)
    return LeaderboardRow(
        method=name,
        title=f"{row.title} (not zero-shot)" if caveat else row.title,
        group="preset" if name == "cvsi-code" else GROUPS.get(row.group, "method"),
        benchmark=item.ref.collection_name,
        split=item.ref.split,
        backbone=backbone,
        on_top="reformulation" if trained else "",
        metrics=dict(scores.metrics),
        intervals=dict(scores.intervals),
        delta_intervals=deltas,
        num_queries=scores.queries,
        note=row.description,
        caveat=caveat,
        **_paper(_published(item.ref, name, backbone)),
    )


def _paired(
    scores: MethodScores, whole: MethodScores, metrics: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """95 % interval of a method minus the whole method, from paired bootstrap draws."""
    gaps = {name: scores.draws[name] - whole.draws[name] for name in metrics}
    return {name: interval(gap) for name, gap in gaps.items() if gap.size}


def _elsewhere(item: EvaluatedBenchmark, backbone: str) -> list[LeaderboardRow]:
    """Systems of the papers' tables that do not run here, or lack a checkpoint."""
    rows = []
    for name, row in METHODS.items():
        published = _published(item.ref, name, backbone)
        if row.status == "ready" or name in item.scores or published is None:
            continue
        rows.append(
            LeaderboardRow(
                method=name,
                title=row.title,
                group="paper-only",
                benchmark=item.ref.collection_name,
                split=item.ref.split,
                backbone=backbone,
                status=row.status,
                note=row.reason,
                **_paper(published),
            )
        )
    return rows


def _published(ref: BenchmarkRef, method: str, backbone: str) -> Published | None:
    drawn = is_embedded_world(ref.root)
    return published_for(ref.name, ref.split, method, backbone, drawn=drawn)


def _paper(published: Published | None) -> dict[str, Any]:
    """The fields of a row that say what was published."""
    if published is None:
        return {}
    result = published.result
    parts = (f"{result.paper} Table {result.table}", published.where, result.note)
    return {
        "paper": dict(result.metrics),
        "paper_source": ", ".join(part for part in parts if part),
        "paper_apart": published.apart,
    }


def _short(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in protocol.items()}


# --------------------------------------------------------------------------- strips


def _strips(stage: RankingStage) -> tuple[Strip, ...]:
    """A few found and a few missed queries of a ranking, evenly drawn, with all their texts."""
    ranked = read_ranking(stage)
    query_set = load_query_set(stage.root, stage.benchmark)
    places = _chosen(ranked)
    wanted = {name for place in places for name in _names(ranked, *place)}
    pictures = _thumbnails(stage, query_set, wanted)
    texts = _texts(stage, query_set)
    return tuple(_strip(stage, ranked, pictures, texts, *place) for place in places)


def _chosen(ranked: RankedLists) -> list[tuple[str, int]]:
    hits: list[tuple[str, int]] = []
    misses: list[tuple[str, int]] = []
    for category, view in ranked.views.items():
        for row in range(len(view.queries)):
            rank = _target_rank(ranked, category, row)
            (hits if rank == 1 else misses).append((category, row))
    each = STRIPS // 2
    taken = evenly(hits, max(each, STRIPS - len(misses))) + evenly(misses, each)
    return taken[:STRIPS]


def _target_rank(ranked: RankedLists, category: str, row: int) -> int | None:
    view = ranked.views[category]
    targets = set(view.targets[row][view.targets[row] >= 0].tolist())
    found = [r for r, image in enumerate(ranked.lists[category][row], 1) if int(image) in targets]
    return found[0] if found else None


def _names(ranked: RankedLists, category: str, row: int) -> list[str]:
    view = ranked.views[category]
    query = view.queries[row]
    top = [view.gallery[i] for i in ranked.lists[category][row][:TOP] if i >= 0]
    return [query.reference, *top, *query.targets]


def _thumbnails(stage: RankingStage, query_set: QuerySet, names: set[str]) -> dict[str, Thumbnail]:
    names_of: dict[str, list[str]] = {}
    for name in names & query_set.image_ids.keys():
        names_of.setdefault(query_set.image_ids[name], []).append(name)
    collection = Collection.open(Location(stage.root), stage.benchmark.collection_name)
    made: dict[str, Thumbnail] = {}
    for image_id, data in collection.read_images(list(names_of)):
        small = thumbnail(data, "")
        made |= {name: replace(small, alt=f"image {name}") for name in names_of[image_id]}
    return made


def _strip(
    stage: RankingStage,
    ranked: RankedLists,
    pictures: Mapping[str, Thumbnail],
    texts: Mapping[tuple[str, str], Texts],
    category: str,
    row: int,
) -> Strip:
    view = ranked.views[category]
    query = view.queries[row]
    targets = set(query.targets)
    shown = [int(i) for i in ranked.lists[category][row][:TOP] if i >= 0]
    results = tuple(
        Result(
            name=view.gallery[i],
            thumbnail=pictures[view.gallery[i]],
            score=float(ranked.scores[category][row][place]),
            is_target=view.gallery[i] in targets,
        )
        for place, i in enumerate(shown)
    )
    captions, edits, added = texts.get((category, query.query_id), ((), (), ""))
    missed = tuple(
        Result(name, pictures[name], None, True, None)
        for name in query.targets
        if name in pictures and name not in {r.name for r in results}
    )
    return Strip(
        benchmark=stage.benchmark.collection_name,
        query_id=query.query_id,
        method=METHODS[stage.method].title,
        text=query.text,
        reference=pictures[query.reference],
        captions=captions,
        edits=edits,
        added=added,
        results=results,
        target_rank=_target_rank(ranked, category, row),
        missed=missed,
    )


Texts = tuple[tuple[str, ...], tuple[str, ...], str]
"""Captions, edited captions and added objects of a query."""


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


# --------------------------------------------------------------------------- provenance


def _provenance(
    profile: Profile, evaluated: Sequence[EvaluatedBenchmark], commands: Sequence[str]
) -> Provenance:
    packages = ("torch", "open_clip_torch", "transformers", "prefect", "polars", "pyarrow")
    tables = {
        f"{table.name}/{table.spec_key}": dict(table.spec)
        for item in evaluated
        for stage in item.rankings
        for table in _tables(stage)
    }
    ledger = Location(profile.root).child("results")
    return Provenance(
        versions={name: importlib.metadata.version(name) for name in packages},
        specs=tables,
        commands=tuple(commands),
        ledger=f"{ledger} ({RESULTS_SPEC['producer']})",
    )


def _tables(stage: RankingStage) -> list[Table]:
    """The tables that a ranking was made from."""
    return [each.table() for each in inputs_of([stage])]
