"""Comparisons between the rows of one benchmark, as values; templates lay them out."""

from __future__ import annotations

from collections.abc import Iterable

from models.spelling import agreed, counted
from tasks.report import text
from tasks.report.bars import Scale, difference_scale, percent_scale
from tasks.report.records import GROUPS, LeaderboardRow, Section

LOWER_IS_BETTER = ("neg", "any_neg")
"""How the names of metrics begin that count wrong answers."""
PUBLISHED_ONLY = "paper-only"
"""The group of rows that stand folded below the leaderboard."""
_RANKED_GROUPS = ("baseline", "method", "preset")


def are_comparable(one: LeaderboardRow, other: LeaderboardRow) -> bool:
    """Rows are compared only within one split and one backbone."""
    return (one.split, one.backbone) == (other.split, other.backbone)


def measured_names(rows: Iterable[LeaderboardRow]) -> tuple[str, ...]:
    """Every measured metric, in the order of the rows."""
    return tuple(dict.fromkeys(name for row in rows for name in row.metrics))


def columns(section: Section) -> tuple[str, ...]:
    """Metrics shown next to the main one."""
    shown = section.columns or measured_names(section.rows)
    return tuple(name for name in shown if name != section.main_metric)


def left_out(section: Section) -> tuple[str, ...]:
    """Measured metrics that are not columns."""
    shown = (section.main_metric, *columns(section))
    return tuple(name for name in measured_names(section.rows) if name not in shown)


def published_names(section: Section) -> tuple[str, ...]:
    """Every published metric, in the order of the leaderboard."""
    rows = (row for _, rows in groups(section) for row in rows)
    return tuple(dict.fromkeys(name for row in rows for name in row.paper))


def facts(section: Section) -> tuple[str, ...]:
    """What all measured rows share, for the line under the heading."""
    measured = [row for row in section.rows if row.metrics]
    said = [section.name]
    splits = list(dict.fromkeys(row.split for row in measured))
    backbones = list(dict.fromkeys(row.backbone for row in measured))
    queries = {row.num_queries for row in measured}
    if splits:
        said.append(f"{agreed(len(splits), 'split')} {', '.join(splits)}")
    if len(queries) == 1:
        said.append(counted(queries.pop(), "query"))
    if backbones:
        said.append(f"{agreed(len(backbones), 'backbone')} {', '.join(backbones)}")
    return tuple(said)


def groups(section: Section) -> tuple[tuple[str, tuple[LeaderboardRow, ...]], ...]:
    """Groups that have rows in the order of `GROUPS`, each sorted by the main metric, best first.

    Rows without a measurement come last in their group.
    """

    def rank(row: LeaderboardRow) -> tuple[bool, float]:
        main = section.main_metric
        return not row.metrics, -row.metrics.get(main, row.paper.get(main, 0.0))

    members = {
        key: tuple(sorted((row for row in section.rows if row.group == key), key=rank))
        for key in GROUPS
    }
    return tuple((key, rows) for key, rows in members.items() if rows)


def reference_of(section: Section, row: LeaderboardRow) -> LeaderboardRow | None:
    """The measured row that `row` is compared with, if the section has one."""
    return next(
        (
            other
            for other in section.rows
            if other.method == section.reference_method
            and other.metrics
            and are_comparable(other, row)
        ),
        None,
    )


def reference_title(section: Section) -> str:
    """Heading of the column of differences; empty where no row has one."""
    if all(difference(section, row) is None for row in section.rows):
        return ""
    return next(
        row.title for row in section.rows if row.method == section.reference_method and row.metrics
    )


def difference(section: Section, row: LeaderboardRow) -> float | None:
    """Points of the main metric above the reference method; None where there is none."""
    reference = reference_of(section, row)
    if reference is None or not row.metrics or row is reference:
        return None
    return row.metrics[section.main_metric] - reference.metrics[section.main_metric]


def is_best(section: Section, row: LeaderboardRow, metric: str) -> bool:
    """Whether no comparable row has a better number as printed."""
    rows = [r for r in section.rows if metric in r.metrics and are_comparable(r, row)]
    best = min if metric.startswith(LOWER_IS_BETTER) else max
    return text.percent(row.metrics[metric]) == text.percent(best(r.metrics[metric] for r in rows))


def are_published(rows: Iterable[LeaderboardRow], metric: str) -> bool:
    """Whether any row has a published number."""
    return any(metric in row.paper for row in rows)


