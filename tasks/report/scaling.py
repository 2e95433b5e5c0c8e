"""Quality against the number of training triplets: one plot for each benchmark, and the numbers.

As InstructCIR's Table IV and Figure 1; the sizes lie on a logarithmic axis.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tasks.report.plots import nice_ceiling
from tasks.report.render import render_page

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 34
COLOURS: Final = ("#2343b0", "#b4530a", "#0a6e3c", "#8a2b86")


@dataclass(frozen=True)
class Measured:
    """One trained network on one benchmark.

    Attributes:
        triplets: How many it was trained on.
        mean: Mean over worlds or seeds, percent.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    triplets: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A network that was trained another way, against the whole one of the same size.

    Attributes:
        name: What is different.
        measured: Its quality.
        difference: It minus the whole network, percent points, paired.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
    """

    name: str
    measured: Measured
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One benchmark."""

    title: str
    metric: str
    curve: tuple[Measured, ...]
    others: tuple[tuple[str, float], ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Point:
    """A measured point in the drawing's coordinates."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Level:
    """A horizontal line: another method, or a mark of the axis."""

    y: float
    label: str
    colour: str = ""


@dataclass(frozen=True)
class Drawing:
    """A panel with its places worked out."""

    panel: Panel
    points: tuple[Point, ...]
    levels: tuple[Level, ...]
    marks: tuple[Level, ...]

    @property
    def path(self) -> str:
        """The curve as SVG coordinates."""
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)


def draw(panel: Panel) -> Drawing:
    """Work out where everything of a panel lies."""
    values = [value for m in panel.curve for value in (m.low, m.high)]
    values += [value for _, value in panel.others]
    top = min(100.0, nice_ceiling(max(values)))
    floor = max(0.0, 10.0 * math.floor((min(values) - 2.0) / 10.0))
    first, last = (math.log2(panel.curve[i].triplets) for i in (0, -1))

    def x(triplets: int) -> float:
        share = (math.log2(triplets) - first) / (last - first) if last > first else 0.5
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (0.04 + 0.92 * share)

    def y(value: float) -> float:
        share = (value - floor) / (top - floor)
        return HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * share

    points = tuple(
        Point(x(m.triplets), y(m.mean), y(m.low), y(m.high), f"{m.triplets:,}") for m in panel.curve
    )
    levels = tuple(
        Level(y(value), f"{name} {value:.1f}", COLOURS[1 + i % 3])
        for i, (name, value) in enumerate(panel.others)
    )
    marks = tuple(
        Level(y(floor + share * (top - floor)), f"{floor + share * (top - floor):g}")
        for share in (0.0, 0.5, 1.0)
    )
    return Drawing(panel, points, levels, marks)


def scaling_page(title: str, subtitle: str, panels: Sequence[Panel], embedded: bool) -> str:
    """A complete HTML page that loads nothing."""
    return render_page(
        "scaling.html.j2",
        title=title,
        subtitle=subtitle,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        drawings=[draw(panel) for panel in panels],
        embedded=embedded,
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        colour=COLOURS[0],
    )
