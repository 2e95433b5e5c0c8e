"""The whole page as values: what the templates lay out, in the order in which they show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.report import plots, text
from tasks.report.components import Components, components
from tasks.report.leaderboard import (
    Board,
    Group,
    Headline,
    NumberTable,
    headline,
    measured_names,
    number_table,
)
from tasks.report.records import ReportData, Section, Stage
from tasks.report.strips import StripGroup, strip_groups


@dataclass(frozen=True)
class SectionView:
    """One benchmark as the page shows it."""

    section: Section
    anchor: str
    facts: tuple[str, ...]
    headline: Headline | None
    columns: tuple[str, ...]
    ticks: tuple[plots.Tick, ...]
    groups: tuple[Group, ...]
    reference: str
    has_published: bool
    has_marks: bool
    components: Components | None
    every_number: NumberTable | None
    published: NumberTable | None
    strip_groups: tuple[StripGroup, ...]


@dataclass(frozen=True)
class StageView:
    """One stage with the shares of its meter in percent of its rows."""

    stage: Stage
    made: plots.Bar
    reused: plots.Bar
    failed: plots.Bar


@dataclass(frozen=True)
class Page:
    """The whole page, ready to be laid out."""

    data: ReportData
    sections: tuple[SectionView, ...]
    stages: tuple[StageView, ...]
    totals: dict[str, int]


def _facts(section: Section) -> tuple[str, ...]:
    """What all measured rows share, for the line under the heading."""
    measured = [row for row in section.rows if row.metrics]
    facts = [section.name]
    splits = list(dict.fromkeys(row.split for row in measured))
    backbones = list(dict.fromkeys(row.backbone for row in measured))
    queries = {row.num_queries for row in measured}
    if splits:
        facts.append(f"{'split' if len(splits) == 1 else 'splits'} {', '.join(splits)}")
    if len(queries) == 1:
        facts.append(text.count(queries.pop(), "query"))
    if backbones:
        facts.append(f"{'backbone' if len(backbones) == 1 else 'backbones'} {', '.join(backbones)}")
    return tuple(facts)


def _section(section: Section, place: int, embedded_world: bool) -> SectionView:
    board = Board(section, compare_published=not embedded_world)
    groups = board.groups()
    ordered = [line.row for group in groups for line in group.lines]
    names = measured_names(section.rows)
    left_out = [n for n in names if n != section.main_metric and n not in board.columns]
    published = tuple(dict.fromkeys(name for row in ordered for name in row.paper))
    reference = next(
        (r.title for r in section.rows if r.method == section.reference_method and r.metrics), ""
    )
    lines = [line for group in groups for line in group.lines]
    return SectionView(
        section=section,
        anchor=f"benchmark-{place}",
        facts=_facts(section),
        headline=headline(section),
        columns=board.columns,
        ticks=board.scale.ticks(),
        groups=groups,
        reference=reference if any(line.delta.text for line in lines) else "",
        has_published=any(line.published.text for line in lines),
        has_marks=any(line.bar is not None and line.bar.mark is not None for line in lines),
        components=components(section),
        every_number=number_table(ordered, left_out, "metrics"),
        published=number_table(ordered, published, "paper"),
        strip_groups=strip_groups(section.strips),
    )


def stage_view(stage: Stage) -> StageView:
    """One stage with its meter."""
    counts = (stage.made, stage.reused, stage.failed)
    scale = plots.Scale(0.0, float(sum(counts) or 1))
    bars, start = [], 0.0
    for number in counts:
        width = scale.x(float(number))
        bars.append(plots.Bar(round(start, 3), width))
        start += width
    return StageView(stage, *bars)


def run_totals(stages: Sequence[Stage]) -> dict[str, int]:
    """Rows made, reused and failed of all stages together."""
    return {
        kind: sum(getattr(stage, kind) for stage in stages) for kind in ("made", "reused", "failed")
    }


def page(data: ReportData) -> Page:
    """Everything the template needs, in the order in which it is shown."""
    return Page(
        data=data,
        sections=tuple(
            _section(section, place, data.embedded_world)
            for place, section in enumerate(data.sections, 1)
        ),
        stages=tuple(stage_view(stage) for stage in data.stages),
        totals=run_totals(data.stages),
    )
