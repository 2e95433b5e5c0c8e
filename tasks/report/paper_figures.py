"""The papers' figures that show results: curves of published and measured numbers, and queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from models.retrieval.paper_tables import PAPER_TABLES
from storage.benchmarks.registry import BENCHMARKS
from tasks.report.charts import Chart, Curve
from tasks.report.example_queries import example_queries
from tasks.report.paper_files import Figure
from tasks.report.papers import Entry, annotated
from tasks.stages.rankings import RankingStage

QUERIES: Final = 4
"""Queries of a figure that shows retrieved images."""
TOP: Final = 10
"""Retrieved images of each, as InstructCIR's Figures 5 and 6 show."""

_SCALED: Final = (
    ("cirr", "recall@1", "CIRR R@1"),
    ("fashioniq", "recall@10/average", "FashionIQ R@10"),
)


def instructcir_figures(
    entries: Sequence[Entry], rankings: Sequence[RankingStage]
) -> tuple[Figure, ...]:
    """Figures 1, 5 and 6.

    Args:
        entries: Entries of the ledger.
        rankings: Rankings whose tables are there.
    """
    return (
        _scaling(entries),
        _queries("5", "fashioniq", rankings),
        _queries("6", "cirr", rankings),
    )


def _scaling(entries: Sequence[Entry]) -> Figure:
    """Quality against the number of training triplets."""
    charts = [_published_scaling()]
    worlds = dict.fromkeys(entry["world"] for entry in entries)
    for world in worlds:
        curves = [
            Curve(title, points, colour=place)
            for place, (benchmark, metric, title) in enumerate(_SCALED)
            if (points := _points(entries, world, benchmark, metric))
        ]
        if curves:
            where = " on the embedded world" if world == "embedded" else ""
            charts.append(_chart(f"Measured here{where}", curves))
    return Figure(
        number="1",
        title="Quality against the number of training triplets",
        charts=tuple(charts),
        reason=""
        if len(charts) > 1
        else "No network whose number of triplets is known was scored: cirflow run scaling trains "
        "and scores networks of several sizes.",
    )


def _published_scaling() -> Chart:
    (table,) = (t for t in PAPER_TABLES["instructcir"] if t.number == "IV")
    rows = [r for r in table.rows if r.block == "Scaling up" and "/" in r.labels[1]]
    rows = [row for row in rows if not row.supervised]
    curves = []
    for colour, (benchmark, metric, title) in enumerate(_SCALED):
        place = next(
            n for n, c in enumerate(table.columns) if (c.benchmark, c.metric) == (benchmark, metric)
        )
        points = ((1000.0 * float(r.labels[-1].rstrip("k")), float(r.printed[place])) for r in rows)
        curves.append(Curve(title, tuple(points), colour=colour))
    return _chart("Published (Table IV, ViT-L/14)", curves)


def _chart(title: str, curves: Sequence[Curve]) -> Chart:
    return Chart(
        title=f"{title}: percent against training triplets",
        curves=tuple(curves),
        x_name="triplets",
        from_zero=False,
        doubling=True,
    )


def _points(
    entries: Sequence[Entry], world: str, benchmark: str, metric: str
) -> tuple[tuple[float, float], ...]:
    """Triplets and quality of each network; the last one of a size."""
    found = {}
    for entry in entries:
        facts = BENCHMARKS.get(entry["benchmark"])
        size = re.search(r"([\d,]+) triplets", entry["made"].get("trained_on", ""))
        if facts is None or facts.paper != benchmark or size is None or not annotated(entry):
            continue
        if (entry["world"], entry["method"]) == (world, "instructcir") and metric in entry[
            "metrics"
        ]:
            found[float(size[1].replace(",", ""))] = entry["metrics"][metric]["value"]
    return tuple(sorted(found.items()))


def _queries(number: str, benchmark: str, rankings: Sequence[RankingStage]) -> Figure:
    """Queries of InstructCIR with the first ten images; targets are framed."""
    title = BENCHMARKS[benchmark].title
    found = [
        stage
        for stage in rankings
        if (stage.method, stage.benchmark.name) == ("instructcir", benchmark)
        and not stage.benchmark.texts.are_replaced
        and stage.benchmark.load().has_targets
    ]
    return Figure(
        number=number,
        title=f"Queries of {title} answered by InstructCIR, the first {TOP} images",
        strips=example_queries(found[0], QUERIES, TOP) if found else (),
        reason=""
        if found
        else f"No ranking of {title} was made or found by this run: name the "
        f'benchmark, --set \'benchmarks=[{{"name": "{benchmark}", "folder": "DIR"}}]\'.',
    )
