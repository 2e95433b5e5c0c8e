"""Fill the report's records from rankings, scores and tables, and write the page."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from models.retrieval.bootstrap import interval
from models.retrieval.methods import METHODS, method
from models.retrieval.published_results import Published
from models.spelling import agreed
from storage.benchmarks.facts import BenchmarkFacts
from storage.benchmarks.registry import benchmark_facts
from storage.locations.location import Location
from storage.tables.table import Table
from tasks.backbone_names import Folders, folders_of, recognised, recognised_name
from tasks.query_sets import BenchmarkRef, is_embedded_world, load_query_set
from tasks.report import text
from tasks.report.example_queries import STRIPS, example_queries
from tasks.report.records import (
    CostRow,
    LeaderboardRow,
    Provenance,
    ReportData,
    Section,
    Strip,
)
from tasks.report.render import render_report
from tasks.scoring.audit import audit_scores
from tasks.scoring.costs import QueryCost
from tasks.scoring.ledger import RESULTS_SPEC, entries_by_run, label_of, not_zero_shot
from tasks.scoring.making import FACETS
from tasks.scoring.published import published_for
from tasks.scoring.scores import MethodScores
from tasks.scoring.wordings import Wording, spreads
from tasks.settings import Profile
from tasks.stages.rankings import ON_TOP, RankingStage, backbone_of
from tasks.stages.stage import inputs_of
from tasks.stages.stage_report import StageReport

METHODS_SHOWN: Final = 8
"""Methods of which queries are shown, so that the file stays small enough to send."""


@dataclass(frozen=True)
class EvaluatedBenchmark:
    """The rankings of one benchmark, scores by method (none where targets are hidden), costs.

    `wordings` are the scores of the same methods with paraphrased texts.
    """

    ref: BenchmarkRef
    rankings: tuple[RankingStage, ...]
    scores: Mapping[str, MethodScores]
    costs: Mapping[str, QueryCost] = field(default_factory=dict)
    wordings: tuple[Wording, ...] = ()


def report_data(
    profile: Profile,
    evaluated: Sequence[EvaluatedBenchmark],
    stages: Sequence[StageReport],
    title: str,
    commands: Sequence[str] = (),
) -> ReportData:
    """Everything that a report shows.

    Args:
        profile: Backbone, and the root of the tables.
        evaluated: The benchmarks; one without scores has no section.
        stages: Reports of the stages that ran.
        title: Heading of the page.
        commands: Command lines that make the numbers again.
    """
    embedded = any(is_embedded_world(item.ref.root) for item in evaluated)
    ledger = entries_by_run(profile.root)
    return ReportData(
        title=title,
        subtitle="Composed image retrieval: a reference image and a modification text find a "
        "target image.",
        embedded_world=embedded,
        created=text.now(),
        sections=tuple(_section(profile, item, ledger) for item in evaluated if item.scores),
        stages=tuple(stages),
        provenance=_provenance(profile, evaluated, commands),
    )


def write_report(data: ReportData, out: Path) -> Path:
    """Write `report.html` below `out`; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    Location(str(out)).replace("report.html", render_report(data).encode())
    return out / "report.html"


def _section(
    profile: Profile, item: EvaluatedBenchmark, ledger: Mapping[str, Mapping[str, Any]]
) -> Section:
    facts = benchmark_facts(item.ref.name)
    world = "-like, embedded world" if is_embedded_world(item.ref.root) else ""
    shown = _shown_first(item, facts)
    ranking = next(stage for stage in item.rankings if stage.method == shown)
    backbone = recognised_name(profile.query_encoder)
    folders = folders_of(profile.query_encoder)
    queries = len(item.ref.load().queries)
    return Section(
        name=item.ref.title,
        title=f"{facts.title}{world}{_asked_with(item.ref)}",
        main_metric=facts.metrics.main,
        rows=tuple(_measured(item, facts, stage, folders, ledger) for stage in item.rankings)
        + tuple(_elsewhere(item, backbone)),
        protocol=_protocol({name: s.protocol for name, s in item.scores.items()}, shown),
        strips=_strips(item, shown),
        summary=f"{queries} {agreed(queries, 'query')}, split {item.ref.split}."
        + (f" Texts of queries: {item.ref.texts.label}." if item.ref.texts.are_replaced else "")
        + _lacking(load_query_set(ranking.root, ranking.benchmark).not_asked()),
        columns=facts.columns,
        interval_note="95 % bootstrap over queries",
        costs=tuple(_cost_row(item, stage) for stage in item.rankings if item.costs),
        audit=audit_scores(facts.metrics, item.scores),
        spreads=spreads(facts.metrics, item.ref, item.scores, item.wordings)
        if item.wordings
        else None,
    )


