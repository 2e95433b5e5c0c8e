"""From the records to what the page shows: sorted, compared, rounded, and still free of markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tasks.report import plots, text
from tasks.report.records import (
    GROUPS,
    STATUSES,
    LeaderboardRow,
    ReportData,
    Result,
    Section,
    Stage,
    Strip,
)

FIRST_CAPTIONS = 3
"""Captions that are shown before the rest folds away."""
_RANKED_GROUPS = ("baseline", "method", "preset")


# --------------------------------------------------------------------------- leaderboard


@dataclass(frozen=True)
class Cell:
    """One measured number; `value` sorts, `text` shows; both empty where nothing was measured."""

    value: str = ""
    text: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One row of the leaderboard."""

    row: LeaderboardRow
    main: Cell
    bar: plots.Bar | None
    delta: Cell
    cells: tuple[Cell, ...]
    published: Cell
    remark: str


@dataclass(frozen=True)
class Group:
    """Rows of one kind under one heading."""

    key: str
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Component:
    """What taking one component out costs."""

    title: str
    value: str
    delta: str
    interval: str
    bar: plots.Bar
    within_noise: bool
    published: str
    agreement: str


@dataclass(frozen=True)
class Components:
    """The plot of what each component adds."""

    metric: str
    reference: str
    reference_value: str
    zero: float
    ticks: tuple[plots.Tick, ...]
    components: tuple[Component, ...]
    any_published: bool