def mark(section: Section, row: LeaderboardRow, embedded_world: bool) -> float | None:
    """The published value that may be drawn on a measured bar."""
    comparable = row.metrics and not row.paper_apart and not embedded_world
    return row.paper.get(section.main_metric) if comparable else None


def bar_scale(section: Section, embedded_world: bool) -> Scale:
    """Holds the main metric of all rows with their intervals and marks."""
    main = section.main_metric
    values = [row.metrics[main] for row in section.rows if row.metrics]
    values += [row.intervals[main][1] for row in section.rows if main in row.intervals]
    return percent_scale(values + marks(section, embedded_world))


def marks(section: Section, embedded_world: bool) -> list[float]:
    """The published values on bars."""
    found = (mark(section, row, embedded_world) for row in section.rows)
    return [value for value in found if value is not None]


def headline(section: Section) -> tuple[LeaderboardRow, LeaderboardRow | None] | None:
    """The best measured system, and the best baseline where that is another one."""
    ranked = sorted(
        (row for row in section.rows if row.metrics and row.group in _RANKED_GROUPS),
        key=lambda row: -row.metrics[section.main_metric],
    )
    if not ranked:
        return None
    best = ranked[0]
    baselines = [row for row in ranked if row.group == "baseline" and are_comparable(row, best)]
    rival = baselines[0] if baselines else None
    return best, None if rival is best else rival


# --------------------------------------------------------------------------- ablations


def ablations(section: Section) -> tuple[LeaderboardRow, tuple[LeaderboardRow, ...]] | None:
    """The first reference row that has ablations, and these, the largest loss first."""
    metric = section.compared_metric
    pairs = [
        (reference, row)
        for row in section.rows
        if row.group == "ablation"
        and metric in row.metrics
        and (reference := reference_of(section, row)) is not None
        and metric in reference.metrics
    ]
    if not pairs:
        return None
    reference = pairs[0][0]
    rows = [row for other, row in pairs if other is reference]
    return reference, tuple(sorted(rows, key=lambda row: row.metrics[metric]))


def change_scale(reference: LeaderboardRow, rows: Iterable[LeaderboardRow], metric: str) -> Scale:
    """Holds every change with its interval."""
    values: list[float] = []
    for row in rows:
        values += [row.metrics[metric] - reference.metrics[metric]]
        values += row.delta_intervals.get(metric, ())
    return difference_scale(values)


def is_within_noise(row: LeaderboardRow, metric: str) -> bool:
    """Whether the interval of the change holds zero."""
    low, high = row.delta_intervals.get(metric, (1.0, -1.0))
    return low <= 0.0 <= high


def published_change(row: LeaderboardRow, reference: LeaderboardRow, metric: str) -> float | None:
    """The change as published; None where there are no two numbers of one backbone and split."""
    if metric not in row.paper or metric not in reference.paper:
        return None
    if row.paper_apart != reference.paper_apart:
        return None
    return row.paper[metric] - reference.paper[metric]


def have_published_changes(
    rows: Iterable[LeaderboardRow], reference: LeaderboardRow, metric: str
) -> bool:
    """Whether any change is published."""
    return any(published_change(row, reference, metric) is not None for row in rows)


def agreement(row: LeaderboardRow, reference: LeaderboardRow, metric: str) -> str:
    """Whether the published change has the direction of the measured one, in words.

    Empty where the interval of the measured change holds zero or there is none: then it has no
    direction.
    """
    published = published_change(row, reference, metric)
    if published is None or metric not in row.delta_intervals or is_within_noise(row, metric):
        return ""
    measured = row.metrics[metric] - reference.metrics[metric]
    return "same direction" if _direction(published) == _direction(measured) else "differs"


def on_board(section: Section) -> tuple[tuple[str, tuple[LeaderboardRow, ...]], ...]:
    """The groups of the leaderboard: those with a row that runs here."""
    return tuple((key, rows) for key, rows in groups(section) if key != PUBLISHED_ONLY)


def published_only(section: Section) -> tuple[LeaderboardRow, ...]:
    """Systems of which only published numbers are shown."""
    return next((rows for key, rows in groups(section) if key == PUBLISHED_ONLY), ())


def _direction(points: float) -> int:
    rounded = round(points, 2)
    return (rounded > 0) - (rounded < 0)
