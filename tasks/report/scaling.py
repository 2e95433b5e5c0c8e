"""Quality against the number of training triplets: one plot for each benchmark, and the numbers.

As InstructCIR's Table IV and Figure 1; the sizes lie on a logarithmic axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.report import text
from tasks.report.charts import Chart, Curve
from tasks.report.render import render_page


@dataclass(frozen=True)
class Measured:
    """One trained network on one benchmark.

    Attributes:
        triplets: Number of triplets that it was trained on.
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
        name: The difference in words.
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
    """One benchmark.

    Attributes:
        title: Heading.
        metric: Name of the metric; all values are percent.
        curve: Networks of the same kind, by number of triplets.
        others: Name and quality of each method to compare with.
        comparisons: Networks that were trained another way.
    """

    title: str
    metric: str
    curve: tuple[Measured, ...]
    others: tuple[tuple[str, float], ...]
    comparisons: tuple[Comparison, ...]


def panel_chart(panel: Panel) -> Chart:
    """Quality with its intervals, each doubling of the triplets an equal step."""
    curve = Curve(
        "trained",
        tuple((float(each.triplets), each.mean) for each in panel.curve),
        tuple((each.low, each.high) for each in panel.curve),
    )
    return Chart(
        title=f"{panel.title}: {panel.metric} against training triplets",
        curves=(curve,),
        x_name="triplets",
        levels=tuple((f"{name} {value:.1f}", value) for name, value in panel.others),
        from_zero=False,
        doubling=True,
    )


def scaling_page(title: str, subtitle: str, panels: Sequence[Panel], embedded: bool) -> str:
    """A complete HTML page that loads nothing."""
    return render_page(
        "scaling.html.j2",
        title=title,
        subtitle=subtitle,
        created=text.now(),
        panels=[(panel, panel_chart(panel)) for panel in panels],
        embedded=embedded,
    )
