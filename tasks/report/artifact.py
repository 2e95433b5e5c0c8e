"""An evaluation as Prefect's UI shows it: a table, a few queries, and the place of the report.

The pictures are the report's own thumbnails, inside the page as data URIs; the whole stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tasks.report.audit import audit_markdown
from tasks.report.costs import costs_markdown
from tasks.report.markdown import Markdown, markdown_table, plain
from tasks.report.pictures import THUMBNAIL, thumbnail
from tasks.report.records import LeaderboardRow, Result, Section, Strip, Thumbnail
from tasks.report.render import data_uri
from tasks.report.spreads import spreads_markdown
from tasks.report.strips import verdict

STRIPS: Final = 3
"""Queries shown at most."""
TOP: Final = 5
"""Ranked images shown of each."""
PICTURES: Final = 100_000
"""Bytes of all pictures of one page."""


def section_markdown(
    section: Section, report: Path, embedded: bool, link: Markdown | None = None
) -> str:
    """One benchmark: the scores of each method, a few queries, and the place of the full report.

    Args:
        section: The benchmark as the report shows it.
        report: The full report.
        embedded: Whether the numbers come from drawn scenes.
        link: Words with the report's address; None: its file on the machine that made it.
    """
    world = " Embedded world: not comparable with papers." if embedded else ""
    return "\n\n".join(
        [
            f"## {plain(section.title)}\n\n{plain(section.summary)}{world}",
            link or file_link(report),
            _scores(section),
            *_audit(section),
            *_spreads(section),
            *_costs(section),
            *_strips(section.strips),
        ]
    )


def file_link(report: Path) -> Markdown:
    """The report as a file; browsers open it by hand only."""
    return Markdown(
        f"Full report, on the machine that made it: [{plain(report.name)}]({report.as_uri()}), "
        f"{plain(report)}"
    )


def _scores(section: Section) -> str:
    metrics = (section.main_metric, *(n for n in section.columns if n != section.main_metric))
    apart = any(row.differs for row in section.rows)
    rows = [
        (
            row.title,
            *((row.differs,) if apart else ()),
            *(row.metrics.get(name, "") for name in metrics),
            _interval(row, section.main_metric),
            _paper(row, section.main_metric),
        )
        for row in sorted(section.rows, key=lambda row: -row.metrics.get(section.main_metric, -1))
        if row.metrics
    ]
    differs = ("what differs",) if apart else ()
    return markdown_table(("method", *differs, *metrics, "95 % interval", "paper"), rows)


def _audit(section: Section) -> Iterator[str]:
    if section.audit:
        yield f"### What needs composition\n\n{audit_markdown(section)}"


def _spreads(section: Section) -> Iterator[str]:
    if section.spreads:
        yield f"### Other words\n\n{spreads_markdown(section)}"


def _costs(section: Section) -> Iterator[str]:
    if section.costs:
        table = costs_markdown(section.costs, section.main_metric)
        yield f"### What a query costs\n\n{table}"


def _paper(row: LeaderboardRow, metric: str) -> str:
    if metric not in row.paper:
        return ""
    return f"{row.paper[metric]:.2f}" + (f" ({row.paper_apart})" if row.paper_apart else "")


def _interval(row: LeaderboardRow, metric: str) -> str:
    if metric not in row.intervals:
        return ""
    low, high = row.intervals[metric]
    return f"{low:.2f} to {high:.2f}"


def _strips(strips: Sequence[Strip]) -> Iterator[str]:
    """A table of queries with their results, as many as there is room for."""
    rows, room = [], PICTURES
    own = [strip for strip in strips if strip.method == strips[0].method]
    for strip in _mixed(own):
        row = _row(strip)
        size = sum(map(len, row))
        if size <= room:
            rows.append(row)
            room -= size
    if rows:
        columns = ("query", "reference", *(f"#{rank}" for rank in range(1, TOP + 1)))
        yield f"### Queries of {plain(strips[0].method)}\n\n{markdown_table(columns, rows)}"


def _mixed(strips: Sequence[Strip]) -> list[Strip]:
    """A found query, a missed one, and so on."""
    found = [strip for strip in strips if strip.target_rank == 1]
    other = [strip for strip in strips if strip.target_rank != 1]
    mixed = [strip for pair in zip(found, other, strict=False) for strip in pair]
    rest = found[len(other) :] + other[len(found) :]
    return (mixed + rest)[:STRIPS]


def _row(strip: Strip) -> tuple[Markdown, ...]:
    places = [_place(result) for result in strip.results[:TOP]]
    query = Markdown(f"**{plain(strip.text)}** ({plain(verdict(strip)[1])})")
    return (query, _picture(strip.reference), *places, *[plain("")] * (TOP - len(places)))


def _place(result: Result) -> Markdown:
    return Markdown(_picture(result.thumbnail) + (" **target**" if result.is_target else ""))


def _picture(picture: Thumbnail) -> Markdown:
    if max(picture.width, picture.height) > THUMBNAIL:
        picture = thumbnail(picture.jpeg, picture.alt)
    return Markdown(f"![{plain(picture.alt)}]({data_uri(picture)})")
