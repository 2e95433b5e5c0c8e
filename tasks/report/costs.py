"""What a query costs, next to what it finds: CVSI's Table V, and its plot.

The plot has a point for each method: seconds a query to the right, on a logarithmic axis, quality
upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tasks.report.charts import COLOURS, INK, drawn, rule
from tasks.report.markdown import Markdown, markdown_table
from tasks.report.records import CostRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNKNOWN: Final = "not recorded"
NOTHING: Final = "\N{EM DASH}"
"""In place of a part that a method does without, as in the paper."""
COLUMNS: Final = (
    "training (h)",
    "captioner + LLM (s)",
    "retrieval (s)",
    "calls",
    "prompt tokens",
    "answer tokens",
)
_WIDTH, _HEIGHT = 520, 260


def cells(row: CostRow) -> tuple[str, ...]:
    """The values of `COLUMNS`."""
    cost = row.cost
    return (
        _shown(cost.training_hours, 3),
        _shown(cost.text_seconds, 4),
        _shown(cost.retrieval_seconds, 5),
        _shown(cost.calls, 2),
        _shown(cost.prompt_tokens, 1),
        _shown(cost.answer_tokens, 1),
    )


def _shown(value: float | None, digits: int) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}" if value else NOTHING


def costs_markdown(rows: Sequence[CostRow], metric: str) -> Markdown:
    """A table for Prefect's UI, cheapest query first."""
    return markdown_table(
        ("method", *COLUMNS, metric),
        [(row.title, *cells(row), row.quality) for row in ordered(rows)],
    )


def ordered(rows: Sequence[CostRow]) -> list[CostRow]:
    """Cheapest query first; unknown ones last."""
    unknown = float("inf")
    return sorted(rows, key=lambda row: unknown if row.cost.seconds is None else row.cost.seconds)


def quality_svg(rows: Sequence[CostRow], metric: str) -> str:
    """Quality against seconds a query, of rows whose seconds are known; empty if none is."""
    points = [(s, row.quality, row.title) for row in ordered(rows) if (s := row.cost.seconds)]
    if not points:
        return ""
    title = f"{metric} against seconds a query"
    return drawn(title, _WIDTH, _HEIGHT, lambda axes: _draw(axes, points, metric))


def _draw(axes: Axes, points: Sequence[tuple[float, float, str]], metric: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    for place, (seconds, quality, _) in enumerate(points):
        axes.plot([seconds], [quality], "o", color=COLOURS[place % len(COLOURS)], markersize=6)
    low, high = min(x for x, *_ in points), max(x for x, *_ in points)
    axes.set_xlim(low / 1.5, max(high, 1.2 * low) * (high / low) ** 0.35 * 1.5)
    for seconds, height, name in _spread(points):
        axes.annotate(
            name,
            (seconds, height),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("seconds a query", color=INK, alpha=0.7)
    axes.set_ylabel(metric, color=INK, alpha=0.7)
    rule(axes)


def _spread(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Heights of the names: those that stand near each other are at least a line apart."""
    values = [quality for _, quality, _ in points]
    line = max(max(values) - min(values), 1.0) / 18
    placed: list[tuple[float, float, str]] = []
    for seconds, quality, name in sorted(points, key=lambda point: point[1]):
        near = [height for other, height, _ in placed if seconds / 3 < other < seconds * 3]
        placed.append((seconds, max([quality, *(height + line for height in near)]), name))
    return placed