@dataclass(frozen=True)
class NumberTable:
    """A plain table of numbers: one row of cells per system."""

    columns: tuple[str, ...]
    lines: tuple[tuple[LeaderboardRow, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Headline:
    """The best system of a section in one glance."""

    method: str
    value: str
    interval: str
    versus: str


def _comparable(row: LeaderboardRow) -> tuple[str, str]:
    """Rows are compared only within one split and one backbone."""
    return (row.split, row.backbone)


def _measured_names(rows: Iterable[LeaderboardRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.metrics))


class _Board:
    """Numbers of one section with what they are compared against."""

    def __init__(self, section: Section, compare_published: bool) -> None:
        self.section = section
        self.compare_published = compare_published
        self.main = section.main_metric
        shown = section.columns or _measured_names(section.rows)
        self.columns = tuple(name for name in shown if name != self.main)
        self.scale = plots.percent_scale(self._drawn())
        self.best = self._best()

    def _drawn(self) -> list[float]:
        values = [row.metrics[self.main] for row in self.section.rows if row.metrics]
        values += [row.intervals[self.main][1] for row in self.section.rows if row.intervals]
        if self.compare_published:
            values += [r.paper[self.main] for r in self.section.rows if self.main in r.paper]
        return values

    def _best(self) -> dict[tuple[str, str, str], str]:
        """The highest printed value of each metric among comparable rows."""
        best: dict[tuple[str, str, str], float] = {}
        for row in self.section.rows:
            for name, value in row.metrics.items():
                key = (*_comparable(row), name)
                best[key] = max(best.get(key, value), value)
        return {key: text.percent(value) for key, value in best.items()}

    def cell(self, row: LeaderboardRow, name: str) -> Cell:
        """One metric of one row."""
        if name not in row.metrics:
            return Cell()
        shown = text.percent(row.metrics[name])
        return Cell(
            value=repr(row.metrics[name]),
            text=shown,
            interval=text.span(row.intervals[name]) if name in row.intervals else "",
            best=shown == self.best[(*_comparable(row), name)],
        )

    def delta(self, row: LeaderboardRow) -> Cell:
        """Difference of the main metric to the reference method."""
        reference = reference_of(self.section, row)
        if reference is None or not row.metrics or row is reference:
            return Cell()
        points = row.metrics[self.main] - reference.metrics[self.main]
        interval = row.delta_intervals.get(self.main)
        return Cell(repr(points), text.signed(points), text.span(interval) if interval else "")

    def line(self, row: LeaderboardRow) -> Line:
        """Everything that one row shows."""
        paper = row.paper.get(self.main)
        bar = None
        if row.metrics:
            mark = paper if self.compare_published else None
            value = row.metrics[self.main]
            bar = plots.bar(self.scale, value, row.intervals.get(self.main), mark)
        return Line(
            row=row,
            main=self.cell(row, self.main),
            bar=bar,
            delta=self.delta(row),
            cells=tuple(self.cell(row, name) for name in self.columns),
            published=Cell() if paper is None else Cell(repr(paper), text.percent(paper)),
            remark=STATUSES[row.status],
        )

    def groups(self) -> tuple[Group, ...]:
        """Groups in the order of `GROUPS`, each sorted by the main metric, best first."""

        def rank(row: LeaderboardRow) -> tuple[bool, float]:
            value = row.metrics.get(self.main, row.paper.get(self.main, 0.0))
            return (not row.metrics, -value)

        members = {
            key: sorted((r for r in self.section.rows if r.group == key), key=rank)
            for key in GROUPS
        }
        return tuple(
            Group(key, GROUPS[key], tuple(self.line(row) for row in rows))
            for key, rows in members.items()
            if rows
        )


def reference_of(section: Section, row: LeaderboardRow) -> LeaderboardRow | None:
    """The measured row that `row` is compared with, if the section has one."""
    return next(
        (
            other
            for other in section.rows
            if other.method == section.reference_method
            and other.metrics
            and _comparable(other) == _comparable(row)
        ),
        None,
    )


def _headline(section: Section) -> Headline | None:
    """The best measured system, and how far it is above the best baseline."""
    metric = section.main_metric
    ranked = sorted(
        (row for row in section.rows if row.metrics and row.group in _RANKED_GROUPS),
        key=lambda row: -row.metrics[metric],
    )
    if not ranked:
        return None
    best = ranked[0]
    rival = next(
        (r for r in ranked if r.group == "baseline" and _comparable(r) == _comparable(best)), None
    )
    versus = ""
    if rival is not None and rival is not best:
        gain = text.signed(best.metrics[metric] - rival.metrics[metric])
        versus = f"{gain} over {rival.title}, the best baseline"
    interval = best.intervals.get(metric)
    return Headline(
        method=best.title,
        value=text.percent(best.metrics[metric]),
        interval=text.span(interval) if interval else "",
        versus=versus,
    )


def _direction(points: float) -> int:
    rounded = round(points, 2)
    return (rounded > 0) - (rounded < 0)


def components(section: Section) -> Components | None:
    """Compare every ablation of the first backbone that has a reference row with that row."""
    metric = section.compared_metric
    pairs = [
        (row, reference)
        for row in section.rows
        if row.group == "ablation"
        and metric in row.metrics
        and (reference := reference_of(section, row)) is not None
        and metric in reference.metrics
    ]
    if not pairs:
        return None
    reference = pairs[0][1]
    rows = [row for row, other in pairs if other is reference]
    full = reference.metrics[metric]
    deltas = {id(row): row.metrics[metric] - full for row in rows}
    bounds = [bound for row in rows for bound in row.delta_intervals.get(metric, ())]
    scale = plots.difference_scale([*deltas.values(), *bounds])
    made = [
        _component(row, reference, metric, deltas[id(row)], scale)
        for row in sorted(rows, key=lambda row: deltas[id(row)])
    ]
    return Components(
        metric=metric,
        reference=reference.title,
        reference_value=text.percent(full),
        zero=scale.x(0.0),
        ticks=_difference_ticks(scale),
        components=tuple(made),
        any_published=any(component.published for component in made),
    )


def _difference_ticks(scale: plots.Scale) -> tuple[plots.Tick, ...]:
    """Zero and the round number nearest to the larger end."""
    far = scale.low if -scale.low > scale.high else scale.high
    step = plots.nice_ceiling(abs(far) / 2.5)
    sign = -1 if far < 0 else 1
    marks = [sign * step * i for i in (2, 1) if abs(step * i) <= abs(far)]
    return tuple(plots.Tick(scale.x(m), f"{text.MINUS if m < 0 else '+'}{abs(m):g}") for m in marks)


def _component(
    row: LeaderboardRow,
    reference: LeaderboardRow,
    metric: str,
    delta: float,
    scale: plots.Scale,
) -> Component:
    interval = row.delta_intervals.get(metric)
    within_noise = interval is not None and interval[0] <= 0.0 <= interval[1]
    published = agreement = ""
    if metric in row.paper and metric in reference.paper:
        points = row.paper[metric] - reference.paper[metric]
        published = text.signed(points)
        same = _direction(points) == (0 if within_noise else _direction(delta))
        agreement = "same direction" if same else "differs"
    return Component(
        title=row.title,
        value=text.percent(row.metrics[metric]),
        delta=text.signed(delta),
        interval=text.span(interval) if interval else "",
        bar=plots.bar(scale, delta, interval),
        within_noise=within_noise,
        published=published,
        agreement=agreement,
    )


def _number_table(
    rows: Sequence[LeaderboardRow], columns: Sequence[str], kind: str
) -> NumberTable | None:
    """All of `kind` (``metrics`` or ``paper``) in `columns`, for the rows that have any."""
    lines = []
    for row in rows:
        numbers = getattr(row, kind)
        if any(name in numbers for name in columns):
            shown = (text.percent(numbers[n]) if n in numbers else "" for n in columns)
            lines.append((row, tuple(shown)))
    return NumberTable(tuple(columns), tuple(lines)) if lines else None


# --------------------------------------------------------------------------- strips


@dataclass(frozen=True)
class Place:
    """One result with its rank."""

    result: Result
    rank: str
    score: str


@dataclass(frozen=True)
class StripView:
    """One query as the page shows it; `pairs` holds captions beside edits."""

    strip: Strip
    outcome: str
    verdict: str
    pairs: tuple[text.Pair, ...]
    captions: tuple[str, ...]
    edits: tuple[str, ...]
    results: tuple[Place, ...]
    missed: tuple[Place, ...]


@dataclass(frozen=True)
class StripGroup:
    """Strips with one outcome: hit, miss, or open (right answers hidden)."""

    key: str
    title: str
    strips: tuple[StripView, ...]


_OUTCOMES = {
    "hit": "Found: a target is among the results shown",
    "miss": "Missed: no target is among the results shown",
    "open": "Not judged: the right answers of this split are hidden",
}


def _verdict(strip: Strip) -> tuple[str, str]:
    """Outcome and its wording."""
    if not strip.judged:
        return "open", "not judged"
    if strip.found:
        return "hit", f"target at rank {strip.target_rank}"
    if strip.target_rank is None:
        return "miss", "no target in the ranking"
    return "miss", f"best target at rank {strip.target_rank:,}"


def _pairs(strip: Strip) -> tuple[text.Pair, ...]:
    """Captions beside their edits where they belong together, equal pairs counted once."""
    if len(strip.captions) != len(strip.edits):
        return ()
    counted = Counter(zip(strip.captions, strip.edits, strict=True))
    return tuple(replace(text.compare(*pair), count=n) for pair, n in counted.items())


def _strip(strip: Strip) -> StripView:
    outcome, verdict = _verdict(strip)
    pairs = _pairs(strip)
    return StripView(
        strip=strip,
        outcome=outcome,
        verdict=verdict,
        pairs=pairs,
        captions=() if pairs else tuple(text.clip(caption) for caption in strip.captions),
        edits=() if pairs else tuple(text.clip(edit) for edit in strip.edits),
        results=tuple(_place(result, str(rank)) for rank, result in strip.ranked),
        missed=tuple(_place(r, f"{r.rank:,}" if r.rank else "not ranked") for r in strip.missed),
    )


def _place(result: Result, rank: str) -> Place:
    return Place(result, rank, "" if result.score is None else f"{result.score:.3f}")


def strip_groups(strips: Sequence[Strip]) -> tuple[StripGroup, ...]:
    """Hits, misses and unjudged strips, each in the order given."""
    views = [_strip(strip) for strip in strips]
    groups = (
        StripGroup(key, title, tuple(view for view in views if view.outcome == key))
        for key, title in _OUTCOMES.items()
    )
    return tuple(group for group in groups if group.strips)


# --------------------------------------------------------------------------- page


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
    board = _Board(section, compare_published=not embedded_world)
    groups = board.groups()
    ordered = [line.row for group in groups for line in group.lines]
    names = _measured_names(section.rows)
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
        headline=_headline(section),
        columns=board.columns,
        ticks=board.scale.ticks(),
        groups=groups,
        reference=reference if any(line.delta.text for line in lines) else "",
        has_published=any(line.published.text for line in lines),
        has_marks=any(line.bar is not None and line.bar.mark is not None for line in lines),
        components=components(section),
        every_number=_number_table(ordered, left_out, "metrics"),
        published=_number_table(ordered, published, "paper"),
        strip_groups=strip_groups(section.strips),
    )


def _stage(stage: Stage) -> StageView:
    counts = (stage.made, stage.reused, stage.failed)
    scale = plots.Scale(0.0, float(sum(counts) or 1))
    bars, start = [], 0.0
    for number in counts:
        width = scale.x(float(number))
        bars.append(plots.Bar(round(start, 3), width))
        start += width
    return StageView(stage, *bars)


def page(data: ReportData) -> Page:
    """Everything the template needs, in the order in which it is shown."""
    return Page(
        data=data,
        sections=tuple(
            _section(section, place, data.embedded_world)
            for place, section in enumerate(data.sections, 1)
        ),
        stages=tuple(_stage(stage) for stage in data.stages),
        totals={
            kind: sum(getattr(stage, kind) for stage in data.stages)
            for kind in ("made", "reused", "failed")
        },
    )