def _shown_first(item: EvaluatedBenchmark, facts: BenchmarkFacts) -> str:
    """The method whose protocol and queries come first: CVSI, or else the best one."""
    if "cvsi" in item.scores:
        return "cvsi"
    return max(item.scores, key=lambda name: item.scores[name].metrics[facts.metrics.main])


def _strips(item: EvaluatedBenchmark, shown: str) -> tuple[Strip, ...]:
    """Queries of one method, and a missed and a found one of each other."""
    stages = sorted(item.rankings, key=lambda stage: stage.method != shown)[:METHODS_SHOWN]
    found = (
        example_queries(stage, count=STRIPS if stage.method == shown else 2) for stage in stages
    )
    return tuple(strip for own in found for strip in own)


def _protocol(protocols: Mapping[str, Mapping[str, Any]], shown: str) -> dict[str, Any]:
    """The protocol of one method; what others do with the reference image is said where it differs.

    Args:
        protocols: By method.
        shown: The method.
    """
    found, rule = dict(protocols[shown]), "exclude_reference"
    others = [method(m).title for m, p in protocols.items() if p.get(rule) != found.get(rule)]
    if others:
        own, other = ("yes", "no") if found.get(rule) else ("no", "yes")
        found[rule] = f"{own}; {other} for {', '.join(others)}"
    return found


def _cost_row(item: EvaluatedBenchmark, stage: RankingStage) -> CostRow:
    cost = item.costs[stage.method]
    return CostRow(
        method=stage.method,
        title=method(stage.method).title,
        quality=item.scores[stage.method].metrics[benchmark_facts(item.ref.name).metrics.main],
        cost=cost,
    )


def _asked_with(ref: BenchmarkRef) -> str:
    """Texts that are not the benchmark's own, for its title."""
    return f", {ref.texts.source} texts" if ref.texts.are_replaced else ""


def _lacking(lines: Sequence[str]) -> str:
    """The queries that cannot be asked, which count as misses."""
    if not lines:
        return ""
    others = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    count = agreed(len(lines), "counts as a miss", "count as misses")
    return f" {len(lines)} {count}: {'; '.join(lines[:5])}{others}."


def _measured(
    item: EvaluatedBenchmark,
    facts: BenchmarkFacts,
    stage: RankingStage,
    folders: Folders,
    ledger: Mapping[str, Mapping[str, Any]],
) -> LeaderboardRow:
    name = stage.method
    row, scores, whole = method(name), item.scores[name], item.scores.get("cvsi")
    deltas = {} if whole is None or name == "cvsi" else _paired(scores, whole, facts.columns)
    entry = ledger.get(stage.spec_key, {})
    backbone, _, on_top = recognised(backbone_of(stage), folders).partition(ON_TOP)
    return LeaderboardRow(
        method=name,
        title=f"{row.title} (not zero-shot)" if not_zero_shot(scores.protocol) else row.title,
        group=_group(name),
        split=item.ref.split,
        backbone=backbone,
        on_top=on_top,
        metrics=dict(scores.metrics),
        intervals=dict(scores.intervals),
        delta_intervals=deltas,
        num_queries=scores.queries,
        note=row.description,
        differs=entry.get("differs", ""),
        made={FACETS.get(facet, facet): words for facet, words in entry.get("made", {}).items()},
        caveat=label_of(scores.protocol),
        **_paper(_published(item.ref, name, backbone)),
    )


def _group(name: str) -> str:
    known = method(name).group
    if name == "cvsi-code":
        return "preset"
    return known if known in ("baseline", "ablation") else "method"


def _paired(
    scores: MethodScores, whole: MethodScores, metrics: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """95 % interval of a method minus the whole method, from paired bootstrap draws."""
    gaps = {name: scores.draws[name] - whole.draws[name] for name in metrics}
    return {name: interval(gap) for name, gap in gaps.items() if gap.size}


def _elsewhere(item: EvaluatedBenchmark, backbone: str) -> list[LeaderboardRow]:
    """Systems of the papers' tables that do not run here or lack a checkpoint."""
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
                split=item.ref.split,
                backbone=backbone,
                status=row.status,
                note=row.reason,
                **_paper(published),
            )
        )
    return rows


def _published(ref: BenchmarkRef, method: str, backbone: str) -> Published | None:
    if ref.texts.are_replaced:  # the papers asked with the benchmark's own
        return None
    drawn = is_embedded_world(ref.root)
    return published_for(ref.name, ref.split, method, backbone, drawn=drawn)


def _paper(published: Published | None) -> dict[str, Any]:
    """The fields of a row for its published numbers."""
    if published is None:
        return {}
    result = published.result
    parts = (f"{result.paper} Table {result.table}", published.where, result.note)
    return {
        "paper": dict(result.metrics),
        "paper_source": ", ".join(part for part in parts if part),
        "paper_apart": published.apart,
    }


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
