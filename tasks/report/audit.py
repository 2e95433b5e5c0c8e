"""The audit of composition as the report and Prefect's UI show it: two tables, or what to add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tasks.report import text
from tasks.report.markdown import Markdown, markdown_table
from tasks.report.records import Section

if TYPE_CHECKING:
    from models.retrieval.audit import OnTheRest, Solved
    from tasks.scoring.audit import Audit

COLUMNS: Final = ("rank", "image alone", "text alone", "either", "both", "left")
NOTHING: Final = "\N{EM DASH}"
"""In place of a number where no query is left, or none is solved."""


def advice(audit: Audit) -> str:
    """Which methods to score as well, where the audit lacks one; else empty."""
    if not audit.missing:
        return ""
    return (
        "What one modality alone solves is not known: score "
        f"{' and '.join(audit.missing)} as well (methods)."
    )


def solved_rows(audit: Audit) -> list[tuple[str, ...]]:
    """The values of `COLUMNS`, a row for each rank."""
    return [
        (
            str(at.depth),
            *(_share(at, count) for count in (at.image, at.text, at.either, at.both, at.left)),
        )
        for at in audit.solved
    ]


def rest_columns(audit: Audit) -> tuple[str, ...]:
    """Headings of the columns of `rest_rows` after the method."""
    return tuple(
        heading
        for at in audit.solved
        for heading in (
            f"{audit.metric}, {text.thousands(at.left)} left at {at.depth}",
            f"gap at {at.depth}",
        )
    )


def rest_rows(section: Section) -> list[tuple[str, ...]]:
    """Each method with its metric and its gap at each rank, in the leaderboard's order."""
    if section.audit is None:
        return []
    found = section.audit.methods
    rows = sorted(section.rows, key=lambda row: -row.metrics.get(section.main_metric, -1.0))
    return [
        (row.title, *(cell for own in found[row.method] for cell in _cells(own)))
        for row in rows
        if row.method in found
    ]


def audit_markdown(section: Section) -> Markdown:
    """What one modality solves, and the methods on the rest at the first rank."""
    audit = section.audit
    if audit is None or audit.missing:
        return Markdown("" if audit is None else advice(audit))
    solved = markdown_table(COLUMNS, solved_rows(audit))
    columns = ("method", *rest_columns(audit)[:2])
    rest = markdown_table(columns, [row[:3] for row in rest_rows(section)])
    return Markdown(f"{solved}\n\n{rest}")


def _share(at: Solved, count: int) -> str:
    return f"{text.thousands(count)} ({100 * count / max(1, at.queries):.1f} %)"


def _cells(own: OnTheRest) -> tuple[str, str]:
    value = gap = NOTHING
    if own.value is not None and own.interval is not None:
        value = f"{text.percent(own.value)} {text.span(own.interval)}"
    if own.gap is not None:
        gap = text.fraction(own.gap)
        if own.gap_interval is not None:
            low, high = map(text.fraction, own.gap_interval)
            gap += f" [{low}, {high}]"
    return value, gap
