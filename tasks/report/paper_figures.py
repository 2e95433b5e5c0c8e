"""The papers' figures that show results: curves of published and measured numbers, and queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from models.retrieval.paper_tables import PAPER_TABLES
from storage.benchmarks.registry import BENCHMARKS
from tasks.report.charts import Chart, Curve
from tasks.report.example_queries import example_queries
from tasks.report.paper_files import Figure
from tasks.report.papers import Entry, annotated
from tasks.report.side_by_side import Pair, side_by_side
from tasks.report.sweeps import figure_charts
from tasks.scoring.figure_four import FigureFour
from tasks.stages.rankings import RankingStage

TOP: Final = 10
"""Retrieved images of a query in InstructCIR's Figures 5 and 6."""
_SCALED: Final = (
    ("cirr", "recall@1", "CIRR R@1"),
    ("fashioniq", "recall@10/average", "FashionIQ R@10"),
)


SWEPT: Final = ("circo", "fashioniq")
"""Benchmarks of CVSI's Figure 4, its parts a and b; part c is on the first."""
_BEST: Final = {
    "circo": "The paper's best on CIRCO: alpha 0.6, beta 0.4, gamma 0.2, and N = 15; its values "
    "are a picture, so none is repeated here.",
    "fashioniq": "The paper's best on FashionIQ: alpha 0.2, beta 0.6, gamma 0.1; its values are a "
    "picture, so none is repeated here.",
}


def cvsi_figures(
    sweeps: Mapping[str, FigureFour], rankings: Sequence[RankingStage]
) -> tuple[Figure, ...]:
    """Figures 4 and 5.

    Args:
        sweeps: Swept weights by the name of the benchmark, as far as they are there.
        rankings: Rankings whose tables are there.
    """
    swept = (_swept(part, name, sweeps) for part, name in zip("ab", SWEPT, strict=True))
    return (*swept, _beside_ldre(rankings))


def _beside_ldre(rankings: Sequence[RankingStage]) -> Figure:
    """Queries of CIRCO that CVSI answers and LDRE does not."""
    found = {s.method: s for s in reversed(rankings) if _shown(s, "circo")}
    reason = ""
    pairs: tuple[Pair, ...] = ()
    if {"cvsi", "ldre"} <= found.keys():
        pairs = side_by_side(found["cvsi"], found["ldre"], count=3)
        if not pairs:
            reason = "CVSI finds no target among its first five that LDRE does not find as well."
    else:
        reason = f"No queries of CIRCO by CVSI and LDRE: {_named('circo')}"
    title = "Queries of CIRCO that CVSI answers and LDRE does not, the first five images"
    return Figure(number="5", title=title, pairs=pairs, reason=reason)


def _swept(part: str, benchmark: str, sweeps: Mapping[str, FigureFour]) -> Figure:
    """Fusion weights on one benchmark, with the number of target captions where it was swept."""
    title = BENCHMARKS[benchmark].title
    found = sweeps.get(benchmark)
    targets = found is not None and bool(found.targets)
    return Figure(
        number=f"4{part} and 4c" if targets else f"4{part}",
        title=f"Fusion weights{' and captions of a target' if targets else ''} on {title}",
        charts=() if found is None else figure_charts(found),
        reason=_BEST[benchmark] if found is not None else f"Not swept: {_named(benchmark)}",
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
    found = [s for s in rankings if s.method == "instructcir" and _shown(s, benchmark)]
    return Figure(
        number=number,
        title=f"Queries of {title} answered by InstructCIR",
        strips=example_queries(found[0], TOP) if found else (),
        reason="" if found else f"No queries of {title}: {_named(benchmark)}",
    )


def _shown(stage: RankingStage, benchmark: str) -> bool:
    """Whether a ranking answers a benchmark's own texts, and its targets are known."""
    asked = stage.benchmark
    own = asked.name == benchmark and not asked.texts.are_replaced
    return own and asked.load().has_targets


def _named(benchmark: str) -> str:
    """What brings a benchmark's part of a figure."""
    given = f'--set \'benchmarks=[{{"name": "{benchmark}", "folder": "DIR"}}]\''
    return f"name the benchmark with public targets, {given}; what is missing is made then."
