"""The leaderboard of one benchmark: sorted, compared and rounded, still free of markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.report import plots, text
from tasks.report.records import GROUPS, STATUSES, LeaderboardRow, Section

_RANKED_GROUPS = ("baseline", "method", "preset")


@dataclass(frozen=True)
class Cell:
    """One number; `value` sorts, `text` shows, `interval` stands below; empty without a number."""

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


def measured_names(rows: Iterable[LeaderboardRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.metrics))


class Board:
    """Numbers of one section with what they are compared against."""

    def __init__(self, section: Section, compare_published: bool) -> None:
        self.section = section
        self.compare_published = compare_published
        self.main = section.main_metric
        shown = section.columns or measured_names(section.rows)
        self.columns = tuple(name for name in shown if name != self.main)
        self.scale = plots.percent_scale(self._drawn())
        self.best = self._best()

    def _drawn(self) -> list[float]:
        values = [row.metrics[self.main] for row in self.section.rows if row.metrics]
        values += [r.intervals[self.main][1] for r in self.section.rows if self.main in r.intervals]
        if self.compare_published:
            values += [mark for r in self.section.rows if (mark := self._mark(r)) is not None]
        return values

    def _mark(self, row: LeaderboardRow) -> float | None:
        """The published value that may be drawn next to the measured one."""
        comparable = self.compare_published and not row.paper_apart
        return row.paper.get(self.main) if comparable else None

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
            value = row.metrics[self.main]
            bar = plots.bar(self.scale, value, row.intervals.get(self.main), self._mark(row))
        return Line(
            row=row,
            main=self.cell(row, self.main),
            bar=bar,
            delta=self.delta(row),
            cells=tuple(self.cell(row, name) for name in self.columns),
            published=Cell()
            if paper is None
            else Cell(repr(paper), text.percent(paper), row.paper_apart),
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


def headline(section: Section) -> Headline | None:
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


def number_table(
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
