"""The spread over paraphrases as the report and Prefect's UI show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.spelling import counted
from tasks.report import text
from tasks.report.markdown import Markdown, markdown_table, plain
from tasks.report.records import Section

if TYPE_CHECKING:
    from tasks.scoring.wordings import Spreads

COLUMNS: Final = ("Method", "own words", "worst", "best", "range", "relative", "queries")


def said(spreads: Spreads) -> str:
    """How many wordings were asked, and who wrote them."""
    asked = f"Each query was asked in its own words and in {counted(spreads.count, 'paraphrase')}"
    return f"{asked} ({spreads.label})."


def spread_rows(section: Section) -> list[tuple[str, ...]]:
    """The values of `COLUMNS` for each method; a method without common queries says so."""
    if section.spreads is None:
        return []
    titles = {row.method: row.title for row in section.rows}
    rows: list[tuple[str, ...]] = []
    for name, own in section.spreads.methods.items():
        if own is None:
            rows.append((titles[name], "no query has every wording", "", "", "", "", "0"))
            continue
        relative = "" if own.relative is None else f"{100 * own.relative:.1f} %"
        numbers = (own.wordings[0], min(own.wordings), max(own.wordings))
        size = f"{text.percent(own.range)} {text.span(own.interval)}"
        queries = text.thousands(own.queries)
        rows.append((titles[name], *map(text.percent, numbers), size, relative, queries))
    return rows


def spreads_markdown(section: Section) -> Markdown:
    """A table for Prefect's UI."""
    assert section.spreads is not None
    return Markdown(
        f"{plain(said(section.spreads))}\n\n{markdown_table(COLUMNS, spread_rows(section))}"
    )
