"""A paper's filled tables as files: one page, and a CSV, Parquet and LaTeX file for each table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from models.retrieval.methods import METHODS
from models.retrieval.paper_tables import COSTS
from storage.locations.location import Location
from tasks.report import text
from tasks.report.charts import Chart, Contours
from tasks.report.papers import FilledRow, FilledTable
from tasks.report.records import Strip
from tasks.report.render import render_page


@dataclass(frozen=True)
class Figure:
    """A figure of a paper, or why there is none.

    Attributes:
        number: Number as printed.
        title: What it shows.
        charts: Plots.
        strips: Answered queries.
        pairs: Queries as two methods answered them.
        reason: What is missing, why, and what would bring it; empty where nothing is.
    """

    number: str
    title: str
    charts: tuple[Chart | Contours, ...] = ()
    strips: tuple[Strip, ...] = ()
    pairs: tuple[tuple[Strip, Strip], ...] = ()
    reason: str = ""

    @property
    def anchor(self) -> str:
        """Its place in a page."""
        return f"figure-{self.number.replace(' ', '-')}"


@dataclass(frozen=True)
class Page:
    """Everything of a paper.

    Attributes:
        paper: `cvsi` or `instructcir`.
        title: Heading of the page.
        tables: Its tables, filled.
        figures: Its figures.
        embedded: Whether any measured number comes from the embedded world.
        created: When, for people.
    """

    paper: str
    title: str
    tables: tuple[FilledTable, ...]
    figures: tuple[Figure, ...]
    embedded: bool
    created: str


def write_paper(page: Page, out: Path) -> list[Path]:
    """Write `page.html`, and for each table `.csv`, `.parquet` and `.tex`; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    place, written = Location(str(out)), []
    files: dict[str, bytes] = {"page.html": _html(page).encode()}
    for table in page.tables:
        frame = tidy(table)
        files[f"{table.table.key}.csv"] = frame.write_csv().encode()
        files[f"{table.table.key}.tex"] = latex(table).encode()
        frame.write_parquet(out / f"{table.table.key}.parquet")
        written.append(out / f"{table.table.key}.parquet")
    for name, content in files.items():
        place.replace(name, content)
        written.append(out / name)
    return sorted(written)


def tidy(filled: FilledTable) -> pl.DataFrame:
    """One line for each number of a table: published, measured, or why it is missing.

    `published` is text as printed (one cell of CVSI's Table V is `>>5`); `measured` is a number.
    """
    table = filled.table
    lines: list[dict[str, Any]] = []
    for kind, rows in (("paper", filled.published), ("here", filled.measured)):
        for row in rows:
            for column, printed, measured in zip(
                table.columns, row.printed, row.measured, strict=True
            ):
                lines.append(
                    {
                        "paper": table.paper,
                        "table": table.number,
                        "row_of": kind,
                        "block": row.block,
                        "row": " | ".join(label for label in row.labels if label),
                        "method": row.method,
                        "column": f"{column.group} {column.label}",
                        "benchmark": column.benchmark,
                        "paper_split": column.split,
                        "metric": column.metric,
                        "published": printed or None,
                        "measured": None if measured is None else measured.value,
                        "measured_split": None
                        if measured is None
                        else measured.split or column.split,
                        "run": None if measured is None else measured.run or None,
                        "reason": row.reason if measured is None and row.reason else None,
                    }
                )
    texts = dict.fromkeys(lines[0], pl.String) | {"measured": pl.Float64}
    return pl.DataFrame(lines, schema=texts)


# --------------------------------------------------------------------------- page


def _html(page: Page) -> str:
    notes = {table.table.key: _notes(table) for table in page.tables}
    return render_page(
        "paper.html.j2",
        title=page.title,
        subtitle="Every table and figure in the paper's own layout: published numbers, what was "
        "measured here, and why the rest is missing.",
        created=page.created,
        page=page,
        notes=notes,
        heads={table.table.key: _heads(table) for table in page.tables},
        blocks=_blocks,
        shown=shown,
        METHODS=METHODS,
    )


def _notes(filled: FilledTable) -> dict[str, int]:
    """Reason -> its number, in the order of the rows."""
    reasons = (row.reason for row in (*filled.published, *filled.measured) if row.reason)
    return {reason: number for number, reason in enumerate(dict.fromkeys(reasons), start=1)}


def _heads(filled: FilledTable) -> list[tuple[str, int]]:
    """Headings above the columns, each with the number of columns below it."""
    groups = groupby(filled.table.columns, key=lambda column: column.group)
    return [(name, len(list(columns))) for name, columns in groups]


def _blocks(rows: Sequence[FilledRow]) -> list[tuple[str, list[FilledRow]]]:
    return [(name, list(own)) for name, own in groupby(rows, key=lambda row: row.block)]


def shown(value: float, metric: str) -> str:
    """A measured number as printed: percent and hours with two decimals, seconds with three.

    Nothing spent is a dash, as in the paper.
    """
    if metric in COSTS and not value:
        return "\N{EM DASH}"
    return f"{value:.3f}" if metric in ("texts", "retrieval") else f"{value:.2f}"


# --------------------------------------------------------------------------- LaTeX


def latex(filled: FilledTable) -> str:
    """A `tabular` with the paper's rows and, below them, what was measured (package booktabs).

    A measured number next to a published one stands in brackets.
    """
    table, notes = filled.table, _notes(filled)
    width = len(table.labels) + len(table.columns)
    lines = [
        f"% {table.title}. Published numbers; numbers in brackets and below were measured here.",
        f"\\begin{{tabular}}{{{'l' * len(table.labels)}{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join([""] * len(table.labels) + list(_spans(filled))) + " \\\\",
        " & ".join(map(_tex, (*table.labels, *(column.label for column in table.columns))))
        + " \\\\",
    ]
    for block, rows in _blocks((*filled.published, *filled.measured)):
        lines.append("\\midrule")
        if block:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{_tex(block)}}}}} \\\\")
        lines += [_line(filled, row, notes) for row in rows]
    lines.append("\\bottomrule")
    for reason, number in notes.items():
        said = f"\\textsuperscript{{{number}}} {_tex(reason)}"
        lines.append(f"\\multicolumn{{{width}}}{{p{{\\linewidth}}}}{{\\footnotesize {said}}} \\\\")
    return "\n".join([*lines, "\\end{tabular}", ""])


def _spans(filled: FilledTable) -> Iterator[str]:
    for name, count in _heads(filled):
        yield f"\\multicolumn{{{count}}}{{c}}{{{_tex(name)}}}"


def _line(filled: FilledTable, row: FilledRow, notes: dict[str, int]) -> str:
    cells = [_tex(label) for label in row.labels]
    if row.reason:
        cells[0] += f"\\textsuperscript{{{notes[row.reason]}}}"
    for column, printed, measured in zip(
        filled.table.columns, row.printed, row.measured, strict=True
    ):
        said = "" if measured is None else shown(measured.value, column.metric)
        if measured is not None and measured.split:
            said += f" {measured.split}"
        both = f"{printed} ({said})" if printed and said else printed or said or "--"
        cells.append(_tex(both))
    return " & ".join(cells) + " \\\\"


_ESCAPED = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    ">": "\\textgreater{}",
    "<": "\\textless{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}


def _tex(words: str) -> str:
    """Text on one line with LaTeX's own characters escaped."""
    shown = " ".join(text.showable(words).split())
    return "".join(_ESCAPED.get(character, character) for character in shown)
