"""What each component adds: every ablation against the complete method."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.report import plots, text
from tasks.report.leaderboard import reference_of
from tasks.report.records import LeaderboardRow, Section


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
    """Round numbers on the longer side of zero."""
    far = scale.low if -scale.low > scale.high else scale.high
    step = plots.nice_ceiling(abs(far) / 3.5)
    sign = -1 if far < 0 else 1
    marks = [sign * step * i for i in (3, 2, 1) if abs(step * i) <= abs(far)]
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
    of_one_run = row.paper_apart == reference.paper_apart  # the same backbone and split
    if of_one_run and metric in row.paper and metric in reference.paper:
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
